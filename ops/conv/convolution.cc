#include "ops/conv/convolution.h"

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/conv/correlation.h"
#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kImageBytes = int64_t{64} << 20;  // of padded input at a time

Status NoMemory(const char* what, const TensorView& v) {
  return Error(kBadAlloc, "no memory for the {} of a convolution over {}", what, ShapeString(v));
}

int64_t Kernel(const TensorView& weight, const ConvAttributes& a, int axis) {
  const int d = axis - (kAxes - a.axes);
  return d < 0 ? 1 : weight.dims[2 + d];
}

// Calls run(begin, end, padded) over the batch in pieces that bound the memory of the padded input.
template <class F>
bool EachPiece(const Image& in, const AxisTaps (&cover)[kAxes], DType element, F&& run) {
  const int64_t bytes = PaddedBytes(in, cover, element);
  const int64_t piece = bytes == 0 ? in.batch : std::clamp<int64_t>(kImageBytes / bytes, 1, in.batch);
  for (int64_t begin = 0; begin < in.batch; begin += piece) {
    const int64_t end = std::min(in.batch, begin + piece);
    Padded padded;
    if (!Pad(in, begin, end, cover, element, &padded) || !run(begin, end, padded)) return false;
  }
  return true;
}

void SetBias(Correlation* c, const TensorView* bias) {
  if (bias == nullptr) return;
  c->bias = bias->bytes();
  c->bias_type = bias->dtype;
  c->bias_stride = bias->strides[0];
}

// The filter of a correlation in a weight [a, b, kernel...]: `gathers` from b (forward), or from a.
Filter FilterOf(const TensorView& weight, int axes, int64_t groups, bool gathers) {
  Filter f;
  f.data = weight.bytes();
  f.dtype = weight.dtype;
  f.group = weight.dims[0] / groups * weight.strides[0];
  f.row = weight.strides[gathers ? 0 : 1];
  f.channel = weight.strides[gathers ? 1 : 0];
  for (int i = 0; i < axes; ++i) {
    f.taps[kAxes - axes + i] = weight.dims[2 + i];
    f.tap[kAxes - axes + i] = weight.strides[2 + i];
  }
  return f;
}

// Every output reads its neighbourhood: forward convolution, and the input gradient of a transposed one.
Status GatherConvolution(const ConvAttributes& a, const TensorView& in, const TensorView& weight,
                         const TensorView* bias, const TensorView& out) {
  Correlation c;
  c.in = Image::Of(in, a.axes);
  c.out = Image::Of(out, a.axes);
  for (int i = 0; i < kAxes; ++i)
    c.axes[i] = c.cover[i] = {c.out.size[i], a.stride[i], Kernel(weight, a, i), -a.pad[i], a.dilation[i]};
  c.groups = a.groups;
  c.filter = FilterOf(weight, a.axes, a.groups, true);
  SetBias(&c, bias);
  const bool done = EachPiece(
      c.in, c.cover,
      CorrelationElement(in.dtype, weight.dtype, IsDepthwise(c.in.channels, c.out.channels, a.groups)),
      [&](int64_t b, int64_t e, const Padded& padded) { return Correlate(c, b, e, padded); });
  return done ? Status() : NoMemory("padded input", in);
}

// Along one axis, the outputs i = stride * (first + point) + phase - pad, and the taps that reach them.
struct AxisPhase {
  int64_t start = 0;              // i of point 0
  int64_t tap = 0, tap_step = 1;  // kernel positions tap + j * tap_step
  AxisTaps taps;
};

int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

AxisPhase PhaseOf(int64_t phase, int64_t stride, int64_t pad, int64_t dilation, int64_t kernel,
                  int64_t size) {
  AxisPhase p;
  const int64_t first = FloorDivide(pad - phase + stride - 1, stride),
                last = FloorDivide(size - 1 + pad - phase, stride);
  p.start = stride * first + phase - pad;
  p.tap_step = stride / std::gcd(dilation, stride);
  while (p.tap < kernel && p.tap * dilation % stride != phase) {
    if (++p.tap == p.tap_step) p.tap = kernel;  // no tap has this phase
  }
  p.taps.points = std::max<int64_t>(0, last - first + 1);
  p.taps.taps = p.tap < kernel ? (kernel - 1 - p.tap) / p.tap_step + 1 : 0;
  p.taps.base = first - (p.tap < kernel ? (p.tap * dilation - phase) / stride : 0);
  p.taps.delta = -(p.tap_step * dilation / stride);
  return p;
}

class ScatterConvolution {
 public:
  ScatterConvolution(const ConvAttributes& a, const TensorView& in, const TensorView& weight,
                     const TensorView* bias, const TensorView& out)
      : a_(a), weight_(weight), bias_(bias), in_(Image::Of(in, a.axes)), out_(Image::Of(out, a.axes)) {
    for (int i = 0; i < kAxes; ++i) Cover(i);
  }

  bool Run() {
    const DType element =
        CorrelationElement(in_.dtype, weight_.dtype, IsDepthwise(in_.channels, out_.channels, a_.groups));
    return EachPiece(in_, cover_, element, [&](int64_t b, int64_t e, const Padded& padded) {
      for (int64_t z = 0; z < a_.stride[0]; ++z)
        for (int64_t y = 0; y < a_.stride[1]; ++y)
          for (int64_t x = 0; x < a_.stride[2]; ++x)
            if (!RunPhase({z, y, x}, b, e, padded)) return false;
      return true;
    });
  }

 private:
  struct Phases {
    int64_t of[kAxes];
  };

  AxisPhase Phase(int axis, int64_t phase) const {
    return PhaseOf(phase, a_.stride[axis], a_.pad[axis], a_.dilation[axis], Kernel(weight_, a_, axis),
                   out_.size[axis]);
  }
  void Cover(int axis) {
    int64_t first = 0, last = 0;
    bool any = false;
    for (int64_t p = 0; p < a_.stride[axis]; ++p) {
      const AxisTaps t = Phase(axis, p).taps;
      if (t.points == 0 || t.taps == 0) continue;
      first = any ? std::min(first, t.First()) : t.First();
      last = any ? std::max(last, t.Last()) : t.Last();
      any = true;
    }
    cover_[axis] = {1, 1, last - first + 1, first, 1};
  }

  bool RunPhase(Phases phase, int64_t begin, int64_t end, const Padded& padded) const {
    Correlation c;
    c.in = in_;
    c.out = out_;
    AxisPhase axis[kAxes];
    for (int i = 0; i < kAxes; ++i) {
      axis[i] = Phase(i, phase.of[i]);
      if (axis[i].taps.points == 0) return true;
      c.axes[i] = axis[i].taps;
      c.out.size[i] = axis[i].taps.points;
      c.out.data += axis[i].start * out_.stride[i] * SizeOf(out_.dtype);
      c.out.stride[i] = out_.stride[i] * a_.stride[i];
    }
    if (c.taps() == 0) return Constant(c.out, begin, end), true;
    c.groups = a_.groups;
    c.filter = FilterOf(weight_, a_.axes, a_.groups, false);
    for (int i = 0; i < kAxes; ++i) {
      c.filter.data += axis[i].tap * c.filter.tap[i] * SizeOf(weight_.dtype);
      c.filter.tap[i] *= axis[i].tap_step;
      c.filter.taps[i] = axis[i].taps.taps;
    }
    SetBias(&c, bias_);
    return Correlate(c, begin, end, padded);
  }

  // Outputs that no tap reaches: the bias, or zero.
  void Constant(const Image& out, int64_t begin, int64_t end) const {
    TensorView v;
    v.dtype = out.dtype;
    v.rank = 5;
    v.data = out.data + begin * out.batch_stride * SizeOf(out.dtype);
    const int64_t dims[] = {end - begin, out.channels, out.size[0], out.size[1], out.size[2]};
    const int64_t strides[] = {out.batch_stride, out.channel_stride, out.stride[0], out.stride[1],
                               out.stride[2]};
    std::copy_n(dims, 5, v.dims);
    std::copy_n(strides, 5, v.strides);
    static constexpr char kZero[16] = {};
    TensorView from = v;
    from.dtype = bias_ ? bias_->dtype : v.dtype;
    from.data = bias_ ? bias_->data : const_cast<char*>(kZero);
    std::fill_n(from.strides, 5, 0);
    if (bias_) from.strides[1] = bias_->strides[0];
    CopyCast(v, from);
  }

  const ConvAttributes& a_;
  const TensorView& weight_;
  const TensorView* bias_;
  const Image in_, out_;
  AxisTaps cover_[kAxes];
};

Status Scatter(const ConvAttributes& a, const TensorView& in, const TensorView& weight,
               const TensorView* bias, const TensorView& out) {
  return ScatterConvolution(a, in, weight, bias, out).Run() ? Status() : NoMemory("padded input", in);
}

// `grad` with contiguous points, as the filter gradient reads it.
bool ContiguousPoints(const TensorView& v, int axes, TensorView* out) {
  *out = v;
  int64_t expected = 1;
  bool contiguous = true;
  for (int i = v.rank - 1; i >= v.rank - axes; --i) {
    contiguous = contiguous && (v.dims[i] == 1 || v.strides[i] == expected);
    expected *= v.dims[i];
  }
  if (contiguous) return true;
  void* copy = ThreadScratch(ScratchSlot::kGradient, static_cast<size_t>(v.nbytes()));
  if (copy == nullptr) return false;
  *out = TensorView::Contiguous(copy, v.dtype, v.dims, v.rank);
  CopyCast(*out, v);
  return true;
}

// The sum of n values, in lanes so that it vectorises.
template <class T>
double SumRun(const T* p, int64_t n) {
  T lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; ++j) lanes[j] += p[i + j];
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(p[i]);
  for (T lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

double SumChannel(const Image& g, int64_t channel) {
  constexpr int64_t kRun = 512;
  const int64_t size = SizeOf(g.dtype);
  const DType compute = ComputeType(g.dtype);
  alignas(64) char values[kRun * 8];
  alignas(64) char packed[kRun * 8];
  const bool flat = g.stride[2] == 1 && (g.size[1] == 1 || g.stride[1] == g.size[2]) &&
                    (g.size[0] == 1 || g.stride[0] == g.size[1] * g.size[2]);
  const int64_t run = flat ? g.pixels() : g.size[2], rows = g.pixels() / std::max<int64_t>(1, run);
  double sum = 0;
  for (int64_t i = 0; i < g.batch; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t y = flat ? 0 : r % g.size[1], z = flat ? 0 : r / g.size[1];
      const char* p =
          g.data +
          (i * g.batch_stride + channel * g.channel_stride + z * g.stride[0] + y * g.stride[1]) * size;
      for (int64_t x = 0; x < run; x += kRun) {
        const int64_t n = std::min(kRun, run - x);
        const char* from = p + x * g.stride[2] * size;
        if (g.stride[2] != 1) {
          PackStrided(packed, from, g.stride[2], n, size);
          from = packed;
        }
        if (g.dtype != compute) {
          Convert(values, compute, from, g.dtype, n);
          from = values;
        }
        sum += compute == DType::kDouble ? SumRun(reinterpret_cast<const double*>(from), n)
                                         : SumRun(reinterpret_cast<const float*>(from), n);
      }
    }
  }
  return sum;
}

}  // namespace

Status ConvForward(const ConvAttributes& a, const TensorView& in, const TensorView& weight,
                   const TensorView* bias, const TensorView& out) {
  return a.transposed ? Scatter(a, in, weight, bias, out) : GatherConvolution(a, in, weight, bias, out);
}

Status ConvInputGradient(const ConvAttributes& a, const TensorView& grad, const TensorView& weight,
                         const TensorView& grad_in) {
  return a.transposed ? GatherConvolution(a, grad, weight, nullptr, grad_in)
                      : Scatter(a, grad, weight, nullptr, grad_in);
}

Status ConvWeightGradient(const ConvAttributes& a, const TensorView& grad, const TensorView& in,
                          const TensorView& grad_weight) {
  // A transposed convolution's filter sees the output's gradient where a plain one's sees the input, and the
  // reverse.
  TensorView points;
  if (!ContiguousPoints(a.transposed ? in : grad, a.axes, &points)) return NoMemory("gradient", grad);
  FilterGradient f;
  f.in = Image::Of(a.transposed ? grad : in, a.axes);
  f.grad = Image::Of(points, a.axes);
  for (int i = 0; i < kAxes; ++i)
    f.axes[i] = {f.grad.size[i], a.stride[i], Kernel(grad_weight, a, i), -a.pad[i], a.dilation[i]};
  f.groups = a.groups;
  f.element = grad.dtype == DType::kDouble || in.dtype == DType::kDouble ? DType::kDouble : DType::kFloat;
  TensorView sums = TensorView::Contiguous(nullptr, f.element, grad_weight.dims, grad_weight.rank);
  sums.data = ThreadScratch(ScratchSlot::kSums, static_cast<size_t>(sums.nbytes()));
  if (sums.data == nullptr) return NoMemory("filter gradient", grad_weight);
  std::fill_n(sums.bytes(), sums.nbytes(), 0);
  f.sums = sums.data;
  const bool done = EachPiece(f.in, f.axes, f.element, [&](int64_t b, int64_t e, const Padded& padded) {
    return AddFilterGradient(f, b, e, padded);
  });
  if (!done) return NoMemory("padded input", in);
  CopyCast(grad_weight, sums);
  return Status();
}

Status ConvBiasGradient(const TensorView& grad, int axes, const TensorView& grad_bias) {
  const Image g = Image::Of(grad, axes);
  const int64_t grain = std::max<int64_t>(1, (64 << 10) / std::max<int64_t>(1, g.batch * g.pixels()));
  ParallelFor(g.channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const double sum = SumChannel(g, c);
      Convert(grad_bias.bytes() + c * grad_bias.strides[0] * SizeOf(grad_bias.dtype), grad_bias.dtype, &sum,
              DType::kDouble, 1);
    }
  });
  return Status();
}

}  // namespace anycann
