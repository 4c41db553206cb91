// Selection by a mask: where(condition, self, other) and masked fill. Moves elements without looking at them,
// so the loops know only their size.
#include <cstring>

#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class U>
void SelectLoop(void* const* out, const void* const* in, int64_t n, const void*) {
  const uint8_t* c = static_cast<const uint8_t*>(in[0]);  // bools; g++ 12 does not vectorise over those
  const U *a = static_cast<const U*>(in[1]), *b = static_cast<const U*>(in[2]);
  U* r = static_cast<U*>(out[0]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const U x = a[i], y = b[i];
    r[i] = c[i] != 0 ? x : y;
  }
}
// r = mask ? value : self, with the value in `params`.
template <class U>
void FillLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const U value = *static_cast<const U*>(params);
  const uint8_t* c = static_cast<const uint8_t*>(in[0]);  // bools; g++ 12 does not vectorise over those
  const U* a = static_cast<const U*>(in[1]);
  U* r = static_cast<U*>(out[0]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const U x = a[i];
    r[i] = c[i] != 0 ? value : x;
  }
}

#define ANYCANN_BY_SIZE(loop, size) \
  ((size) == 1   ? &loop<uint8_t>   \
   : (size) == 2 ? &loop<uint16_t>  \
   : (size) == 4 ? &loop<uint32_t>  \
   : (size) == 8 ? &loop<uint64_t>  \
                 : &loop<Bytes16>)

// Elements move in out's type; operands of other types are converted by the engine.
ElementwiseKernel SelectKernel(DType type) {
  ElementwiseKernel k;
  k.loop = ANYCANN_BY_SIZE(SelectLoop, SizeOf(type));
  k.inputs = 3;
  k.in_types[0] = DType::kBool;
  k.in_types[1] = k.in_types[2] = k.out_types[0] = type;
  return k;
}

Status Select(Call& call, const aclTensor* condition, const aclTensor* self, const aclTensor* other,
              const aclTensor* out) {
  Arg args[4];
  const aclTensor* inputs[] = {condition, self, other};
  RETURN_IF_ERROR(BroadcastInputs(call, inputs, out, std::span(args, 3)));
  if (out->view.empty()) return call.Nothing();
  args[3] = Out(out);
  const double n = static_cast<double>(out->view.numel());
  return call.Launch(std::span<const Arg>(args),
                     Cost{n, n * (1 + 3 * static_cast<double>(SizeOf(out->view.dtype)))},
                     [kernel = SelectKernel(out->view.dtype)](const Run& t) -> Status {
                       RunElementwise(kernel, {t[3]}, {t[0], t[1], t[2]}, nullptr);
                       return Status();
                     });
}

}  // namespace

Status aclnn::SWhere(Call& call, const aclTensor* condition, const aclTensor* self, const aclTensor* other,
                     aclTensor* out) {
  RETURN_IF_ERROR(call.RequireCastable(Promote(self->view.dtype, other->view.dtype), out, "out"));
  return Select(call, condition, self, other, out);
}

Status aclnn::InplaceMaskedFillTensor(Call& call, aclTensor* selfRef, const aclTensor* mask,
                                      const aclTensor* value) {
  if (value->view.numel() != 1)
    return call.Invalid("value has shape {}, expected one element", ShapeString(value->view));
  RETURN_IF_ERROR(call.RequireCastable(value->view.dtype, selfRef, "selfRef"));
  return Select(call, mask, value, selfRef, selfRef);
}

Status aclnn::InplaceMaskedFillScalar(Call& call, aclTensor* selfRef, const aclTensor* mask,
                                      const aclScalar* value) {
  Arg args[3];
  const aclTensor* inputs[] = {mask, selfRef};
  RETURN_IF_ERROR(BroadcastInputs(call, inputs, selfRef, std::span(args, 2)));
  if (selfRef->view.empty()) return call.Nothing();
  args[2] = Out(selfRef);
  const DType type = selfRef->view.dtype;
  const Element element = ElementOf(value->value, type);
  ElementwiseKernel kernel = SelectKernel(type);
  kernel.inputs = 2;
  kernel.loop = ANYCANN_BY_SIZE(FillLoop, SizeOf(type));
  const double n = static_cast<double>(selfRef->view.numel());
  return call.Launch(std::span<const Arg>(args), Cost{n, n * (1 + 2 * static_cast<double>(SizeOf(type)))},
                     [kernel, element](const Run& t) -> Status {
                       RunElementwise(kernel, {t[2]}, {t[0], t[1]}, element.bytes);
                       return Status();
                     });
}

}  // namespace anycann
