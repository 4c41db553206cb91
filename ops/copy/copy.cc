// Copies with a cast and broadcasting, and fills: what every client needs before anything else.
#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/convert.h"

namespace anycann {
namespace {

Cost Traffic(const TensorView& to, const TensorView& from) {
  return {0, static_cast<double>(to.numel() * (SizeOf(to.dtype) + SizeOf(from.dtype)))};
}

Status CopyInto(Call& call, const aclTensor* to, const aclTensor* from, const char* to_name,
                const char* from_name) {
  TensorView source;
  if (!BroadcastTo(from->view, to->view.dims, to->view.rank, &source))
    return call.Invalid("{} {} can't be broadcast to {} {}", from_name, ShapeString(from->view), to_name,
                        ShapeString(to->view));
  if (to->view.empty()) return call.Nothing();
  return call.Launch({In(from, source), Out(to)}, Traffic(to->view, source), [](const Run& t) {
    CopyCast(t[1], t[0]);
    return Status();
  });
}

Status FillWith(Call& call, const aclTensor* self, const ScalarValue& value) {
  if (self->view.empty()) return call.Nothing();
  const Element e = ElementOf(value, self->view.dtype);
  return call.Launch({Out(self)}, Cost{0, static_cast<double>(self->view.nbytes())}, [e](const Run& t) {
    Fill(t[0], e.bytes);
    return Status();
  });
}

Status FillWith(Call& call, const aclTensor* self, int64_t value) {
  ScalarValue v;
  v.dtype = DType::kInt64;
  v.i = value;
  return FillWith(call, self, v);
}

}  // namespace

Status aclnn::InplaceCopy(Call& call, aclTensor* selfRef, const aclTensor* src) {
  return CopyInto(call, selfRef, src, "selfRef", "src");
}

Status aclnn::Cast(Call& call, const aclTensor* self, const aclDataType dtype, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireDType(out, "out", static_cast<DType>(dtype)));
  return CopyInto(call, out, self, "out", "self");
}

Status aclnn::Expand(Call& call, const aclTensor* self, const aclIntArray* size, aclTensor* out) {
  int64_t dims[kMaxRank];
  const int rank = static_cast<int>(size->size), lead = rank - self->view.rank;
  if (rank > kMaxRank || lead < 0)
    return call.Invalid("size has {} values, expected {} to {} (self {})", size->size, self->view.rank,
                        kMaxRank, ShapeString(self->view));
  for (int i = 0; i < rank; ++i)
    dims[i] = (*size)[i] == -1 && i >= lead ? self->view.dims[i - lead] : (*size)[i];
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, rank));
  return CopyInto(call, out, self, "out", "self");
}

Status aclnn::InplaceZero(Call& call, aclTensor* selfRef) { return FillWith(call, selfRef, 0); }
Status aclnn::InplaceOne(Call& call, const aclTensor* selfRef) { return FillWith(call, selfRef, 1); }
Status aclnn::InplaceFillScalar(Call& call, aclTensor* selfRef, const aclScalar* value) {
  return FillWith(call, selfRef, value->value);
}
Status aclnn::InplaceFillTensor(Call& call, aclTensor* selfRef, const aclTensor* value) {
  if (value->view.numel() != 1)
    return call.Invalid("value has shape {}, expected one element", ShapeString(value->view));
  TensorView scalar = value->view;
  scalar.rank = 0;
  if (selfRef->view.empty()) return call.Nothing();
  TensorView source;
  BroadcastTo(scalar, selfRef->view.dims, selfRef->view.rank, &source);
  return call.Launch({In(value, source), Out(selfRef)}, Traffic(selfRef->view, value->view),
                     [](const Run& t) {
                       CopyCast(t[1], t[0]);
                       return Status();
                     });
}

}  // namespace anycann
