// Average pooling with fixed and adaptive windows, and its gradients.
//
// A window's sum is separable: the rows that an output row covers are added first, whole rows at a time, then
// the window along the width is added from that one row. The gradient goes the same way back.
#include <algorithm>
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/pooling/geometry.h"

namespace anycann {
namespace {

struct Average {
  PoolGeometry g;
  bool count_include_pad = true;
  int64_t divisor_override = 0;  // 0: none
};

// The windows of all dimensions, and what divides a sum: the product of one number per dimension.
template <class T>
struct Windows {
  Scratch<PoolWindow> d, h, w;
  Scratch<T> along_width;  // the width's factor, per output position
  const Average& a;

  explicit Windows(const Average& average)
      : d(PoolWindows(average.g.d[0])),
        h(PoolWindows(average.g.d[1])),
        w(PoolWindows(average.g.d[2])),
        along_width(average.g.d[2].out),
        a(average) {
    if (ok())
      for (int64_t o = 0; o < a.g.d[2].out; ++o) along_width[o] = a.divisor_override != 0 ? T(1) : Size(w[o]);
  }
  bool ok() const { return d.ok() && h.ok() && w.ok() && along_width.ok(); }
  // Of an output row, for all its positions.
  T OfRow(const PoolWindow& wd, const PoolWindow& wh) const {
    return a.divisor_override != 0 ? static_cast<T>(a.divisor_override) : Size(wd) * Size(wh);
  }

 private:
  // A window that lies in the padding as a whole has sum 0, and gives 0 whatever divides it.
  T Size(const PoolWindow& x) const {
    return static_cast<T>(std::max(1, a.count_include_pad ? x.extent : x.count));
  }
};

template <class T>
T Share(T sum, T rows, T columns) {
  const T size = arithmetic::Mul(rows, columns);
  if constexpr (std::is_integral_v<T>)
    return arithmetic::DivTruncated(sum, size);
  else
    return sum / size;
}

template <class T>
void AddRow(T* __restrict to, const T* __restrict from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = arithmetic::Add(to[i], from[i]);
}

// sums[o] = sum of row over window o.
template <class T>
void AddWindows(const PoolDim& dim, const Scratch<PoolWindow>& windows, const T* __restrict row,
                T* __restrict sums) {
  if (dim.kernel == 0) {
    for (int64_t o = 0; o < dim.out; ++o) {
      T sum = 0;
      for (int64_t i = windows[o].start; i < windows[o].start + windows[o].count; ++i)
        sum = arithmetic::Add(sum, row[i]);
      sums[o] = sum;
    }
    return;
  }
  std::fill(sums, sums + dim.out, T(0));
  for (int64_t k = 0; k < dim.kernel; ++k) {
    const int64_t base = k - dim.pad, s = dim.stride;
    const int64_t lo = base < 0 ? std::min(dim.out, (-base + s - 1) / s) : 0;
    const int64_t hi = base >= dim.in ? 0 : std::min(dim.out, (dim.in - 1 - base) / s + 1);
    const T* p = row + base;
    if (s == 1)
      for (int64_t o = lo; o < hi; ++o) sums[o] = arithmetic::Add(sums[o], p[o]);
    else if (s == 2)
      for (int64_t o = lo; o < hi; ++o) sums[o] = arithmetic::Add(sums[o], p[2 * o]);
    else
      for (int64_t o = lo; o < hi; ++o) sums[o] = arithmetic::Add(sums[o], p[s * o]);
  }
}

template <class T>
void ForwardPlane(const PoolGeometry& g, const Windows<T>& w, const T* in, T* out, T* row) {
  const int64_t width = g.d[2].in;
  for (int64_t od = 0; od < g.d[0].out; ++od)
    for (int64_t oh = 0; oh < g.d[1].out; ++oh, out += g.d[2].out) {
      const PoolWindow &wd = w.d[od], &wh = w.h[oh];
      const T* source = in + (static_cast<int64_t>(wd.start) * g.d[1].in + wh.start) * width;
      if (wd.count != 1 || wh.count != 1) {
        std::fill(row, row + width, T(0));
        for (int64_t i = 0; i < wd.count; ++i)
          for (int64_t j = 0; j < wh.count; ++j) AddRow(row, source + (i * g.d[1].in + j) * width, width);
        source = row;
      }
      AddWindows(g.d[2], w.w, source, out);
      const T rows = w.OfRow(wd, wh);
      for (int64_t o = 0; o < g.d[2].out; ++o) out[o] = Share(out[o], rows, w.along_width[o]);
    }
}

template <class T>
void BackwardPlane(const PoolGeometry& g, const Windows<T>& w, const T* dout, T* din, T* row) {
  const int64_t width = g.d[2].in;
  std::fill(din, din + g.in_plane(), T(0));
  for (int64_t od = 0; od < g.d[0].out; ++od)
    for (int64_t oh = 0; oh < g.d[1].out; ++oh, dout += g.d[2].out) {
      const PoolWindow &wd = w.d[od], &wh = w.h[oh];
      const T rows = w.OfRow(wd, wh);
      std::fill(row, row + width, T(0));
      for (int64_t o = 0; o < g.d[2].out; ++o) {
        const T share = Share(dout[o], rows, w.along_width[o]);
        for (int64_t i = w.w[o].start; i < w.w[o].start + w.w[o].count; ++i)
          row[i] = arithmetic::Add(row[i], share);
      }
      for (int64_t i = 0; i < wd.count; ++i)
        for (int64_t j = 0; j < wh.count; ++j)
          AddRow(din + ((wd.start + i) * g.d[1].in + wh.start + j) * width, row, width);
    }
}

// Both directions: `from` and `to` are planes of from_plane and to_plane elements.
template <class T>
Status RunPlanes(const char* op, const Average& a, bool backward, const TensorView& from_view,
                 const TensorView& to_view) {
  const DenseInput from(from_view);
  const DenseOutput to(to_view);
  const Windows<T> windows(a);
  if (!from.ok() || !to.ok() || !windows.ok()) return ScratchFailed(op);
  const DenseReader<T> reader(from.view());
  const DenseWriter<T> writer(to.view());
  const int64_t n = backward ? a.g.out_plane() : a.g.in_plane(),
                m = backward ? a.g.in_plane() : a.g.out_plane();
  std::atomic<bool> failed{false};
  ParallelFor(a.g.planes, PlaneGrain(a.g), [&](int64_t b, int64_t e) {
    const Scratch<T> in(reader.direct() ? 0 : n), out(writer.direct() ? 0 : m), row(a.g.d[2].in);
    if (!in.ok() || !out.ok() || !row.ok()) {
      failed = true;
      return;
    }
    for (int64_t p = b; p < e; ++p) {
      const T* source = reader.Read(p * n, n, in.get());
      T* target = writer.Begin(p * m, out.get());
      if (backward)
        BackwardPlane(a.g, windows, source, target, row.get());
      else
        ForwardPlane(a.g, windows, source, target, row.get());
      writer.End(p * m, m, target);
    }
  });
  if (failed) return ScratchFailed(op);
  to.Finish();
  return Status();
}

Status Launch(Call& call, const Average& a, bool backward, const aclTensor* from, const aclTensor* to) {
  const DType type = to->view.dtype;
  if (type != from->view.dtype)
    return call.Invalid("the result has type {}, expected {}", Name(type), Name(from->view.dtype));
  if (!IsFloating(type) && !IsInteger(type))
    return call.Invalid("type {} is not supported: expected a floating-point or integer type", Name(type));
  if (to->view.empty()) return call.Nothing();
  const char* op = call.op();
  const Cost cost{static_cast<double>(a.g.planes * (a.g.in_plane() + a.g.out_plane())),
                  static_cast<double>(from->view.nbytes() + to->view.nbytes())};
  return call.Launch({In(from), Out(to)}, cost, [op, a, backward, type](const Run& t) -> Status {
    if (type == DType::kDouble) return RunPlanes<double>(op, a, backward, t[0], t[1]);
    if (IsFloating(type)) return RunPlanes<float>(op, a, backward, t[0], t[1]);
    return RunPlanes<int64_t>(op, a, backward, t[0], t[1]);
  });
}

Status Forward(Call& call, int dims, const PoolAttributes& attributes, bool count_include_pad,
               int64_t divisor, const aclTensor* self, const aclTensor* out) {
  Average a{{}, count_include_pad, divisor};
  RETURN_IF_ERROR(FixedGeometry(call, dims, attributes, self, "self", out, "out", &a.g));
  return Launch(call, a, false, self, out);
}

Status Backward(Call& call, int dims, const PoolAttributes& attributes, bool count_include_pad,
                int64_t divisor, const aclTensor* gradOutput, const aclTensor* self,
                const aclTensor* gradInput) {
  Average a{{}, count_include_pad, divisor};
  RETURN_IF_ERROR(FixedGeometry(call, dims, attributes, self, "self", gradOutput, "gradOutput", &a.g));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  return Launch(call, a, true, gradOutput, gradInput);
}

Status Adaptive(Call& call, int dims, const aclTensor* self, const aclIntArray* size, const aclTensor* out) {
  Average a;
  RETURN_IF_ERROR(AdaptiveGeometry(call, dims, size, self, "self", out, "out", &a.g));
  return Launch(call, a, false, self, out);
}

Status AdaptiveBackward(Call& call, int dims, const aclTensor* gradOutput, const aclTensor* self,
                        const aclTensor* out) {
  Average a;
  RETURN_IF_ERROR(AdaptiveGeometry(call, dims, nullptr, self, "self", gradOutput, "gradOutput", &a.g));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  return Launch(call, a, true, gradOutput, out);
}

}  // namespace

Status aclnn::AvgPool2d(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                        const aclIntArray* strides, const aclIntArray* paddings, const bool ceilMode,
                        const bool countIncludePad, const int64_t divisorOverride, const int8_t cubeMathType,
                        aclTensor* out) {
  (void)cubeMathType;  // float32 stays float32
  return Forward(call, 2, {kernelSize, strides, paddings, nullptr, ceilMode}, countIncludePad,
                 divisorOverride, self, out);
}
Status aclnn::AvgPool2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                const aclIntArray* kernelSize, const aclIntArray* stride,
                                const aclIntArray* padding, bool ceilMode, bool countIncludePad,
                                int64_t divisorOverride, int8_t cubeMathType, aclTensor* gradInput) {
  (void)cubeMathType;
  return Backward(call, 2, {kernelSize, stride, padding, nullptr, ceilMode}, countIncludePad, divisorOverride,
                  gradOutput, self, gradInput);
}
Status aclnn::AvgPool3d(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                        const aclIntArray* stride, const aclIntArray* padding, bool ceilMode,
                        bool countIncludePad, int64_t divisorOverride, aclTensor* out) {
  return Forward(call, 3, {kernelSize, stride, padding, nullptr, ceilMode}, countIncludePad, divisorOverride,
                 self, out);
}
Status aclnn::AvgPool3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                const aclIntArray* kernelSize, const aclIntArray* stride,
                                const aclIntArray* padding, bool ceilMode, bool countIncludePad,
                                int64_t divisorOverride, aclTensor* output) {
  return Backward(call, 3, {kernelSize, stride, padding, nullptr, ceilMode}, countIncludePad, divisorOverride,
                  gradOutput, self, output);
}

Status aclnn::AdaptiveAvgPool2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* out) {
  return Adaptive(call, 2, self, outputSize, out);
}
Status aclnn::AdaptiveAvgPool2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                        aclTensor* out) {
  return AdaptiveBackward(call, 2, gradOutput, self, out);
}
Status aclnn::AdaptiveAvgPool3d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* out) {
  return Adaptive(call, 3, self, outputSize, out);
}
Status aclnn::AdaptiveAvgPool3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                        aclTensor* out) {
  return AdaptiveBackward(call, 3, gradOutput, self, out);
}

}  // namespace anycann
