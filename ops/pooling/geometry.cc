#include "ops/pooling/geometry.h"

#include <algorithm>

namespace anycann {
namespace {

Status RequirePlanes(Call& call, int dims, const aclTensor* t, const char* name) {
  RETURN_IF_ERROR(call.RequireRank(t, name, dims + 1, dims + 2));
  for (int i = t->view.rank - dims - 1; i < t->view.rank; ++i)
    if (t->view.dims[i] == 0 || t->view.dims[i] > INT32_MAX)
      return call.Invalid("{} has shape {}: only the batch dimension may be empty, and others are at most {}",
                          name, ShapeString(t->view), INT32_MAX);
  return Status();
}

// The values of one attribute for `dims` dimensions, each at least `minimum`.
Status Read(Call& call, const char* name, const aclIntArray* a, int dims, int64_t minimum, int64_t* values) {
  if (a->size != 1 && a->size != static_cast<uint64_t>(dims))
    return call.Invalid("{} has {} values, expected 1 or {}", name, a->size, dims);
  for (int i = 0; i < dims; ++i) {
    values[i] = (*a)[a->size == 1 ? 0 : i];
    if (values[i] < minimum || values[i] > INT32_MAX)
      return call.Invalid("{} is {}, expected values of at least {}", name,
                          ShapeString(a->values, static_cast<int>(a->size)), minimum);
  }
  return Status();
}

void SetPlanes(int dims, const TensorView& in, const TensorView& out, PoolGeometry* g) {
  for (int i = 0; i < in.rank - dims; ++i) g->planes *= in.dims[i];
  for (int i = 0; i < dims; ++i) {
    g->d[3 - dims + i].in = in.dims[in.rank - dims + i];
    g->d[3 - dims + i].out = out.dims[out.rank - dims + i];
  }
}

Status RequireOutput(Call& call, int dims, const aclTensor* in, const aclTensor* out, const char* name,
                     const int64_t* size) {
  int64_t expected[kMaxRank];
  const int rank = in->view.rank;
  for (int i = 0; i < rank; ++i) expected[i] = i < rank - dims ? in->view.dims[i] : size[i - (rank - dims)];
  return call.RequireShape(out, name, expected, rank);
}

}  // namespace

Status FixedGeometry(Call& call, int dims, const PoolAttributes& a, const aclTensor* in, const char* in_name,
                     const aclTensor* out, const char* out_name, PoolGeometry* g) {
  RETURN_IF_ERROR(RequirePlanes(call, dims, in, in_name));
  int64_t kernel[3], stride[3], pad[3], dilation[3] = {1, 1, 1}, size[3];
  RETURN_IF_ERROR(Read(call, "kernelSize", a.kernel, dims, 1, kernel));
  if (a.stride != nullptr && a.stride->size > 0) {
    RETURN_IF_ERROR(Read(call, "stride", a.stride, dims, 1, stride));
  } else {
    std::copy(kernel, kernel + dims, stride);
  }
  RETURN_IF_ERROR(Read(call, "padding", a.padding, dims, 0, pad));
  if (a.dilation != nullptr) RETURN_IF_ERROR(Read(call, "dilation", a.dilation, dims, 1, dilation));
  for (int i = 0; i < dims; ++i) {
    const int64_t length = in->view.dims[in->view.rank - dims + i], reach = dilation[i] * (kernel[i] - 1) + 1;
    if (pad[i] > reach / 2)
      return call.Invalid("padding is {} in dimension {}, expected at most half of the kernel's reach {}",
                          pad[i], i, reach);
    const int64_t room = length + 2 * pad[i] - reach;
    int64_t n = room < 0 ? (a.ceil_mode && room + stride[i] > 0 ? 1 : 0)
                         : (room + (a.ceil_mode ? stride[i] - 1 : 0)) / stride[i] + 1;
    // The last window must start inside the input or its left padding.
    if (a.ceil_mode && n > 0 && (n - 1) * stride[i] >= length + pad[i]) --n;
    if (n < 1)
      return call.Invalid(
          "{} has size {} in dimension {}, which with padding {} is less than the kernel's reach {}", in_name,
          length, i, pad[i], reach);
    size[i] = n;
  }
  RETURN_IF_ERROR(RequireOutput(call, dims, in, out, out_name, size));
  SetPlanes(dims, in->view, out->view, g);
  for (int i = 0; i < dims; ++i) {
    PoolDim& d = g->d[3 - dims + i];
    d.kernel = kernel[i], d.stride = stride[i], d.pad = pad[i], d.dilation = dilation[i];
  }
  return Status();
}

Status AdaptiveGeometry(Call& call, int dims, const aclIntArray* size, const aclTensor* in,
                        const char* in_name, const aclTensor* out, const char* out_name, PoolGeometry* g) {
  RETURN_IF_ERROR(RequirePlanes(call, dims, in, in_name));
  if (size != nullptr) {
    if (size->size != static_cast<uint64_t>(dims))
      return call.Invalid("outputSize has {} values, expected {}", size->size, dims);
    RETURN_IF_ERROR(RequireOutput(call, dims, in, out, out_name, size->values));
  } else if (out->view.rank != in->view.rank) {
    return call.Invalid("{} has shape {}, expected {} dimensions as {}", out_name, ShapeString(out->view),
                        in->view.rank, in_name);
  }
  for (int i = 0; i < in->view.rank - dims; ++i)
    if (out->view.dims[i] != in->view.dims[i])
      return call.Invalid("{} has shape {}, expected that of {}, {}, but in the last {} dimensions", out_name,
                          ShapeString(out->view), in_name, ShapeString(in->view), dims);
  SetPlanes(dims, in->view, out->view, g);
  for (int i = 0; i < dims; ++i) g->d[3 - dims + i].kernel = 0;
  return Status();
}

Scratch<PoolWindow> PoolWindows(const PoolDim& d) {
  Scratch<PoolWindow> windows(d.out);
  if (!windows.ok()) return windows;
  for (int64_t o = 0; o < d.out; ++o) {
    if (d.kernel == 0) {
      const int64_t begin = o * d.in / d.out, end = ((o + 1) * d.in + d.out - 1) / d.out;
      const int32_t n = static_cast<int32_t>(end - begin);
      windows[o] = {static_cast<int32_t>(begin), n, 0, n};
      continue;
    }
    const int64_t start = o * d.stride - d.pad;
    const int64_t first = start < 0 ? (-start + d.dilation - 1) / d.dilation : 0;
    const int64_t begin = start + first * d.dilation;
    const int64_t fit = begin < d.in ? (d.in - 1 - begin) / d.dilation + 1 : 0;
    const int64_t count = std::max<int64_t>(0, std::min(d.kernel - first, fit));
    const int64_t extent = std::min(start + d.kernel, d.in + d.pad) - start;
    windows[o] = {static_cast<int32_t>(begin), static_cast<int32_t>(count), static_cast<int32_t>(first),
                  static_cast<int32_t>(extent)};
  }
  return windows;
}

int64_t PlaneGrain(const PoolGeometry& g) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, g.in_plane() + g.out_plane()));
}

}  // namespace anycann
