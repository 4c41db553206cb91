// Packs scales and offsets for quantised products, and 4-bit weights into int32.
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/norm/operands.h"
#include "ops/quant/int4.h"
#include "ops/quant/quant_param.h"

namespace anycann {
namespace {

Status PackParams(Call& call, const aclTensor* scale, const aclTensor* offset, bool nearest,
                  const aclTensor* out) {
  if (offset != nullptr && offset->view.empty()) offset = nullptr;
  if (!IsQuantParam(out->view.dtype))
    return call.Invalid("out has type {}, expected uint64 or int64", Name(out->view.dtype));
  int64_t n = out->view.numel();
  for (const auto& [t, name] : {std::pair{scale, "scale"}, std::pair{offset, "offset"}}) {
    if (t == nullptr) continue;
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected float32", name, Name(t->view.dtype));
    if (t->view.numel() != 1 && t->view.numel() != n)
      return call.Invalid("{} has shape {}, expected 1 element or out's {}", name, ShapeString(t->view), n);
  }
  if (n == 0) return call.Nothing();
  Operands o;
  const int s = o.Input(scale), z = o.Input(offset), y = o.Output(out);
  return call.Launch(
      o.list(), Cost{4.0 * static_cast<double>(n), o.bytes()}, [s, z, y, n, nearest](const Run& t) -> Status {
        const Values<float> scales(t[s]);
        const Values<float> offsets(t, z);
        const DenseOutput to(t[y]);
        if (!scales.ok() || !offsets.ok() || !to.ok()) return ScratchFailed(t.plan().name);
        const bool many = t[s].numel() != 1, shifted = z >= 0 && t[z].numel() != 1;
        for (int64_t i = 0; i < n; ++i)
          to.view().ptr<uint64_t>()[i] =
              PackQuantParam(scales[many ? i : 0], z >= 0 ? offsets[shifted ? i : 0] : 0.0f, nearest);
        to.Finish();
        return Status();
      });
}

}  // namespace

Status aclnn::TransQuantParamV2(Call& call, const aclTensor* scale, const aclTensor* offset,
                                const aclTensor* out) {
  return PackParams(call, scale, offset, false, out);
}

Status aclnn::TransQuantParamV3(Call& call, const aclTensor* scale, const aclTensor* offset,
                                int64_t roundMode, const aclTensor* out) {
  if (roundMode != 0 && roundMode != 1)
    return call.Invalid("roundMode is {}, expected 0 (cut off) or 1 (round)", roundMode);
  return PackParams(call, scale, offset, roundMode == 1, out);
}

Status aclnn::ConvertWeightToINT4Pack(Call& call, const aclTensor* weight, aclTensor* weightInt4Pack) {
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 1, kMaxRank));
  RETURN_IF_ERROR(call.RequireDType(weight, "weight", DType::kInt32));
  const TensorView &from = weight->view, &to = weightInt4Pack->view;
  if (to.dtype != DType::kInt32 && to.dtype != DType::kInt4)
    return call.Invalid("weightInt4Pack has type {}, expected int32 or int4", Name(to.dtype));
  const int64_t packed = to.dtype == DType::kInt32 ? 8 : 1, n = from.dims[from.rank - 1];
  int64_t dims[kMaxRank];
  std::copy_n(from.dims, from.rank, dims);
  dims[from.rank - 1] = n / packed;
  if (n % 8 != 0)
    return call.Invalid("weight has shape {}, expected a multiple of 8 columns", ShapeString(from));
  RETURN_IF_ERROR(call.RequireShape(weightInt4Pack, "weightInt4Pack", dims, from.rank));
  if (!to.contiguous()) return call.Invalid("weightInt4Pack has gaps, expected a contiguous tensor");
  if (to.empty()) return call.Nothing();
  return call.Launch({In(weight), Out(weightInt4Pack)},
                     Cost{static_cast<double>(from.numel()), static_cast<double>(from.nbytes())},
                     [n](const Run& t) -> Status {
                       const DenseInput x(t[0]);
                       if (!x.ok()) return ScratchFailed(t.plan().name);
                       std::atomic<int64_t> bad{-1};
                       ParallelFor(t[0].numel() / n, std::max<int64_t>(1, 16384 / n),
                                   [&](int64_t begin, int64_t end) {
                                     const int32_t* p = x.view().ptr<int32_t>() + begin * n;
                                     for (int64_t i = 0; i < (end - begin) * n; ++i)
                                       if (p[i] < -8 || p[i] > 7) bad = begin * n + i;
                                     PackInt4(p, (end - begin) * n, t[1].bytes() + begin * n / 2);
                                   });
                       if (bad >= 0)
                         return Error(kParamInvalid, "{}: weight has {} at element {}, expected -8 to 7",
                                      t.plan().name, x.view().ptr<int32_t>()[bad.load()], bad.load());
                       return Status();
                     });
}

}  // namespace anycann
