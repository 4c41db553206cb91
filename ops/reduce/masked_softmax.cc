// Softmax of scaled scores with a mask: masked scores become -10000 (as attention kernels of this kind do
// it), or all above the diagonal are masked.
#include "aclnn_ops.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"
#include "ops/reduce/exp_sum.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/lines.h"

namespace anycann {
namespace {

constexpr double kMasked = -10000;

template <class T>
void ForwardLine(void* const* out, const void* const* in, int64_t n, void*, const void* params) {
  const T scale = static_cast<T>(*static_cast<const double*>(params));
  const T* x = static_cast<const T*>(in[0]);
  const bool* mask = static_cast<const bool*>(in[1]);
  T* y = static_cast<T*>(out[0]);
  for (int64_t i = 0; i < n; ++i) y[i] = mask[i] ? static_cast<T>(kMasked) : x[i] * scale;
  const T factor = static_cast<T>(1 / ExpAndSum(y, y, n, ExtremumOf<Greater>(y, n)));
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

template <class T>
void BackwardLine(void* const* out, const void* const* in, int64_t n, void*, const void* params) {
  const T scale = static_cast<T>(*static_cast<const double*>(params));
  const T *dy = static_cast<const T*>(in[0]), *y = static_cast<const T*>(in[1]);
  const bool* mask = static_cast<const bool*>(in[2]);
  T* dx = static_cast<T*>(out[0]);
  const T sum = static_cast<T>(DotOfValues(dy, y, n));
  for (int64_t i = 0; i < n; ++i) dx[i] = mask[i] ? T(0) : (dy[i] - sum) * y[i] * scale;
}

// inputs: one or two score tensors; the mask, or nullptr for all above the diagonal, is the last input of the
// kernel.
Status Launch(Call& call, std::initializer_list<const aclTensor*> inputs, const aclTensor* mask, double scale,
              bool triangular, const aclTensor* out) {
  const aclTensor* like = *inputs.begin();
  const TensorView& v = like->view;
  RETURN_IF_ERROR(call.RequireRank(like, "x", 2, kMaxRank));
  for (const aclTensor* t : inputs) RETURN_IF_ERROR(call.RequireSameShape(t, "y", like, "x"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", like, "x"));
  TensorView spread = v;
  if (!triangular && !BroadcastTo(mask->view, v.dims, v.rank, &spread))
    return call.Invalid("mask has shape {}, which can't be broadcast to {}", ShapeString(mask->view),
                        ShapeString(v));
  if (out->view.empty()) return call.Nothing();
  const int count = static_cast<int>(inputs.size());
  Arg args[4] = {Out(out), In(like), In(inputs.begin()[count - 1]), In(like)};
  args[1 + count] = triangular ? In(like) : In(mask, spread);
  const double n = static_cast<double>(v.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(v.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        LineKernel k;
        k.inputs = count + 1;
        k.in_types[0] = k.in_types[1] = k.out_types[0] = kDTypeOf<T>;
        k.in_types[count] = DType::kBool;
        k.line = count == 1 ? &ForwardLine<T> : &BackwardLine<T>;
        k.cost = 5;
        status = call.Launch(
            std::span<const Arg>(args, count + 2), Cost{10 * n, 2 * static_cast<double>(v.nbytes())},
            [k, scale, triangular, count](const Run& t) -> Status {
              TensorView in[3] = {t[1], t[2], t[count + 1]};
              const int last = t[1].rank - 1;
              const int64_t rows = t[1].dims[last - 1], columns = t[1].dims[last];
              Buffer<bool> above = NewBuffer<bool>(triangular ? rows * columns : 0);
              if (triangular) {
                for (int64_t i = 0; i < rows; ++i)
                  for (int64_t j = 0; j < columns; ++j) above[i * columns + j] = j > i;
                BroadcastTo(TensorView::Contiguous(above.get(), DType::kBool, {rows, columns}), t[1].dims,
                            t[1].rank, &in[count]);
              }
              return RunLines(k, {&t[0], 1}, std::span<const TensorView>(in, count + 1), last, &scale);
            });
      }))
    return Unsupported(call, v.dtype);
  return status;
}

}  // namespace

Status aclnn::ScaledMaskedSoftmax(Call& call, const aclTensor* x, const aclTensor* mask, double scale,
                                  bool fixedTriuMask, aclTensor* y) {
  return Launch(call, {x}, mask, scale, fixedTriuMask, y);
}
Status aclnn::ScaledMaskedSoftmaxBackward(Call& call, const aclTensor* gradOutput, const aclTensor* y,
                                          const aclTensor* mask, double scale, bool fixTriuMask,
                                          aclTensor* out) {
  return Launch(call, {gradOutput, y}, mask, scale, fixTriuMask, out);
}

}  // namespace anycann
