#include "ops/matmul/fractal_nz.h"

#include "base/scratch.h"
#include "ops/convert.h"

namespace anycann {

TensorView FractalNz::Unpack(const TensorView& storage, const TensorView& v, bool transposed) {
  const int r = storage.rank;
  const int64_t n1 = storage.dims[r - 4], m1 = storage.dims[r - 3], m0 = storage.dims[r - 2],
                c0 = storage.dims[r - 1];
  const int64_t ld = n1 * c0;
  TensorView to = storage;
  to.data = ThreadScratch(ScratchSlot::kShared2, static_cast<size_t>(storage.nbytes()));
  TensorView matrix = v;
  matrix.data = to.data;
  if (to.data == nullptr) return matrix;
  to.strides[r - 4] = c0;
  to.strides[r - 3] = m0 * ld;
  to.strides[r - 2] = ld;
  to.strides[r - 1] = 1;
  CopyCast(to, storage);
  matrix.strides[v.rank - 2] = transposed ? 1 : ld;
  matrix.strides[v.rank - 1] = transposed ? ld : 1;
  int64_t stride = m1 * m0 * ld;
  for (int i = v.rank - 3; i >= 0; --i) {
    matrix.strides[i] = v.strides[i] == 0 ? 0 : stride;
    stride *= v.dims[i];
  }
  return matrix;
}

}  // namespace anycann
