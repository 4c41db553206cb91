#include "ops/conv/image.h"

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

// Copies rows of `n` elements. What counts is the many short rows of small images.
void CopyRow(char* to, DType to_type, const char* from, DType from_type, int64_t stride, int64_t n) {
  if (to_type == from_type && stride == 1) {
    const int64_t bytes = n * SizeOf(to_type);
    if (bytes >= 64) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
    } else {
      int64_t i = 0;
      for (; i + 8 <= bytes; i += 8) std::memcpy(to + i, from + i, 8);
      for (; i + 2 <= bytes; i += 2) std::memcpy(to + i, from + i, 2);
    }
    return;
  }
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

// One channel of one image. `to` has been zeroed.
void CopyChannel(const Image& in, const char* from, const AxisTaps (&axes)[kAxes], const Copy& c,
                 DType element, char* to) {
  const int64_t from_size = SizeOf(in.dtype), to_size = SizeOf(element);
  const AxisTaps& w = axes[2];
  for (int64_t d = 0; d < c.extent[0]; ++d) {
    const int64_t z = d + axes[0].First();
    if (z < 0 || z >= in.size[0] || (axes[0].taps == 1 && d % axes[0].step != 0)) continue;
    for (int64_t h = 0; h < c.extent[1]; ++h) {
      const int64_t y = h + axes[1].First();
      if (y < 0 || y >= in.size[1] || (axes[1].taps == 1 && h % axes[1].step != 0)) continue;
      const char* row = from + (z * in.stride[0] + y * in.stride[1]) * from_size;
      for (int64_t p = 0; p < c.phases; ++p) {
        // Positions x = first + p + i * step for i in [begin, end) lie inside the image.
        const int64_t first = w.First() + p;
        const int64_t begin = first >= 0 ? 0 : (-first + w.step - 1) / w.step;
        const int64_t end =
            std::min(c.extent[2], first < in.size[2] ? (in.size[2] - first + w.step - 1) / w.step : 0);
        if (begin >= end) continue;
        char* target = to + (((d * c.extent[1] + h) * c.phases + p) * c.extent[2] + begin) * to_size;
        CopyRow(target, element, row + (first + begin * w.step) * in.stride[2] * from_size, in.dtype,
                in.stride[2] * w.step, end - begin);
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
      Scratch(ScratchSlot::kImage, static_cast<size_t>((end - begin) * out->batch_stride * size + 64)));
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
