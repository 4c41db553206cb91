#include "ops/shape/private_format.h"

#include <fmt/format.h>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kCube = 16;  // rows of a fractal

int64_t Blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

int64_t BlockSize(int32_t format, DType dtype) {
  switch (format) {
    case kFractalNzC0_16: return 16;
    case kFractalNzC0_32: return 32;
    case kFractalNzC0_2: return 2;
    case kFractalNzC0_4: return 4;
    case kFractalNzC0_8: return 8;
    default: return SizeOf(dtype) == 0 ? 0 : 32 / SizeOf(dtype);
  }
}

// [.., M, N] as [.., N1, M1, 16, C0].
void LayOutNz(const int64_t* dims, int rank, BlockedLayout* l) {
  const int64_t m1 = Blocks(dims[rank - 2], kCube), n1 = Blocks(dims[rank - 1], l->c0);
  l->split = rank - 1;
  l->block_stride = m1 * kCube * l->c0;
  l->stride[rank - 2] = l->c0;
  int64_t stride = n1 * l->block_stride;
  for (int i = rank - 3; i >= 0; --i) {
    l->stride[i] = stride;
    stride *= dims[i];
  }
  l->rank = 0;
  for (int i = 0; i < rank - 2; ++i) l->dims[l->rank++] = dims[i];
  for (int64_t d : {n1, m1, kCube, l->c0}) l->dims[l->rank++] = d;
}

// [N, C, (D,) H, W] as [N, (D,) C1, H, W, C0].
void LayOutNc1hwc0(const int64_t* dims, int rank, BlockedLayout* l) {
  const int64_t c1 = Blocks(dims[1], l->c0), h = dims[rank - 2], w = dims[rank - 1];
  l->split = 1;
  l->stride[rank - 1] = l->c0;
  l->stride[rank - 2] = w * l->c0;
  l->block_stride = h * w * l->c0;
  int64_t image = c1 * l->block_stride;
  l->rank = 0;
  l->dims[l->rank++] = dims[0];
  if (rank == 5) {
    l->stride[2] = image;
    image *= dims[2];
    l->dims[l->rank++] = dims[2];
  }
  l->stride[0] = image;
  for (int64_t d : {c1, h, w, l->c0}) l->dims[l->rank++] = d;
}

// Filters [N, C, (D,) H, W] as [(D *) C1 * H * W, N1, 16, C0].
void LayOutFractalZ(const int64_t* dims, int rank, BlockedLayout* l) {
  const int64_t c1 = Blocks(dims[1], l->c0), n1 = Blocks(dims[0], kCube), h = dims[rank - 2],
                w = dims[rank - 1];
  const int64_t filters = n1 * kCube * l->c0;
  l->split = 1;
  l->stride[0] = l->c0;
  l->stride[rank - 1] = filters;
  l->stride[rank - 2] = w * filters;
  l->block_stride = h * w * filters;
  if (rank == 5) l->stride[2] = c1 * l->block_stride;
  l->rank = 0;
  for (int64_t d : {(rank == 5 ? dims[2] : 1) * c1 * h * w, n1, kCube, l->c0}) l->dims[l->rank++] = d;
}

// The part of `logical` whose blocks [first, first + count) are `width` wide, and the same part of the
// storage.
void CopyBlocks(const BlockedLayout& l, const TensorView& logical, void* storage, int64_t first,
                int64_t count, int64_t width, bool store) {
  if (count == 0 || width == 0) return;
  TensorView blocks = logical.Narrow(l.split, first * l.c0, count * width);
  TensorView stored = blocks;
  stored.data = static_cast<char*>(storage) + first * l.block_stride * SizeOf(logical.dtype);
  for (int i = 0; i < logical.rank; ++i) stored.strides[i] = l.stride[i];
  if (count > 1) {
    if (logical.rank == kMaxRank) {  // no room for the block's own dimension
      for (int64_t b = first; b < first + count; ++b) CopyBlocks(l, logical, storage, b, 1, width, store);
      return;
    }
    for (TensorView* v : {&blocks, &stored}) {
      *v = v->Unsqueeze(l.split);
      v->dims[l.split] = count;
      v->dims[l.split + 1] = width;
    }
    blocks.strides[l.split] = logical.strides[l.split] * l.c0;
    stored.strides[l.split] = l.block_stride;
    stored.strides[l.split + 1] = 1;
  } else {
    stored.strides[l.split] = 1;
  }
  store ? CopyCast(stored, blocks) : CopyCast(blocks, stored);
}

void CopyAll(const BlockedLayout& l, const TensorView& logical, void* storage, bool store) {
  const int64_t n = logical.dims[l.split], whole = n / l.c0;
  CopyBlocks(l, logical, storage, 0, whole, l.c0, store);
  CopyBlocks(l, logical, storage, whole, 1, n - whole * l.c0, store);
}

}  // namespace

bool IsPrivateFormat(int32_t f) {
  return f == kNc1hwc0 || f == kFractalZ || f == kFractalNz || f == kNdc1hwc0 || f == kFractalZ3d ||
         (f >= kFractalNzC0_16 && f <= kFractalNzC0_8);
}

int64_t BlockedLayout::numel() const {
  int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= dims[i];
  return n;
}

bool BlockedLayout::padded(const int64_t* logical, int logical_rank) const {
  int64_t n = 1;
  for (int i = 0; i < logical_rank; ++i) n *= logical[i];
  return n != numel();
}

bool LayOut(int32_t format, DType dtype, const int64_t* dims, int rank, BlockedLayout* l, std::string* why,
            int64_t c0) {
  l->c0 = c0 > 0 ? c0 : BlockSize(format, dtype);
  const bool nz = format == kFractalNz || (format >= kFractalNzC0_16 && format <= kFractalNzC0_8);
  const int wanted = format == kNdc1hwc0 || format == kFractalZ3d ? 5 : 4;
  if (!IsPrivateFormat(format))
    *why = fmt::format("format {} is not a private one", format);
  else if (l->c0 == 0)
    *why = fmt::format("type {} has no private format", Name(dtype));
  else if (nz && (rank < 2 || rank > kMaxRank - 2))
    *why = fmt::format("shape {} has {} dimensions, format {} takes 2 to {}", ShapeString(dims, rank), rank,
                       format, kMaxRank - 2);
  else if (!nz && rank != wanted)
    *why = fmt::format("shape {} has {} dimensions, format {} takes {}", ShapeString(dims, rank), rank,
                       format, wanted);
  if (!why->empty()) return false;
  if (nz)
    LayOutNz(dims, rank, l);
  else if (format == kFractalZ || format == kFractalZ3d)
    LayOutFractalZ(dims, rank, l);
  else
    LayOutNc1hwc0(dims, rank, l);
  return true;
}

void StoreBlocked(const BlockedLayout& l, const TensorView& logical, void* storage) {
  if (l.padded(logical.dims, logical.rank)) {
    const unsigned char zero[16] = {};
    Fill(TensorView::Contiguous(storage, logical.dtype, l.dims, l.rank), zero);
  }
  CopyAll(l, logical, storage, true);
}
void LoadBlocked(const BlockedLayout& l, const void* storage, const TensorView& logical) {
  CopyAll(l, logical, const_cast<void*>(storage), false);
}

namespace {

// The private side's layout, and that its buffer holds it.
Status ReadLayout(Call& call, const aclTensor* t, const char* name, const TensorView& logical,
                  BlockedLayout* layout) {
  std::string why;
  if (!LayOut(t->view.format, t->view.dtype, logical.dims, logical.rank, layout, &why))
    return call.Invalid("{}: {}", name, why);
  int64_t room = 1;
  for (int i = 0; i < t->storage_rank; ++i) room *= t->storage_dims[i];
  if (t->storage_rank > 0 && room < layout->numel())
    return call.Invalid("{} has storage {}, expected {} for shape {} in format {}", name,
                        ShapeString(t->storage_dims, t->storage_rank),
                        ShapeString(layout->dims, layout->rank), ShapeString(logical), t->view.format);
  return Status();
}

}  // namespace

Status aclnn::NpuFormatCast(Call& call, const aclTensor* srcTensor, aclTensor* dstTensor) {
  const TensorView &src = srcTensor->view, &dst = dstTensor->view;
  RETURN_IF_ERROR(call.RequireDType(dstTensor, "dstTensor", src.dtype));
  const bool from = IsPrivateFormat(src.format), to = IsPrivateFormat(dst.format);
  if (from && to && src.format != dst.format)
    return call.Invalid("srcTensor has format {} and dstTensor {}: one of them must be a base format",
                        src.format, dst.format);
  // The handle of the private side may show the physical shape; the logical one is the other's.
  const TensorView& logical = from && !to ? dst : src;
  if (logical.empty()) return call.Nothing();
  const Cost cost{0, 2.0 * static_cast<double>(logical.nbytes())};
  if (from == to) {
    RETURN_IF_ERROR(call.RequireSameShape(dstTensor, "dstTensor", srcTensor, "srcTensor"));
    if (!from)
      return call.Launch({In(srcTensor), Out(dstTensor)}, cost, [](const Run& t) -> Status {
        CopyCast(t[1], t[0]);
        return Status();
      });
  }
  BlockedLayout layout;
  RETURN_IF_ERROR(
      ReadLayout(call, from ? srcTensor : dstTensor, from ? "srcTensor" : "dstTensor", logical, &layout));
  TensorView source = src, target = dst;
  if (from) source = TensorView::Contiguous(src.data, src.dtype, layout.dims, layout.rank);
  if (to) target = TensorView::Contiguous(dst.data, dst.dtype, layout.dims, layout.rank);
  return call.Launch({In(srcTensor, source), Out(dstTensor, target)}, cost, [=](const Run& t) -> Status {
    if (from && to)
      CopyCast(t[1], t[0]);
    else if (to)
      StoreBlocked(layout, t[0], t[1].data);
    else
      LoadBlocked(layout, t[0].data, t[1]);
    return Status();
  });
}

}  // namespace anycann
