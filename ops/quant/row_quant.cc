#include "ops/quant/row_quant.h"

namespace anycann {

Status ReadRowFormat(Call& call, const aclTensor* y, const char* name, const int64_t* dims, int rank,
                     int64_t dst_type, RowFormat* format) {
  const DType type = y->view.dtype;
  const bool int4 = dst_type == static_cast<int64_t>(DType::kInt4);
  int64_t packed = 1;
  if (type == DType::kInt32)
    packed = 8;
  else if (type == DType::kInt8 && int4)
    packed = 2;
  else if (type != DType::kInt8 && type != DType::kInt4)
    return call.Invalid("{} has type {}, expected int8, int4 or int32 (eight int4)", name, Name(type));
  if (dst_type >= 0 && !int4 && dst_type != static_cast<int64_t>(type))
    return call.Invalid("dstType is {}, but {} has type {} ({})", dst_type, name, Name(type),
                        static_cast<int>(type));
  format->four_bits = packed > 1 || type == DType::kInt4;
  format->n = dims[rank - 1];
  format->rows = 1;
  for (int i = 0; i + 1 < rank; ++i) format->rows *= dims[i];
  const int64_t whole = std::max<int64_t>(packed, format->four_bits ? 2 : 1);
  if (format->n % whole != 0)
    return call.Invalid("{} of 4 bits has {} numbers in a row, expected a multiple of {}", name, format->n,
                        whole);
  int64_t expected[kMaxRank];
  std::copy_n(dims, rank, expected);
  expected[rank - 1] /= packed;
  RETURN_IF_ERROR(call.RequireShape(y, name, expected, rank));
  if (type == DType::kInt4 && !y->view.contiguous())
    return call.Invalid("{} of int4 has gaps, expected a contiguous tensor", name);
  return Status();
}

Status ReadRounding(Call& call, const char* mode, const char* name, RowFormat* format) {
  const std::string_view m = mode == nullptr ? "" : mode;
  if (m == "floor")
    format->rounding = RoundTo::kFloor;
  else if (m == "ceil")
    format->rounding = RoundTo::kCeil;
  else if (m == "trunc")
    format->rounding = RoundTo::kTrunc;
  else if (m != "" && m != "rint" && m != "round")
    return call.Invalid("{} is \"{}\", expected \"rint\", \"round\", \"floor\", \"ceil\" or \"trunc\"", name,
                        m);
  return Status();
}

Status RowGroups::Read(const char* op, const char* name, const TensorView& index, bool sizes, int64_t rows) {
  const Values<int64_t> values(index);
  group_ = Scratch<int32_t>(rows);
  if (!values.ok() || !group_.ok()) return ScratchFailed(op);
  int64_t at = 0;
  for (int64_t g = 0; g < index.numel(); ++g) {
    const int64_t v = values[g];
    if (v < 0 || v > rows || (sizes ? v > rows - at : v < at))
      return Error(kParamInvalid, "{}: {} has {} at {}, expected {} of at most {} rows", op, name, v, g,
                   sizes ? "sizes with a sum" : "ends that don't decrease,", rows);
    for (const int64_t end = sizes ? at + v : v; at < end; ++at) group_[at] = static_cast<int32_t>(g);
  }
  for (; at < rows; ++at) group_[at] = -1;
  return Status();
}

Status GroupValues::Check(Call& call, const aclTensor* t, const char* name, int64_t groups, int64_t n) {
  if (t == nullptr) return Status();
  const TensorView& v = t->view;
  if (!IsFloating(v.dtype) && v.dtype != DType::kInt32 && v.dtype != DType::kInt8)
    return call.Invalid("{} has type {}, expected a floating type", name, Name(v.dtype));
  if (v.numel() == 0 || (v.numel() != groups && v.numel() != groups * n))
    return call.Invalid("{} has shape {}, expected {} or {} elements ({} groups)", name, ShapeString(v),
                        groups, groups * n, groups);
  return Status();
}

}  // namespace anycann
