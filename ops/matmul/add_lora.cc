// AddLora: y plus the product of each row of x with the low-rank weights that its index names.
#include <algorithm>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/dot.h"
#include "ops/norm/operands.h"

namespace anycann {

// y, out [B,columns]; x [B,H1]; weightB [W,L,H2,R], weightA [W,L,R,H1], without it R is H1; a negative index
// leaves its row as it is. The product goes to columns [yOffset, yOffset + ySliceSize).
Status aclnn::AddLora(Call& call, const aclTensor* y, const aclTensor* x, const aclTensor* weightB,
                      const aclTensor* indices, const aclTensor* weightAOptional, int64_t layerIdx,
                      double scale, int64_t yOffset, int64_t ySliceSize, const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(y, "y", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(weightB, "weightB", 4, 4));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", y, "y"));
  const int64_t rows = y->view.dims[0], columns = y->view.dims[1], width = x->view.dims[1];
  const int64_t* b = weightB->view.dims;
  const int64_t adapters = b[0], layers = b[1], wide = b[2], rank = b[3];
  if (x->view.dims[0] != rows)
    return call.Invalid("x has shape {}, expected {} rows as y has", ShapeString(x->view), rows);
  RETURN_IF_ERROR(call.RequireShape(indices, "indices", &rows, 1));
  if (!IsInteger(indices->view.dtype))
    return call.Invalid("indices has type {}, expected int32", Name(indices->view.dtype));
  if (weightAOptional != nullptr) {
    const int64_t dims[] = {adapters, layers, rank, width};
    RETURN_IF_ERROR(call.RequireShape(weightAOptional, "weightAOptional", dims, 4));
  } else if (rank != width) {
    return call.Invalid(
        "weightB has shape {} and x {}: without weightAOptional their last dimensions are one",
        ShapeString(weightB->view), ShapeString(x->view));
  }
  for (const auto& [t, name] : {std::pair{y, "y"}, std::pair{x, "x"}, std::pair{weightB, "weightB"},
                                std::pair{weightAOptional, "weightAOptional"}, std::pair{out, "out"}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireFloating(t, name));
  if (layerIdx < 0 || layerIdx >= layers)
    return call.Invalid("layerIdx is {}, expected 0 to {}", layerIdx, layers - 1);
  if (ySliceSize < wide || yOffset < 0 || yOffset > columns - wide)
    return call.Invalid("yOffset is {} and ySliceSize {}: {} columns of weightB don't fit y {}", yOffset,
                        ySliceSize, wide, ShapeString(y->view));
  if (y->view.empty()) return call.Nothing();
  Operands o;
  const int at_y = o.Input(y), at_x = o.Input(x), at_b = o.Input(weightB), at_index = o.Input(indices),
            at_a = o.Input(weightAOptional), at_out = o.Output(out);
  const double flops = 2.0 * static_cast<double>(rows * rank) * static_cast<double>(width + wide);
  return call.Launch(o.list(), Cost{flops, o.bytes()},
                     [=, by = static_cast<float>(scale)](const Run& t) -> Status {
                       const TensorView layer_b = t[at_b].Select(1, layerIdx);
                       const Values<float> x(t[at_x]), before(t[at_y]), wb(layer_b),
                           wa = at_a >= 0 ? Values<float>(t[at_a].Select(1, layerIdx)) : Values<float>();
                       const Values<int64_t> index(t[at_index]);
                       const Scratch<float> sum(rows * columns);
                       if (!x.ok() || !before.ok() || !wb.ok() || !wa.ok() || !index.ok() || !sum.ok())
                         return ScratchFailed(t.plan().name);
                       for (int64_t r = 0; r < rows; ++r)
                         if (index[r] >= adapters)
                           return Error(kParamInvalid, "{}: indices has {}, expected a value below {}",
                                        t.plan().name, index[r], adapters);
                       ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
                         std::vector<float> low(static_cast<size_t>(rank));
                         for (int64_t r = begin; r < end; ++r) {
                           std::copy_n(before.get() + r * columns, columns, sum.get() + r * columns);
                           if (index[r] < 0) continue;
                           const float* row = x.get() + r * width;
                           if (wa.get() != nullptr) {
                             for (int64_t i = 0; i < rank; ++i)
                               low[i] = DotProduct(wa.get() + (index[r] * rank + i) * width, row, width);
                             row = low.data();
                           }
                           for (int64_t i = 0; i < wide; ++i)
                             sum[r * columns + yOffset + i] +=
                                 by * DotProduct(wb.get() + (index[r] * wide + i) * rank, row, rank);
                         }
                       });
                       StoreValues(t[at_out], sum.get());
                       return Status();
                     });
}

}  // namespace anycann
