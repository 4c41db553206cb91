#include "ops/conv/image.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/convert.h"

namespace anycann {
namespace {

bool Inside(const Image& in, const AxisTaps (&axes)[kAxes]) {
  for (int i = 0; i < kAxes; ++i)
    if (axes[i].First() < 0 || axes[i].Last() >= in.size[i]) return false;
  return true;
}

struct Copy {
  int64_t extent[kAxes];  // positions along depth and height; width positions of one phase
  int64_t phases;
};

Copy CopyShape(const AxisTaps (&axes)[kAxes]) {
  Copy c;
  for (int i = 0; i < 2; ++i) c.extent[i] = axes[i].Last() - axes[i].First() + 1;
  const AxisTaps& w = axes[2];
  c.phases = w.taps == 1 ? 1 : w.step;
  c.extent[2] = (w.Last() - w.First()) / w.step + 1;
  return c;
}

bool Serves(const Image& in, const AxisTaps (&axes)[kAxes], DType element) {
  return in.dtype == element && axes[2].step == 1 && (in.stride[2] == 1 || in.size[2] == 1) &&
         Inside(in, axes);
}

// Copies a short run as it is: what counts is the many rows of small images.
inline void CopyRun(char* to, const char* from, int64_t bytes) {
#if defined(__AVX512BW__)
  for (int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 mask = bytes - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (bytes - i)) - 1;
    _mm512_mask_storeu_epi8(to + i, mask, _mm512_maskz_loadu_epi8(mask, from + i));
  }
#else
  int64_t i = 0;
  for (; i + 8 <= bytes; i += 8) std::memcpy(to + i, from + i, 8);
  for (; i + 2 <= bytes; i += 2) std::memcpy(to + i, from + i, 2);
#endif
}

// Copies a run of `n` elements that lie `stride` apart, to another type.
void ConvertRun(char* to, DType to_type, const char* from, DType from_type, int64_t stride, int64_t n) {
  alignas(64) char packed[256 * 8];
  for (int64_t i = 0; i < n; i += 256) {
    const int64_t m = std::min<int64_t>(256, n - i);
    const char* source = from + i * stride * SizeOf(from_type);
    if (stride != 1) {
      PackStrided(packed, source, stride, m, SizeOf(from_type));
      source = packed;
    }
    Convert(to + i * SizeOf(to_type), to_type, source, from_type, m);
  }
}

// Points of an axis whose positions first + i * step, i in [begin, end), lie inside the image.
struct Inner {
  int64_t begin, end;
};
Inner InnerPoints(int64_t first, int64_t step, int64_t size, int64_t extent) {
  const int64_t begin = first >= 0 ? 0 : (-first + step - 1) / step;
  return {begin, std::min(extent, first < size ? (size - first + step - 1) / step : 0)};
}

// One channel of one image. `to` has been zeroed.
void CopyChannel(const Image& in, const char* from, const AxisTaps (&axes)[kAxes], const Copy& c,
                 DType element, char* to) {
  const int64_t from_size = SizeOf(in.dtype), to_size = SizeOf(element);
  const AxisTaps& w = axes[2];
  const Inner z = InnerPoints(axes[0].First(), 1, in.size[0], c.extent[0]);
  const Inner y = InnerPoints(axes[1].First(), 1, in.size[1], c.extent[1]);
  const int64_t row_bytes = c.phases * c.extent[2] * to_size;
  const int64_t stride = in.stride[2] * w.step;
  const bool plain = element == in.dtype && stride == 1;
  // Rows between the ones that a single tap reads aren't needed.
  const int64_t z_step = axes[0].taps == 1 ? axes[0].step : 1, y_step = axes[1].taps == 1 ? axes[1].step : 1;
  for (int64_t p = 0; p < c.phases; ++p) {
    const Inner x = InnerPoints(w.First() + p, w.step, in.size[2], c.extent[2]);
    if (x.begin >= x.end) continue;
    const char* column = from + (w.First() + p + x.begin * w.step) * in.stride[2] * from_size;
    char* target = to + (p * c.extent[2] + x.begin) * to_size;
    for (int64_t d = (z.begin + z_step - 1) / z_step * z_step; d < z.end; d += z_step) {
      const char* plane = column + (d + axes[0].First()) * in.stride[0] * from_size;
      for (int64_t h = (y.begin + y_step - 1) / y_step * y_step; h < y.end; h += y_step) {
        const char* source = plane + (h + axes[1].First()) * in.stride[1] * from_size;
        char* row = target + (d * c.extent[1] + h) * row_bytes;
        if (plain)
          CopyRun(row, source, (x.end - x.begin) * to_size);
        else
          ConvertRun(row, element, source, in.dtype, stride, x.end - x.begin);
      }
    }
  }
}

}  // namespace

Image Image::Of(const TensorView& v, int axes) {
  Image image;
  image.data = v.bytes();
  image.dtype = v.dtype;
  int d = 0;
  if (v.rank == axes + 2) {
    image.batch = v.dims[0];
    image.batch_stride = v.strides[0];
    d = 1;
  }
  image.channels = v.dims[d];
  image.channel_stride = v.strides[d];
  for (int i = 0; i < axes; ++i) {
    image.size[kAxes - axes + i] = v.dims[d + 1 + i];
    image.stride[kAxes - axes + i] = v.strides[d + 1 + i];
  }
  return image;
}

int64_t PaddedBytes(const Image& in, const AxisTaps (&axes)[kAxes], DType element) {
  if (Serves(in, axes, element)) return 0;
  const Copy c = CopyShape(axes);
  return in.channels * c.extent[0] * c.extent[1] * c.phases * c.extent[2] * SizeOf(element);
}

bool Pad(const Image& in, int64_t begin, int64_t end, const AxisTaps (&axes)[kAxes], DType element,
         Padded* out) {
  for (int i = 0; i < kAxes; ++i) out->first[i] = axes[i].First();
  if (Serves(in, axes, element)) {
    int64_t offset = begin * in.batch_stride;
    for (int i = 0; i < kAxes; ++i) offset += out->first[i] * in.stride[i];
    out->data = in.data + offset * SizeOf(in.dtype);
    out->batch_stride = in.batch_stride;
    out->channel_stride = in.channel_stride;
    out->axis_stride[0] = in.stride[0];
    out->axis_stride[1] = in.stride[1];
    out->width_step = 1;
    return true;
  }
  const Copy c = CopyShape(axes);
  const int64_t size = SizeOf(element), row = c.phases * c.extent[2],
                channel = c.extent[0] * c.extent[1] * row;
  out->width_step = axes[2].step;
  out->phase_stride = c.extent[2];
  out->axis_stride[1] = row;
  out->axis_stride[0] = c.extent[1] * row;
  out->channel_stride = channel;
  out->batch_stride = channel * in.channels;
  // A vector load at the last run may read beyond it.
  char* copy = static_cast<char*>(
      ThreadScratch(ScratchSlot::kImage, static_cast<size_t>((end - begin) * out->batch_stride * size + 64)));
  if (copy == nullptr) return false;
  out->data = copy;
  ParallelFor((end - begin) * in.channels, std::max<int64_t>(1, (32 << 10) / (channel * size + 1)),
              [&](int64_t b, int64_t e) {
                std::memset(copy + b * channel * size, 0, static_cast<size_t>((e - b) * channel * size));
                for (int64_t i = b; i < e; ++i) {
                  const int64_t image = begin + i / in.channels, ch = i % in.channels;
                  const char* from =
                      in.data + (image * in.batch_stride + ch * in.channel_stride) * SizeOf(in.dtype);
                  CopyChannel(in, from, axes, c, element, copy + i * channel * size);
                }
              });
  return true;
}

}  // namespace anycann
