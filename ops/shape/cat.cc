// Concatenation: Cat, Stack, ChunkCat, and their inverse SplitWithSize.
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/convert.h"
#include "ops/overlap.h"

namespace anycann {
namespace {

// One part of the joined tensor: operand `operand` of the Run.
struct Piece {
  int operand;
  int64_t start, length;  // along the joined dimension
};

// The joined tensor and its parts as rows of bytes, when everything is contiguous and of one type: the joined
// row is the parts' rows one after another.
bool DenseParts(const TensorView& joined, int dim, const Run& t, const std::vector<Piece>& pieces) {
  if (!joined.contiguous()) return false;
  int64_t row = SizeOf(joined.dtype);
  for (int i = dim; i < joined.rank; ++i) row *= joined.dims[i];
  if (row / static_cast<int64_t>(pieces.size()) < 64) return false;
  for (const Piece& p : pieces)
    if (!t[p.operand].contiguous() || t[p.operand].dtype != joined.dtype) return false;
  return true;
}

// Moves all bytes between the joined tensor and its parts, cut anywhere. `split`: from the joined tensor to
// the parts.
void MoveDense(const TensorView& joined, int dim, const Run& t, const std::vector<Piece>& pieces,
               bool split) {
  int64_t inner = SizeOf(joined.dtype);
  for (int i = dim + 1; i < joined.rank; ++i) inner *= joined.dims[i];
  const int64_t row = inner * joined.dims[dim];
  ParallelFor(joined.nbytes(), int64_t{128} << 10, [&](int64_t begin, int64_t end) {
    int64_t r = begin / row, in_row = begin % row;
    size_t k = 0;
    while (k + 1 < pieces.size() && in_row >= pieces[k + 1].start * inner) ++k;
    while (begin < end) {
      const Piece& p = pieces[k];
      const int64_t part_row = p.length * inner, at = in_row - p.start * inner;
      const int64_t n = std::min(part_row - at, end - begin);
      if (n > 0) {
        char* part = t[p.operand].bytes() + r * part_row + at;
        char* whole = joined.bytes() + begin;
        split ? std::memcpy(part, whole, static_cast<size_t>(n))
              : std::memcpy(whole, part, static_cast<size_t>(n));
      }
      begin += std::max<int64_t>(n, 0);
      in_row += std::max<int64_t>(n, 0);
      if (++k == pieces.size()) k = 0, in_row = 0, ++r;
    }
  });
}

Status Join(const Run& t, int joined_operand, int dim, const std::vector<Piece>& pieces) {
  const TensorView& out = t[joined_operand];
  if (DenseParts(out, dim, t, pieces)) {
    MoveDense(out, dim, t, pieces, false);
  } else {
    for (const Piece& p : pieces) CopyCast(out.Narrow(dim, p.start, p.length), t[p.operand]);
  }
  return Status();
}

// torch's legacy: a one-dimensional tensor without elements joins anything.
bool Skipped(const aclTensor* t) { return t->view.rank == 1 && t->view.dims[0] == 0; }

Status CheckMember(Call& call, const aclTensor* t, uint64_t i, const TensorView& like, int dim) {
  bool fits = t->view.rank == like.rank;
  for (int d = 0; fits && d < like.rank; ++d) fits = d == dim || t->view.dims[d] == like.dims[d];
  if (fits) return Status();
  return call.Invalid("tensors[{}] has shape {}, expected {} except in dimension {}", i, ShapeString(t->view),
                      ShapeString(like), dim);
}

Status LaunchJoin(Call& call, std::vector<Arg>&& args, int dim, std::vector<Piece>&& pieces,
                  const aclTensor* out) {
  const int joined = static_cast<int>(args.size()) - 1;
  const double bytes = 2.0 * static_cast<double>(out->view.nbytes());
  return call.Launch(
      std::span<const Arg>(args), Cost{0, bytes},
      [=, pieces = std::move(pieces)](const Run& t) -> Status { return Join(t, joined, dim, pieces); });
}

Status RequireMembers(Call& call, const aclTensorList* tensors, const char* name) {
  if (tensors->size == 0) return call.Invalid("{} is empty, expected at least one tensor", name);
  for (uint64_t i = 0; i < tensors->size; ++i)
    if (tensors->values[i] == nullptr) return call.Error(kParamNullptr, "{}[{}] is null", name, i);
  return Status();
}

}  // namespace

Status aclnn::Cat(Call& call, const aclTensorList* tensors, int64_t dim, aclTensor* out) {
  RETURN_IF_ERROR(RequireMembers(call, tensors, "tensors"));
  const aclTensor* first = nullptr;
  for (const aclTensor* t : *tensors)
    if (!Skipped(t)) {
      first = t;
      break;
    }
  if (first == nullptr) {
    const int64_t none = 0;
    return call.RequireShape(out, "out", &none, 1);
  }
  if (first->view.rank == 0) return call.Invalid("tensors[0] has no dimensions and can't be concatenated");
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, first->view.rank, "dim", &d));
  std::vector<Arg> args;
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (uint64_t i = 0; i < tensors->size; ++i) {
    const aclTensor* t = tensors->values[i];
    if (Skipped(t)) continue;
    RETURN_IF_ERROR(CheckMember(call, t, i, first->view, d));
    RETURN_IF_ERROR(call.RequireCastable(t->view.dtype, out, "out"));
    RETURN_IF_ERROR(RequireApart(call, out, "out", t, "a tensor"));
    if (t->view.dims[d] == 0) continue;
    pieces.push_back({static_cast<int>(args.size()), total, t->view.dims[d]});
    args.push_back(In(t));
    total += t->view.dims[d];
  }
  int64_t expected[kMaxRank];
  for (int i = 0; i < first->view.rank; ++i) expected[i] = i == d ? total : first->view.dims[i];
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, first->view.rank));
  if (out->view.empty()) return call.Nothing();
  args.push_back(Out(out));
  return LaunchJoin(call, std::move(args), d, std::move(pieces), out);
}

Status aclnn::Stack(Call& call, const aclTensorList* tensors, int64_t dim, aclTensor* out) {
  RETURN_IF_ERROR(RequireMembers(call, tensors, "tensors"));
  const TensorView& first = tensors->values[0]->view;
  if (first.rank + 1 > kMaxRank)
    return call.Invalid("tensors[0] has {} dimensions, expected at most {}", first.rank, kMaxRank - 1);
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, first.rank + 1, "dim", &d));
  std::vector<Arg> args;
  std::vector<Piece> pieces;
  for (uint64_t i = 0; i < tensors->size; ++i) {
    const aclTensor* t = tensors->values[i];
    if (!t->view.SameShape(first))
      return call.Invalid("tensors[{}] has shape {}, expected that of tensors[0], {}", i,
                          ShapeString(t->view), ShapeString(first));
    RETURN_IF_ERROR(call.RequireCastable(t->view.dtype, out, "out"));
    pieces.push_back({static_cast<int>(i), static_cast<int64_t>(i), 1});
    args.push_back(In(t, t->view.Unsqueeze(d)));
  }
  int64_t expected[kMaxRank];
  for (int i = 0; i <= first.rank; ++i)
    expected[i] = i == d ? static_cast<int64_t>(tensors->size) : first.dims[i > d ? i - 1 : i];
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, first.rank + 1));
  if (out->view.empty()) return call.Nothing();
  args.push_back(Out(out));
  return LaunchJoin(call, std::move(args), d, std::move(pieces), out);
}

// Each tensor is padded with zeros along dim to a multiple of numChunks, cut into numChunks and flattened
// behind dim; chunk c of all tensors, side by side, is out[..., c, :].
Status aclnn::ChunkCat(Call& call, const aclTensorList* tensors, int64_t dim, int64_t numChunks,
                       aclTensor* out) {
  RETURN_IF_ERROR(RequireMembers(call, tensors, "tensors"));
  if (numChunks < 1) return call.Invalid("numChunks is {}, expected at least 1", numChunks);
  const TensorView& first = tensors->values[0]->view;
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, first.rank, "dim", &d));
  if (first.rank == 0) return call.Invalid("tensors[0] has no dimensions");
  struct Part {
    int64_t start, chunk, inner;  // columns of out; elements per chunk along dim; elements behind dim
  };
  std::vector<Arg> args;
  std::vector<Part> parts;
  int64_t columns = 0;
  for (uint64_t i = 0; i < tensors->size; ++i) {
    const TensorView& v = tensors->values[i]->view;
    bool fits = v.rank > d;
    for (int k = 0; fits && k < d; ++k) fits = v.dims[k] == first.dims[k];
    if (!fits)
      return call.Invalid(
          "tensors[{}] has shape {}, expected the sizes of tensors[0], {}, before dimension {}", i,
          ShapeString(v), ShapeString(first), d);
    RETURN_IF_ERROR(call.RequireCastable(v.dtype, out, "out"));
    Part p{columns, v.dims[d] / numChunks + (v.dims[d] % numChunks != 0), 1};
    for (int k = d + 1; k < v.rank; ++k) p.inner *= v.dims[k];
    columns += p.chunk * p.inner;
    parts.push_back(p);
    args.push_back(In(tensors->values[i]));
  }
  int64_t expected[kMaxRank + 1];
  for (int i = 0; i < d; ++i) expected[i] = first.dims[i];
  expected[d] = numChunks;
  expected[d + 1] = columns;
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, d + 2));
  if (out->view.empty()) return call.Nothing();
  args.push_back(Out(out));
  return call.Launch(std::span<const Arg>(args), Cost{0, 2.0 * static_cast<double>(out->view.nbytes())},
                     [d, numChunks, parts = std::move(parts)](const Run& t) -> Status {
                       const TensorView& result = t[static_cast<int>(parts.size())];
                       const char zero[16] = {};
                       Fill(result, zero);
                       for (size_t i = 0; i < parts.size(); ++i) {
                         const TensorView& v = t[static_cast<int>(i)];
                         for (int64_t c = 0; c < numChunks; ++c) {
                           // The chunk's window in out, with its rows unfolded to the tensor's own trailing
                           // dimensions.
                           const int64_t from = c * parts[i].chunk;
                           const int64_t rows = std::min(parts[i].chunk, v.dims[d] - from);
                           if (rows <= 0) break;
                           TensorView window =
                               result.Select(d, c).Narrow(d, parts[i].start, rows * parts[i].inner);
                           int64_t stride = window.strides[d];
                           window.rank = v.rank;
                           for (int k = v.rank - 1; k >= d; --k) {
                             window.dims[k] = k == d ? rows : v.dims[k];
                             window.strides[k] = stride;
                             stride *= v.dims[k];
                           }
                           CopyCast(window, v.Narrow(d, from, rows));
                         }
                       }
                       return Status();
                     });
}

Status aclnn::SplitWithSize(Call& call, const aclTensor* self, const aclIntArray* splitSize, int64_t dim,
                            aclTensorList* out) {
  RETURN_IF_ERROR(RequireMembers(call, out, "out"));
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  if (self->view.rank == 0) return call.Invalid("self has no dimensions and can't be split");
  if (splitSize->size != out->size)
    return call.Invalid("splitSize has {} values, but out has {} tensors", splitSize->size, out->size);
  std::vector<Arg> args;
  std::vector<Piece> pieces;
  int64_t total = 0, expected[kMaxRank];
  for (uint64_t i = 0; i < out->size; ++i) {
    const int64_t length = (*splitSize)[i];
    if (length < 0) return call.Invalid("splitSize[{}] is {}, expected no negative size", i, length);
    for (int k = 0; k < self->view.rank; ++k) expected[k] = k == d ? length : self->view.dims[k];
    RETURN_IF_ERROR(
        call.RequireShape(out->values[i], fmt::format("out[{}]", i).c_str(), expected, self->view.rank));
    RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out->values[i], "out"));
    if (length > 0) {
      pieces.push_back({static_cast<int>(args.size()), total, length});
      args.push_back(Out(out->values[i]));
    }
    total += length;
  }
  if (total != self->view.dims[d])
    return call.Invalid("splitSize adds up to {}, expected {}, the size of dimension {} of self", total,
                        self->view.dims[d], d);
  if (self->view.empty()) return call.Nothing();
  args.push_back(In(self));
  return call.Launch(std::span<const Arg>(args), Cost{0, 2.0 * static_cast<double>(self->view.nbytes())},
                     [d, pieces = std::move(pieces)](const Run& t) -> Status {
                       const TensorView& joined = t[t.size() - 1];
                       if (DenseParts(joined, d, t, pieces)) {
                         MoveDense(joined, d, t, pieces, true);
                       } else {
                         for (const Piece& p : pieces)
                           CopyCast(t[p.operand], joined.Narrow(d, p.start, p.length));
                       }
                       return Status();
                     });
}

}  // namespace anycann
