// Dynamic quantisation: each row, each column or the whole tensor gets the scale (and offset) that its own
// values need.
#include "aclnn_ops.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

struct DynamicHandles {
  const aclTensor *x, *smooth, *groups = nullptr, *y, *scale, *offset = nullptr;
  int64_t dst_type = -1;
};

struct DynamicPlaces {
  int x, smooth, groups, y, scale, offset;
};

// What one scale belongs to.
enum class Share { kRow, kColumn, kTensor };

Status RunDynamic(const Run& t, const RowFormat& f, Share share, const DynamicPlaces& at) {
  const char* op = t.plan().name;
  const bool columns = share == Share::kColumn, symmetric = at.offset < 0;
  const auto rows_first = [&](const TensorView& v) {
    return columns ? v.Transpose(v.rank - 2, v.rank - 1) : v;
  };
  const DenseInput x(rows_first(t[at.x]));
  const QuantRows y(f, rows_first(t[at.y]));
  RowGroups groups;
  if (at.groups >= 0) RETURN_IF_ERROR(groups.Read(op, "groupIndexOptional", t[at.groups], false, f.rows));
  const int64_t count = at.groups >= 0 ? t[at.groups].numel() : 1;
  const GroupValues smooth = at.smooth >= 0 ? GroupValues(t[at.smooth], count, f.n) : GroupValues();
  const Scratch<float> scale(f.rows), offset(f.rows);
  const Scratch<RowScale> range(share == Share::kTensor ? f.rows : 0);
  if (!x.ok() || !y.ok() || !smooth.ok() || !scale.ok() || !offset.ok() || !range.ok())
    return ScratchFailed(op);
  const DenseReader<float> reader(x.view());
  const auto read = [&](int64_t r, float* v) {
    const float* p = reader.Read(r * f.n, f.n, v);
    if (p != v) std::copy_n(p, f.n, v);
    if (smooth && groups[r] >= 0) smooth.Apply(groups[r], f.n, v, [](float a, float b) { return a * b; });
  };
  const auto store = [&](int64_t r, float* v, const RowScale& s) {
    scale[r] = s.Scale(f, symmetric);
    offset[r] = s.Offset(f, symmetric, scale[r]);
    RowScale::Apply(v, f.n, scale[r], offset[r]);
    y.Store(r, v);
  };
  bool ok = true;
  if (share == Share::kTensor) {
    ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
      read(r, v);
      range[r] = RowScale::Of(v, f.n);
    });
    RowScale all = range[0];
    for (int64_t r = 1; ok && r < f.rows; ++r) {
      all.low = std::min(all.low, range[r].low);
      all.high = std::max(all.high, range[r].high);
    }
    ok = ok && ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
           read(r, v);
           store(r, v, all);
         });
  } else {
    ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
      read(r, v);
      store(r, v, RowScale::Of(v, f.n));
    });
  }
  if (!ok) return ScratchFailed(op);
  y.Finish();
  StoreValues(t[at.scale], scale.get());
  if (at.offset >= 0) StoreValues(t[at.offset], offset.get());
  return Status();
}

Status LaunchDynamic(Call& call, const DynamicHandles& h, Share share) {
  const bool columns = share == Share::kColumn;
  RETURN_IF_ERROR(call.RequireRank(h.x, "x", columns ? 2 : 1, kMaxRank));
  const TensorView& x = h.x->view;
  if (!IsFloating(x.dtype))
    return call.Invalid("x has type {}, expected a floating-point type", Name(x.dtype));
  RowFormat f;
  RETURN_IF_ERROR(ReadRowFormat(call, h.y, "yOut", x.dims, x.rank, h.dst_type, &f));
  if (columns) {
    if (f.four_bits) return call.Invalid("yOut has 4 bits, expected int8 with quantMode \"perchannel\"");
    f.n = x.dims[x.rank - 2];
    f.rows = f.n == 0 ? 0 : x.numel() / f.n;
  }
  int64_t groups = 1;
  if (h.groups != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(h.groups, "groupIndexOptional", 1, 1));
    if (h.groups->view.dtype != DType::kInt32 && h.groups->view.dtype != DType::kInt64)
      return call.Invalid("groupIndexOptional has type {}, expected int32", Name(h.groups->view.dtype));
    if (h.smooth == nullptr) return call.Invalid("groupIndexOptional is given without smoothScalesOptional");
    if (columns) return call.Invalid("groupIndexOptional is given, which quantMode \"perchannel\" lacks");
    groups = h.groups->view.numel();
  }
  if (h.smooth != nullptr && (h.smooth->view.numel() != groups * f.n || !IsFloating(h.smooth->view.dtype)))
    return call.Invalid("smoothScalesOptional has shape {}, expected {}[{}]", ShapeString(h.smooth->view),
                        groups == 1 ? "" : "one for each group of ", f.n);
  const int64_t scales = share == Share::kTensor ? 1 : f.rows;
  for (const aclTensor* p : {h.scale, h.offset})
    if (p != nullptr && (p->view.numel() != scales || !IsFloating(p->view.dtype)))
      return call.Invalid("scaleOut or offsetOut is {}, expected one value for each of {} rows", Describe(p),
                          scales);
  if (x.empty()) return call.Nothing();
  Operands o;
  const DynamicPlaces at = {o.Input(h.x),  o.Input(h.smooth), o.Input(h.groups),
                            o.Output(h.y), o.Output(h.scale), o.Output(h.offset)};
  return call.Launch(o.list(), Cost{4.0 * static_cast<double>(x.numel()), o.bytes()},
                     [f, share, at](const Run& t) { return RunDynamic(t, f, share, at); });
}

Status LaunchMode(Call& call, DynamicHandles h, bool symmetric, const char* mode, const aclTensor* offset) {
  if (!symmetric && offset == nullptr)
    return call.Invalid("offsetOut is absent, which isSymmetrical false needs");
  if (!symmetric) h.offset = offset;
  const std::string_view m = mode == nullptr ? "pertoken" : mode;
  if (m == "pertoken") return LaunchDynamic(call, h, Share::kRow);
  if (m == "perchannel") return LaunchDynamic(call, h, Share::kColumn);
  if (m == "pertensor") return LaunchDynamic(call, h, Share::kTensor);
  return call.Invalid("quantMode is \"{}\", expected \"pertoken\", \"pertensor\" or \"perchannel\"", m);
}

}  // namespace

Status aclnn::DynamicQuant(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                           const aclTensor* yOut, const aclTensor* scaleOut) {
  return LaunchDynamic(call, {.x = x, .smooth = smoothScalesOptional, .y = yOut, .scale = scaleOut},
                       Share::kRow);
}

Status aclnn::DynamicQuantV2(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                             const aclTensor* groupIndexOptional, int64_t dstType, const aclTensor* yOut,
                             const aclTensor* scaleOut, const aclTensor* offsetOut) {
  return LaunchDynamic(call,
                       {.x = x,
                        .smooth = smoothScalesOptional,
                        .groups = groupIndexOptional,
                        .y = yOut,
                        .scale = scaleOut,
                        .offset = offsetOut,
                        .dst_type = dstType},
                       Share::kRow);
}

Status aclnn::DynamicQuantV3(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                             const aclTensor* groupIndexOptional, int64_t dstType, bool isSymmetrical,
                             const char* quantMode, const aclTensor* yOut, const aclTensor* scaleOut,
                             const aclTensor* offsetOut) {
  return LaunchMode(call,
                    {.x = x,
                     .smooth = smoothScalesOptional,
                     .groups = groupIndexOptional,
                     .y = yOut,
                     .scale = scaleOut,
                     .dst_type = dstType},
                    isSymmetrical, quantMode, offsetOut);
}

Status aclnn::DynamicQuantV4(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                             const aclTensor* groupIndexOptional, int64_t dstType, bool isSymmetrical,
                             const char* quantMode, float dstTypeMax, const aclTensor* yOut,
                             const aclTensor* scaleOut, const aclTensor* offsetOut) {
  if (dstTypeMax != 0) return call.Invalid("dstTypeMax is {}, expected 0 for integers", dstTypeMax);
  return DynamicQuantV3(call, x, smoothScalesOptional, groupIndexOptional, dstType, isSymmetrical, quantMode,
                        yOut, scaleOut, offsetOut);
}

}  // namespace anycann
