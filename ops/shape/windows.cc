// Sliding windows: Im2col and its gradient, UnfoldGrad.
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/convert.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

struct Windows {
  int64_t kernel[2], dilation[2], padding[2], stride[2];
  int64_t image[2], out[2];  // sizes of the image, and how many windows fit

  // Window positions of one kernel element that lie inside the image, along axis a.
  void Inside(int a, int64_t k, int64_t* first, int64_t* last) const {
    const int64_t at = k * dilation[a] - padding[a];  // of window 0
    *first = std::clamp<int64_t>(at >= 0 ? 0 : (-at + stride[a] - 1) / stride[a], 0, out[a]);
    *last = std::clamp<int64_t>(image[a] - at <= 0 ? 0 : (image[a] - at - 1) / stride[a] + 1, *first, out[a]);
  }
};

Status ReadPair(Call& call, const aclIntArray* values, const char* name, int64_t least, int64_t* pair) {
  if (values->size != 1 && values->size != 2)
    return call.Invalid("{} has {} values, expected 2", name, values->size);
  for (int i = 0; i < 2; ++i) {
    pair[i] = (*values)[values->size == 1 ? 0 : static_cast<uint64_t>(i)];
    if (pair[i] < least || pair[i] > INT32_MAX)
      return call.Invalid("{}[{}] is {}, expected at least {}", name, i, pair[i], least);
  }
  return Status();
}

Status ReadWindows(Call& call, const aclIntArray* kernel, const aclIntArray* dilation,
                   const aclIntArray* padding, const aclIntArray* stride, const int64_t* image, Windows* w) {
  RETURN_IF_ERROR(ReadPair(call, kernel, "kernelSize", 1, w->kernel));
  RETURN_IF_ERROR(ReadPair(call, dilation, "dilation", 1, w->dilation));
  RETURN_IF_ERROR(ReadPair(call, padding, "padding", 0, w->padding));
  RETURN_IF_ERROR(ReadPair(call, stride, "stride", 1, w->stride));
  for (int i = 0; i < 2; ++i) {
    w->image[i] = image[i];
    const int64_t room = image[i] + 2 * w->padding[i] - w->dilation[i] * (w->kernel[i] - 1) - 1;
    if (room < 0)
      return call.Invalid("kernelSize[{}] is {}: no window fits into the size {} (padding {}, dilation {})",
                          i, w->kernel[i], image[i], w->padding[i], w->dilation[i]);
    w->out[i] = room / w->stride[i] + 1;
  }
  return Status();
}

// columns[n][c * kh * kw][oh * ow] of the image's shape [n,c,h,w] (or both without n).
Status CheckColumns(Call& call, const TensorView& image, const Windows& w, const aclTensor* columns,
                    const char* name) {
  const bool batched = image.rank == 4;
  int64_t expected[3];
  int rank = 0;
  if (batched) expected[rank++] = image.dims[0];
  if (__builtin_mul_overflow(image.dims[batched ? 1 : 0], w.kernel[0] * w.kernel[1], &expected[rank++]) ||
      __builtin_mul_overflow(w.out[0], w.out[1], &expected[rank++]))
    return call.Invalid("the windows of image {} are too many for memory", ShapeString(image));
  return call.RequireShape(columns, name, expected, rank);
}

template <class T>
void ToColumns(const T* image, const Windows& w, int64_t planes, T* columns) {
  const int64_t elements = w.kernel[0] * w.kernel[1], size = w.out[0] * w.out[1];
  ParallelFor(planes * elements, std::max<int64_t>(1, 16384 / size), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t plane = k / elements, kh = k % elements / w.kernel[1], kw = k % w.kernel[1];
      int64_t h0, h1, w0, w1;
      w.Inside(0, kh, &h0, &h1);
      w.Inside(1, kw, &w0, &w1);
      T* out = columns + k * size;
      std::memset(static_cast<void*>(out), 0, static_cast<size_t>(h0 * w.out[1]) * sizeof(T));
      for (int64_t h = h0; h < h1; ++h) {
        T* row = out + h * w.out[1];
        const T* from =
            image + (plane * w.image[0] + h * w.stride[0] + kh * w.dilation[0] - w.padding[0]) * w.image[1] +
            kw * w.dilation[1] - w.padding[1];
        std::memset(static_cast<void*>(row), 0, static_cast<size_t>(w0) * sizeof(T));
        if (w.stride[1] == 1) {
          std::memcpy(static_cast<void*>(row + w0), from + w0, static_cast<size_t>(w1 - w0) * sizeof(T));
        } else {
          for (int64_t i = w0; i < w1; ++i) row[i] = from[i * w.stride[1]];
        }
        std::memset(static_cast<void*>(row + w1), 0, static_cast<size_t>(w.out[1] - w1) * sizeof(T));
      }
      std::memset(static_cast<void*>(out + h1 * w.out[1]), 0,
                  static_cast<size_t>((w.out[0] - h1) * w.out[1]) * sizeof(T));
    }
  });
}

template <class T>
void FromColumns(const T* columns, const Windows& w, int64_t planes, T* image) {
  const int64_t elements = w.kernel[0] * w.kernel[1], size = w.out[0] * w.out[1],
                area = w.image[0] * w.image[1];
  ParallelFor(planes, std::max<int64_t>(1, 16384 / (elements * size + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      T* to = image + plane * area;
      std::fill(to, to + area, T(0));
      for (int64_t k = 0; k < elements; ++k) {
        const int64_t kh = k / w.kernel[1], kw = k % w.kernel[1];
        int64_t h0, h1, w0, w1;
        w.Inside(0, kh, &h0, &h1);
        w.Inside(1, kw, &w0, &w1);
        for (int64_t h = h0; h < h1; ++h) {
          const T* row = columns + (plane * elements + k) * size + h * w.out[1];
          T* target = to + (h * w.stride[0] + kh * w.dilation[0] - w.padding[0]) * w.image[1] +
                      kw * w.dilation[1] - w.padding[1];
          for (int64_t i = w0; i < w1; ++i) target[i * w.stride[1]] += row[i];
        }
      }
    }
  });
}

template <class T>
struct Plus {
  T operator()(T a, T b) const { return a + b; }
};

}  // namespace

Status aclnn::Im2col(Call& call, const aclTensor* self, const aclIntArray* kernelSize,
                     const aclIntArray* dilation, const aclIntArray* padding, const aclIntArray* stride,
                     const aclTensor* out) {
  const TensorView& s = self->view;
  RETURN_IF_ERROR(call.RequireRank(self, "self", 3, 4));
  Windows w;
  RETURN_IF_ERROR(ReadWindows(call, kernelSize, dilation, padding, stride, s.dims + s.rank - 2, &w));
  RETURN_IF_ERROR(CheckColumns(call, s, w, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(s.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, Cost{0, static_cast<double>(s.nbytes() + out->view.nbytes())},
                     [w](const Run& t) -> Status {
                       const Dense image(t[0], t[1].dtype, Dense::kRead);
                       Dense columns(t[1], Dense::kWrite);
                       const int64_t planes =
                           t[1].numel() / (w.kernel[0] * w.kernel[1] * w.out[0] * w.out[1]);
                       VisitBytes(SizeOf(t[1].dtype), [&](auto x) {
                         using T = decltype(x);
                         ToColumns(image.ptr<const T>(), w, planes, columns.ptr<T>());
                       });
                       columns.Commit();
                       return Status();
                     });
}

Status aclnn::Im2colBackward(Call& call, const aclTensor* gradOutput, const aclIntArray* inputSize,
                             const aclIntArray* kernelSize, const aclIntArray* dilation,
                             const aclIntArray* padding, const aclIntArray* stride, aclTensor* out) {
  const TensorView& o = out->view;
  RETURN_IF_ERROR(call.RequireRank(out, "out", 3, 4));
  int64_t image[2];
  RETURN_IF_ERROR(ReadPair(call, inputSize, "inputSize", 1, image));
  if (o.dims[o.rank - 2] != image[0] || o.dims[o.rank - 1] != image[1])
    return call.Invalid("out has shape {}, expected it to end in inputSize, [{},{}]", ShapeString(o),
                        image[0], image[1]);
  Windows w;
  RETURN_IF_ERROR(ReadWindows(call, kernelSize, dilation, padding, stride, image, &w));
  RETURN_IF_ERROR(CheckColumns(call, o, w, gradOutput, "gradOutput"));
  RETURN_IF_ERROR(call.RequireCastable(gradOutput->view.dtype, out, "out"));
  const DType compute = ComputeType(gradOutput->view.dtype);
  if (!IsFloating(compute) && !IsComplex(compute)) return Unsupported(call, compute);
  if (o.empty()) return call.Nothing();
  return call.Launch({In(gradOutput), Out(out)},
                     Cost{static_cast<double>(gradOutput->view.numel()),
                          static_cast<double>(gradOutput->view.nbytes() + o.nbytes())},
                     [w, compute](const Run& t) -> Status {
                       const Dense columns(t[0], compute, Dense::kRead);
                       Dense image(t[1], compute, Dense::kWrite);
                       VisitCompute<kFloatingTypes>(compute, [&](auto tag) {
                         using T = typename decltype(tag)::type;
                         FromColumns(columns.ptr<const T>(), w, t[1].numel() / (w.image[0] * w.image[1]),
                                     image.ptr<T>());
                       });
                       image.Commit();
                       return Status();
                     });
}

// The gradient of torch's unfold: gradOut has a window's elements in its last dimension.
Status aclnn::UnfoldGrad(Call& call, const aclTensor* gradOut, const aclIntArray* inputSizes, int64_t dim,
                         int64_t size, int64_t step, const aclTensor* gradIn) {
  const TensorView& in = gradIn->view;
  RETURN_IF_ERROR(call.RequireShape(gradIn, "gradIn", inputSizes->values,
                                    static_cast<int>(std::min<uint64_t>(inputSizes->size, kMaxRank))));
  RETURN_IF_ERROR(call.RequireRank(gradIn, "gradIn", 0, kMaxRank - 1));
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, in.rank, "dim", &d));
  const int64_t length = in.rank == 0 ? 1 : in.dims[d];
  if (size < 0 || size > length) return call.Invalid("size is {}, expected a value in [0,{}]", size, length);
  if (step < 1) return call.Invalid("step is {}, expected at least 1", step);
  int64_t expected[kMaxRank];
  for (int i = 0; i < in.rank; ++i) expected[i] = i == d ? (length - size) / step + 1 : in.dims[i];
  expected[in.rank] = size;
  RETURN_IF_ERROR(call.RequireShape(gradOut, "gradOut", expected, in.rank + 1));
  RETURN_IF_ERROR(call.RequireCastable(gradOut->view.dtype, gradIn, "gradIn"));
  if (in.empty()) return call.Nothing();
  const DType compute = ComputeType(gradOut->view.dtype);
  if (!IsFloating(compute) && !IsComplex(compute)) return Unsupported(call, compute);
  return call.Launch({In(gradOut), Out(gradIn)},
                     Cost{static_cast<double>(gradOut->view.numel()),
                          static_cast<double>(gradOut->view.nbytes() + in.nbytes())},
                     [=](const Run& t) -> Status {
                       Strided sum(t[1], compute, Dense::kWrite);
                       const char zero[16] = {};
                       Fill(sum.view(), zero);
                       VisitCompute<kFloatingTypes>(compute, [&](auto tag) {
                         using T = typename decltype(tag)::type;
                         const auto add = KernelOf<Plus<T>, T, T>(1);
                         const Plus<T> plus;
                         for (int64_t k = 0; k < size; ++k) {
                           TensorView windows = sum.view();
                           if (windows.rank > 0) {
                             windows = windows.Narrow(d, k, t[0].dims[d]);
                             if (windows.dims[d] > 1)
                               windows.strides[d] *= step;  // one window alone may have any step
                           }
                           RunElementwise(add, {windows}, {windows, t[0].Select(t[0].rank - 1, k)}, &plus);
                         }
                       });
                       sum.Commit();
                       return Status();
                     });
}

}  // namespace anycann
