// The short-time Fourier transform: frames of nFft samples, hopLength apart, each windowed and transformed.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/fft/transform.h"

namespace anycann {
namespace {

struct Frames {
  int64_t batch, length, count, n, hop, window, bins;
  bool normalized, complex_out;
};

// One tile: kLanes complex frames, or twice as many real ones, packed as the real and imaginary parts.
template <class T, bool kComplex>
class Tile {
 public:
  static constexpr int64_t kLanes = FourierTransform<T>::kLanes, kFrames = kComplex ? kLanes : 2 * kLanes;

  Tile(const Frames& f, const FourierTransform<T>& transform, const T* window)
      : f_(f), transform_(transform), window_(window), memory_(NewBuffer<T>(4 * f.n * kLanes)) {}

  // Frames [first, first + count) of one signal into out[bin * f.count + frame], pairs of real and imaginary
  // part.
  void Run(const T* signal, int64_t first, int64_t count, T* out) {
    const int64_t size = f_.n * kLanes;
    T *re = memory_.get(), *im = re + size;
    Load(signal, first, count, re, im);
    transform_.Run(re, im, re + 2 * size, re + 3 * size);
    const T scale = f_.normalized ? static_cast<T>(1 / std::sqrt(static_cast<double>(f_.n))) : T(1);
    for (int64_t k = 0; k < f_.bins; ++k) {
      T* to = out + (k * f_.count + first) * 2;
      const T *x = re + k * kLanes, *y = im + k * kLanes;
      if (kComplex) {
        for (int64_t l = 0; l < count; ++l) to[2 * l] = x[l] * scale, to[2 * l + 1] = y[l] * scale;
        continue;
      }
      // The transform of a real sequence is conjugate-symmetric: that parts the two that were packed.
      const int64_t mirror = k == 0 ? 0 : f_.n - k;
      const T *p = re + mirror * kLanes, *q = im + mirror * kLanes, half = scale / 2;
      for (int64_t l = 0; l < std::min(count, kLanes); ++l)
        to[2 * l] = (x[l] + p[l]) * half, to[2 * l + 1] = (y[l] - q[l]) * half;
      for (int64_t l = 0; l + kLanes < count; ++l)
        to[2 * (l + kLanes)] = (y[l] + q[l]) * half, to[2 * (l + kLanes) + 1] = (p[l] - x[l]) * half;
    }
  }

 private:
  void Load(const T* signal, int64_t first, int64_t count, T* re, T* im) const {
    for (int64_t l = 0; l < kLanes; ++l)
      for (int64_t part = 0; part < 2; ++part) {
        T* to = (part == 0 ? re : im) + l;
        const int64_t frame = kComplex ? l : l + part * kLanes;
        if (frame >= count) {
          for (int64_t i = 0; i < f_.n; ++i) to[i * kLanes] = 0;
          continue;
        }
        const T* from = signal + (first + frame) * f_.hop * (kComplex ? 2 : 1) + (kComplex ? part : 0);
        for (int64_t i = 0; i < f_.n; ++i) to[i * kLanes] = from[i * (kComplex ? 2 : 1)] * window_[i];
      }
  }

  const Frames& f_;
  const FourierTransform<T>& transform_;
  const T* window_;
  Buffer<T> memory_;
};

// The window in the middle of a frame, zeros around it; ones when there is none.
template <class T>
Buffer<T> FullWindow(const Frames& f, const TensorView* window) {
  Buffer<T> full = NewBuffer<T>(f.n);
  const int64_t left = (f.n - f.window) / 2;
  std::fill(full.get(), full.get() + f.n, T(0));
  std::fill(full.get() + left, full.get() + left + f.window, T(1));
  if (window != nullptr) {
    const Dense w(*window, kDTypeOf<T>, Dense::kRead);
    std::copy(w.ptr<T>(), w.ptr<T>() + f.window, full.get() + left);
  }
  return full;
}

template <class T, bool kComplex>
Status RunFrames(const Frames& f, const TensorView& self, const TensorView* window, const TensorView& out) {
  constexpr DType kIn = !kComplex                  ? kDTypeOf<T>
                        : std::is_same_v<T, float> ? DType::kComplex64
                                                   : DType::kComplex128;
  const Dense signal(self, kIn, Dense::kRead);
  Dense result(
      out, f.complex_out ? (std::is_same_v<T, float> ? DType::kComplex64 : DType::kComplex128) : kDTypeOf<T>,
      Dense::kWrite);
  const Buffer<T> full = FullWindow<T>(f, window);
  const FourierTransform<T> transform(f.n);
  using Frame = Tile<T, kComplex>;
  const int64_t tiles = (f.count + Frame::kFrames - 1) / Frame::kFrames;
  ParallelFor(f.batch * tiles, 1, [&](int64_t b, int64_t e) {
    Frame tile(f, transform, full.get());
    for (; b < e; ++b) {
      const int64_t item = b / tiles, first = b % tiles * Frame::kFrames;
      tile.Run(signal.ptr<T>() + item * f.length * (kComplex ? 2 : 1), first,
               std::min(Frame::kFrames, f.count - first), result.ptr<T>() + item * f.bins * f.count * 2);
    }
  });
  result.Commit();
  return Status();
}

Status CheckFrames(Call& call, const aclTensor* self, const aclTensor* window, const aclTensor* out,
                   bool onesided, Frames* f) {
  const TensorView& x = self->view;
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, 2));
  if (!IsFloating(x.dtype) && !IsComplex(x.dtype))
    return call.Invalid("self has type {}, expected a floating-point or complex type", Name(x.dtype));
  if (IsComplex(x.dtype) && onesided)
    return call.Invalid("onesided is true, which a complex self does not allow");
  f->batch = x.rank == 2 ? x.dims[0] : 1;
  f->length = x.dims[x.rank - 1];
  if (f->n < 1 || f->n > f->length)
    return call.Invalid("nFft is {}, expected 1 to the signal's length {}", f->n, f->length);
  if (f->hop < 1) return call.Invalid("hopLength is {}, expected at least 1", f->hop);
  if (f->window < 1 || f->window > f->n)
    return call.Invalid("winLength is {}, expected 1 to nFft = {}", f->window, f->n);
  if (window != nullptr) {
    if (!IsFloating(window->view.dtype))
      return call.Invalid("windowOptional has type {}, expected a floating-point type",
                          Name(window->view.dtype));
    const int64_t dims[] = {f->window};
    RETURN_IF_ERROR(call.RequireShape(window, "windowOptional", dims, 1));
  }
  f->count = 1 + (f->length - f->n) / f->hop;
  f->bins = onesided ? f->n / 2 + 1 : f->n;
  int64_t dims[4];
  int rank = 0;
  if (x.rank == 2) dims[rank++] = f->batch;
  dims[rank++] = f->bins;
  dims[rank++] = f->count;
  if (!f->complex_out) dims[rank++] = 2;
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, rank));
  if (IsComplex(out->view.dtype) == f->complex_out && (f->complex_out || IsFloating(out->view.dtype)))
    return Status();
  return call.Invalid("out has type {}, expected a {} type", Name(out->view.dtype),
                      f->complex_out ? "complex" : "floating-point");
}

}  // namespace

Status aclnn::aclStft(Call& call, const aclTensor* self, const aclTensor* windowOptional, aclTensor* out,
                      int64_t nFft, int64_t hopLength, int64_t winLength, bool normalized, bool onesided,
                      bool returnComplex) {
  Frames f{};
  f.n = nFft, f.hop = hopLength, f.window = winLength, f.normalized = normalized,
  f.complex_out = returnComplex;
  RETURN_IF_ERROR(CheckFrames(call, self, windowOptional, out, onesided, &f));
  if (out->view.empty()) return call.Nothing();
  const bool complex = IsComplex(self->view.dtype), has_window = windowOptional != nullptr;
  const bool wide = self->view.dtype == DType::kDouble || self->view.dtype == DType::kComplex128;
  const double frames = static_cast<double>(f.batch * f.count), n = static_cast<double>(f.n);
  const Cost cost{frames * 5 * n * std::log2(n + 1),
                  static_cast<double>(self->view.nbytes() + out->view.nbytes())};
  const std::initializer_list<Arg> args = {In(self), Out(out), In(has_window ? windowOptional : self)};
  return call.Launch(args, cost, [f, complex, wide, has_window](const Run& t) -> Status {
    const TensorView* window = has_window ? &t[2] : nullptr;
    if (wide)
      return complex ? RunFrames<double, true>(f, t[0], window, t[1])
                     : RunFrames<double, false>(f, t[0], window, t[1]);
    return complex ? RunFrames<float, true>(f, t[0], window, t[1])
                   : RunFrames<float, false>(f, t[0], window, t[1]);
  });
}

}  // namespace anycann
