// Maximum pooling with fixed and adaptive windows, and its gradients.
#include <algorithm>

#include "aclnn_ops.h"
#include "ops/pooling/max.h"

namespace anycann {
namespace {

// Calls run(T{}) with the type in which values of `t` are compared.
template <class F>
auto VisitCompared(DType t, F&& run) {
  if (t == DType::kDouble) return run(double{});
  if (IsFloating(t)) return run(float{});
  return run(int64_t{});
}

Status RequireReal(Call& call, const aclTensor* t, const char* name) {
  if (IsFloating(t->view.dtype) || IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected a floating-point or integer type", name, Name(t->view.dtype));
}

Status IndexPlace(Call& call, const aclTensor* indices, const char* name, PoolPlace* place) {
  *place = indices->view.dtype == DType::kInt64 ? PoolPlace::kIndex64 : PoolPlace::kIndex32;
  if (indices->view.dtype == DType::kInt64 || indices->view.dtype == DType::kInt32) return Status();
  return call.Invalid("{} has type {}, expected int32 or int64", name, Name(indices->view.dtype));
}

// How a mask of the client's shape is used: as taps in its first bytes. A client that passes a tensor for
// indices (int32 or int64, of the output's shape) gets indices.
Status MaskPlace(Call& call, const PoolGeometry& g, const aclTensor* mask, const aclTensor* out,
                 PoolPlace* place) {
  const DType t = mask->view.dtype;
  if ((t == DType::kInt32 || t == DType::kInt64) && mask->view.SameShape(out->view))
    return IndexPlace(call, mask, "indices", place);
  *place = g.taps() <= 256 ? PoolPlace::kTap8 : PoolPlace::kTap16;
  if (g.taps() > 65536) return call.Invalid("the kernel has {} elements, expected at most 65536", g.taps());
  if (!mask->view.contiguous()) return call.Invalid("indices is not contiguous, which a mask must be");
  const int64_t needed = g.planes * g.out_plane() * SizeOf(*place);
  if (mask->view.nbytes() >= needed) return Status();
  return call.Invalid("indices has {} bytes ({}), expected at least {} for a mask", mask->view.nbytes(),
                      Describe(mask), needed);
}

Status LaunchForward(Call& call, const PoolGeometry& g, PoolPlace place, const aclTensor* in,
                     const aclTensor* out, const aclTensor* places) {
  RETURN_IF_ERROR(RequireReal(call, in, "self"));
  RETURN_IF_ERROR(call.RequireDType(out, "out", in->view.dtype));
  constexpr int64_t kMostTaps = int64_t{1} << 28;  // a table of them is kept while it runs
  if (g.taps() > kMostTaps)
    return call.Invalid("the kernel has {} elements, expected at most {}", g.taps(), kMostTaps);
  if (in->view.empty()) return call.Nothing();
  const char* op = call.op();
  const DType type = in->view.dtype;
  const Cost cost{static_cast<double>(out->view.numel()) * static_cast<double>(g.taps()),
                  static_cast<double>(in->view.nbytes() + out->view.nbytes())};
  if (place == PoolPlace::kNone)
    return call.Launch({In(in), Out(out)}, cost, [op, g, type](const Run& t) -> Status {
      return VisitCompared(type, [&](auto x) {
        return RunMaxPool<decltype(x)>(op, g, PoolPlace::kNone, t[0], t[1], nullptr);
      });
    });
  return call.Launch({In(in), Out(out), Out(places)}, cost, [op, g, place, type](const Run& t) -> Status {
    const DenseOutput dense(t[2]);
    if (!dense.ok()) return ScratchFailed(op);
    RETURN_IF_ERROR(VisitCompared(
        type, [&](auto x) { return RunMaxPool<decltype(x)>(op, g, place, t[0], t[1], dense.view().data); }));
    dense.Finish();
    return Status();
  });
}

Status LaunchBackward(Call& call, const PoolGeometry& g, PoolPlace place, const aclTensor* dout,
                      const aclTensor* places, const aclTensor* din) {
  RETURN_IF_ERROR(RequireReal(call, dout, "gradOutput"));
  if (din->view.empty()) return call.Nothing();
  const char* op = call.op();
  const DType type = din->view.dtype;
  const Cost cost{static_cast<double>(dout->view.numel()),
                  static_cast<double>(din->view.nbytes() + dout->view.nbytes())};
  return call.Launch({In(dout), In(places), Out(din)}, cost, [op, g, place, type](const Run& t) -> Status {
    const DenseInput dense(t[1]);
    if (!dense.ok()) return ScratchFailed(op);
    return VisitCompared(type, [&](auto x) {
      return RunMaxPoolBackward<decltype(x)>(op, g, place, t[0], dense.view().data, t[2]);
    });
  });
}

Status Indexed(Call& call, int dims, const PoolAttributes& a, const aclTensor* self, const aclTensor* out,
               const aclTensor* indices) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(FixedGeometry(call, dims, a, self, "self", out, "out", &g));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indices", out, "out"));
  RETURN_IF_ERROR(IndexPlace(call, indices, "indices", &place));
  return LaunchForward(call, g, place, self, out, indices);
}

Status IndexedBackward(Call& call, int dims, const PoolAttributes& a, const aclTensor* gradOutput,
                       const aclTensor* self, const aclTensor* indices, const aclTensor* gradInput) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(FixedGeometry(call, dims, a, self, "self", gradOutput, "gradOutput", &g));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indices", gradOutput, "gradOutput"));
  RETURN_IF_ERROR(IndexPlace(call, indices, "indices", &place));
  return LaunchBackward(call, g, place, gradOutput, indices, gradInput);
}

Status Adaptive(Call& call, int dims, const aclTensor* self, const aclIntArray* size, const aclTensor* out,
                const aclTensor* indices) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(AdaptiveGeometry(call, dims, size, self, "self", out, "outputOut", &g));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indicesOut", out, "outputOut"));
  RETURN_IF_ERROR(IndexPlace(call, indices, "indicesOut", &place));
  if (out->view.empty()) return call.Nothing();
  return LaunchForward(call, g, place, self, out, indices);
}

Status AdaptiveBackward(Call& call, int dims, const aclTensor* gradOutput, const aclTensor* self,
                        const aclTensor* indices, const aclTensor* gradInput) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(AdaptiveGeometry(call, dims, nullptr, self, "self", gradOutput, "gradOutput", &g));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indices", gradOutput, "gradOutput"));
  RETURN_IF_ERROR(IndexPlace(call, indices, "indices", &place));
  return LaunchBackward(call, g, place, gradOutput, indices, gradInput);
}

// pads: one value, one per dimension, or ONNX's begin of each dimension and then end of each.
Status PaddedGeometry(Call& call, const aclTensor* self, const aclIntArray* kernel,
                      const aclIntArray* strides, const aclIntArray* pads, const aclIntArray* dilations,
                      bool ceil_mode, const aclTensor* out, PoolGeometry* g) {
  const int dims = self->view.rank - 2;
  if (dims < 1 || dims > 3)
    return call.Invalid("self has shape {}, expected 3 to 5 dimensions", ShapeString(self->view));
  const auto value = [](const aclIntArray* a, int i, int64_t absent) {
    return a == nullptr || a->size == 0 ? absent : (*a)[a->size == 1 ? 0 : i];
  };
  const auto fits = [dims](const aclIntArray* a) {
    return a->size <= 1 || a->size == static_cast<uint64_t>(dims);
  };
  if (kernel->size == 0 || !fits(kernel) || !fits(strides) || !fits(dilations) ||
      (!fits(pads) && pads->size != static_cast<uint64_t>(2 * dims)))
    return call.Invalid(
        "kernelShape, strides, pads, dilations have {}, {}, {}, {} values, expected one per dimension (pads: "
        "or two)",
        kernel->size, strides->size, pads->size, dilations->size);
  g->planes = self->view.dims[0] * self->view.dims[1];
  int64_t shape[kMaxRank] = {self->view.dims[0], self->view.dims[1]};
  for (int i = 0; i < dims; ++i) {
    PoolDim& d = g->d[3 - dims + i];
    d.in = self->view.dims[2 + i];
    d.kernel = value(kernel, i, 1), d.stride = value(strides, i, 1), d.dilation = value(dilations, i, 1),
    d.pad = value(pads, i, 0);
    const int64_t end = pads->size == static_cast<uint64_t>(2 * dims) ? (*pads)[dims + i] : d.pad;
    const int64_t most = std::max({d.in, d.kernel, d.stride, d.dilation, d.pad, end});
    if (std::min({d.in, d.kernel, d.stride, d.dilation}) < 1 || std::min(d.pad, end) < 0 ||
        most > INT32_MAX || d.pad >= d.dilation * (d.kernel - 1) + 1)
      return call.Invalid("dimension {} has size {}, kernel {}, stride {}, pads {} and {}, dilation {}", i,
                          d.in, d.kernel, d.stride, d.pad, end, d.dilation);
    const int64_t room = d.in + d.pad + end - d.dilation * (d.kernel - 1) - 1;
    int64_t n = room < 0 ? 0 : (room + (ceil_mode ? d.stride - 1 : 0)) / d.stride + 1;
    if (ceil_mode && n > 0 && (n - 1) * d.stride >= d.in + d.pad) --n;
    if (n < 1)
      return call.Invalid(
          "self has size {} in dimension {}, which with pads {} and {} is less than the kernel's reach {}",
          d.in, i + 2, d.pad, end, d.dilation * (d.kernel - 1) + 1);
    shape[2 + i] = d.out = n;
  }
  return call.RequireShape(out, "out", shape, dims + 2);
}

}  // namespace

Status aclnn::MaxPool2dWithIndices(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                                   const aclIntArray* stride, const aclIntArray* padding,
                                   const aclIntArray* dilation, bool ceilMode, aclTensor* out,
                                   aclTensor* indices) {
  return Indexed(call, 2, {kernelSize, stride, padding, dilation, ceilMode}, self, out, indices);
}
Status aclnn::MaxPool2dWithIndicesBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                           const aclTensor* indices, const aclIntArray* kernelSize,
                                           const aclIntArray* stride, const aclIntArray* padding,
                                           const aclIntArray* dilation, bool ceilMode, aclTensor* gradInput) {
  return IndexedBackward(call, 2, {kernelSize, stride, padding, dilation, ceilMode}, gradOutput, self,
                         indices, gradInput);
}
Status aclnn::MaxPool3dWithArgmax(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                                  const aclIntArray* stride, const aclIntArray* padding,
                                  const aclIntArray* dilation, bool ceilMode, aclTensor* out,
                                  aclTensor* indices) {
  return Indexed(call, 3, {kernelSize, stride, padding, dilation, ceilMode}, self, out, indices);
}
Status aclnn::MaxPool3dWithArgmaxBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                          const aclTensor* indices, const aclIntArray* kernelSize,
                                          const aclIntArray* stride, const aclIntArray* padding,
                                          const aclIntArray* dilation, bool ceilMode, aclTensor* gradInput) {
  return IndexedBackward(call, 3, {kernelSize, stride, padding, dilation, ceilMode}, gradOutput, self,
                         indices, gradInput);
}

Status aclnn::MaxPool2dWithMask(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                                const aclIntArray* stride, const aclIntArray* padding,
                                const aclIntArray* dilation, bool ceilMode, aclTensor* out,
                                aclTensor* indices) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(FixedGeometry(call, 2, {kernelSize, stride, padding, dilation, ceilMode}, self, "self", out,
                                "out", &g));
  RETURN_IF_ERROR(MaskPlace(call, g, indices, out, &place));
  return LaunchForward(call, g, place, self, out, indices);
}
Status aclnn::MaxPool2dWithMaskBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                        const aclTensor* indices, const aclIntArray* kernelSize,
                                        const aclIntArray* stride, const aclIntArray* padding,
                                        const aclIntArray* dilation, bool ceilMode, aclTensor* gradInput) {
  PoolGeometry g;
  PoolPlace place;
  RETURN_IF_ERROR(FixedGeometry(call, 2, {kernelSize, stride, padding, dilation, ceilMode}, self, "self",
                                gradOutput, "gradOutput", &g));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  RETURN_IF_ERROR(MaskPlace(call, g, indices, gradOutput, &place));
  return LaunchBackward(call, g, place, gradOutput, indices, gradInput);
}

Status aclnn::MaxPool(Call& call, const aclTensor* self, const aclIntArray* kernelShape,
                      const aclIntArray* strides, const int64_t autoPad, const aclIntArray* pads,
                      const aclIntArray* dilations, const int64_t ceilMode, aclTensor* out) {
  if (autoPad != 0) return call.Invalid("autoPad is {}, expected 0 (the padding of pads)", autoPad);
  PoolGeometry g;
  RETURN_IF_ERROR(PaddedGeometry(call, self, kernelShape, strides, pads, dilations, ceilMode != 0, out, &g));
  return LaunchForward(call, g, PoolPlace::kNone, self, out, nullptr);
}

Status aclnn::GlobalMaxPool(Call& call, const aclTensor* self, aclTensor* out) {
  const int dims = self->view.rank - 2;
  if (dims < 1 || dims > 3)
    return call.Invalid("self has shape {}, expected 3 to 5 dimensions", ShapeString(self->view));
  PoolGeometry g;
  RETURN_IF_ERROR(AdaptiveGeometry(call, dims, nullptr, self, "self", out, "out", &g));
  for (int i = 0; i < dims; ++i)
    if (out->view.dims[2 + i] != 1)
      return call.Invalid("out has shape {}, expected 1 in dimension {}", ShapeString(out->view), 2 + i);
  return LaunchForward(call, g, PoolPlace::kNone, self, out, nullptr);
}

Status aclnn::AdaptiveMaxPool2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* outputOut, aclTensor* indicesOut) {
  return Adaptive(call, 2, self, outputSize, outputOut, indicesOut);
}
Status aclnn::AdaptiveMaxPool2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                        const aclTensor* indices, aclTensor* gradInput) {
  return AdaptiveBackward(call, 2, gradOutput, self, indices, gradInput);
}
Status aclnn::AdaptiveMaxPool3d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* outputOut, aclTensor* indicesOut) {
  return Adaptive(call, 3, self, outputSize, outputOut, indicesOut);
}
Status aclnn::AdaptiveMaxPool3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                        const aclTensor* indices, aclTensor* gradInput) {
  return AdaptiveBackward(call, 3, gradOutput, self, indices, gradInput);
}

}  // namespace anycann
