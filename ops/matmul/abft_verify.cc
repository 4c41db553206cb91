// MatmulAbftVerify: is c = a @ b? Checked by sums over segments of columns, as torch_npu.matmul_checksum
// wants it: bit r % 8 of byte segment * ceil(m / 8) + r / 8 says that row r is right there.
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

constexpr int64_t kRowsPerByte = 8;

struct Verification {
  int64_t m, k, n, segments, width;
  double tolerance;
};

// The weighted sums of b's rows over each segment, and of their magnitudes: [segment][k].
void SumSegments(const Verification& v, const float* b, const float* weight, double* sums,
                 double* magnitudes) {
  ParallelFor(v.k, std::max<int64_t>(1, 16384 / (v.n + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t s = 0; s < v.segments; ++s) {
        double sum = 0, magnitude = 0;
        for (int64_t j = s * v.width; j < std::min(v.n, (s + 1) * v.width); ++j) {
          const double product = double{b[i * v.n + j]} * double{weight[j]};
          sum += product;
          magnitude += std::abs(product);
        }
        sums[s * v.k + i] = sum;
        magnitudes[s * v.k + i] = magnitude;
      }
  });
}

// Whether the weighted sum of c's row over the segment is what a's row and b's sums say, within the tolerance
// times the sum of magnitudes, which bounds what rounding can do.
bool RowIsRight(const Verification& v, const float* a, const float* c, const float* weight, int64_t segment,
                const double* sums, const double* magnitudes) {
  double expected = 0, bound = 0, sum = 0;
  for (int64_t i = 0; i < v.k; ++i) {
    expected += double{a[i]} * sums[segment * v.k + i];
    bound += std::abs(double{a[i]}) * magnitudes[segment * v.k + i];
  }
  for (int64_t j = segment * v.width; j < std::min(v.n, (segment + 1) * v.width); ++j)
    sum += double{c[j]} * double{weight[j]};
  return std::abs(sum - expected) <= v.tolerance * bound;  // false for NaN
}

Status Verify(const Run& t, const Verification& v) {
  const Values<float> a(t[0]), b(t[1]), c(t[2]), weight(t[3]);
  const Scratch<double> sums(v.segments * v.k), magnitudes(v.segments * v.k);
  const DenseOutput result(t[4]);
  if (!a.ok() || !b.ok() || !c.ok() || !weight.ok() || !sums.ok() || !magnitudes.ok() || !result.ok())
    return ScratchFailed(t.plan().name);
  SumSegments(v, b.get(), weight.get(), sums.get(), magnitudes.get());
  const int64_t bytes = (v.m + kRowsPerByte - 1) / kRowsPerByte;
  uint8_t* out = result.view().ptr<uint8_t>();
  ParallelFor(bytes, std::max<int64_t>(1, 2048 / (v.n + v.k + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t byte = begin; byte < end; ++byte)
      for (int64_t s = 0; s < v.segments; ++s) {
        uint8_t bits = 0;
        for (int64_t r = byte * kRowsPerByte; r < std::min(v.m, (byte + 1) * kRowsPerByte); ++r)
          if (RowIsRight(v, a.get() + r * v.k, c.get() + r * v.n, weight.get(), s, sums.get(),
                         magnitudes.get()))
            bits = static_cast<uint8_t>(bits | 1u << (r % kRowsPerByte));
        out[s * bytes + byte] = bits;
      }
  });
  result.Finish();
  return Status();
}

}  // namespace

Status aclnn::MatmulAbftVerify(Call& call, const aclTensor* a, const aclTensor* b, const aclTensor* c,
                               const aclTensor* checksumWeight, double eMax, aclTensor* compRow) {
  RETURN_IF_ERROR(call.RequireRank(a, "a", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(b, "b", 2, 2));
  for (const auto& [t, name] :
       {std::pair{a, "a"}, std::pair{b, "b"}, std::pair{c, "c"}, std::pair{checksumWeight, "checksumWeight"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name));
  const int64_t m = a->view.dims[0], k = a->view.dims[1], n = b->view.dims[1], shape[] = {m, n};
  if (b->view.dims[0] != k)
    return call.Invalid("a {} and b {} don't match: {} columns, {} rows", ShapeString(a->view),
                        ShapeString(b->view), k, b->view.dims[0]);
  RETURN_IF_ERROR(call.RequireShape(c, "c", shape, 2));
  RETURN_IF_ERROR(call.RequireShape(checksumWeight, "checksumWeight", &n, 1));
  RETURN_IF_ERROR(call.RequireDType(compRow, "compRow", DType::kUint8));
  if (!(eMax >= 0)) return call.Invalid("eMax is {}, expected 0 or more", eMax);
  const int64_t bytes = (m + kRowsPerByte - 1) / kRowsPerByte, all = compRow->view.numel();
  if (bytes == 0 || n == 0 || all == 0 || all % bytes != 0)
    return call.Invalid("compRow has shape {}, expected {} bytes for each segment of c's {} columns",
                        ShapeString(compRow->view), bytes, n);
  const int64_t segments = all / bytes;
  const Verification v{m, k, n, segments, (n + segments - 1) / segments, eMax};
  return call.Launch({In(a), In(b), In(c), In(checksumWeight), Out(compRow)},
                     Cost{2.0 * static_cast<double>(m + n) * static_cast<double>(k * segments),
                          static_cast<double>(a->view.nbytes() + b->view.nbytes() + c->view.nbytes())},
                     [v](const Run& t) -> Status { return Verify(t, v); });
}

}  // namespace anycann
