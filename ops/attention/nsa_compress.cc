// Native sparse attention's compressed keys: each window of rows, weighted row by row, becomes one row. From
// packed sequences with a gradient, and from a paged cache as sequences grow.
#include <algorithm>
#include <string_view>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/attention/sparse_attention.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct Compression {
  int64_t rows = 0, heads = 0, dim = 0, window = 0, stride = 0;
  std::vector<int64_t> first;  // row of each window

  int64_t windows() const { return static_cast<int64_t>(first.size()); }
  int64_t row() const { return heads * dim; }
};

Status CheckWindow(Call& call, int64_t window, int64_t stride) {
  if (window < 1 || stride < 1)
    return call.Invalid("compressBlockSize is {} and compressStride {}, expected 1 or more", window, stride);
  return Status();
}

Status ReadCompression(Call& call, const aclTensor* input, const aclTensor* weight, const aclIntArray* ends,
                       const char* layout, int64_t window, int64_t stride, int64_t lengths_type,
                       Compression* c) {
  if (layout != nullptr && *layout != 0 && std::string_view(layout) != "TND")
    return call.Invalid("layoutOptional is {}, expected TND", layout);
  if (lengths_type != 0) return call.Invalid("actSeqLenType is {}, expected 0 (ends)", lengths_type);
  RETURN_IF_ERROR(CheckWindow(call, window, stride));
  RETURN_IF_ERROR(call.RequireRank(input, "input", 3, 3));
  const TensorView& v = input->view;
  c->rows = v.dims[0], c->heads = v.dims[1], c->dim = v.dims[2];
  c->window = window, c->stride = stride;
  RETURN_IF_ERROR(call.RequireFloating(input, "input", {c->rows, c->heads, c->dim}));
  RETURN_IF_ERROR(call.RequireFloating(weight, "weight", {window, c->heads}));
  if (ends == nullptr || ends->size == 0) return call.Invalid("actSeqLenOptional is absent or empty");
  int64_t begin = 0;
  for (const int64_t end : *ends) {
    if (end < begin || end > c->rows)
      return call.Invalid("actSeqLenOptional has {} after {}, expected a rising list up to {}", end, begin,
                          c->rows);
    for (int64_t i = begin; i + window <= end; i += stride) {
      c->first.push_back(i);
      if (end - window < stride) break;
    }
    begin = end;
  }
  return Status();
}

Cost CostOf(const Compression& c) {
  return {2.0 * static_cast<double>(c.windows() * c.window) * static_cast<double>(c.row()), 0};
}

// to[h, d] = the sum over `rows` of weight[i, h] * row i.
template <class RowAt>
void AddWindow(const Compression& c, const float* weight, RowAt&& row_at, float* to) {
  std::fill_n(to, c.row(), 0.0f);
  for (int64_t i = 0; i < c.window; ++i) {
    const float* from = row_at(i);
    for (int64_t h = 0; h < c.heads; ++h) {
      const float by = weight[i * c.heads + h];
      for (int64_t d = 0; d < c.dim; ++d) to[h * c.dim + d] += by * from[h * c.dim + d];
    }
  }
}

}  // namespace

Status aclnn::NsaCompress(Call& call, const aclTensor* input, const aclTensor* weight,
                          const aclIntArray* actSeqLenOptional, char* layoutOptional,
                          int64_t compressBlockSize, int64_t compressStride, int64_t actSeqLenType,
                          aclTensor* output) {
  Compression c;
  RETURN_IF_ERROR(ReadCompression(call, input, weight, actSeqLenOptional, layoutOptional, compressBlockSize,
                                  compressStride, actSeqLenType, &c));
  RETURN_IF_ERROR(call.RequireFloating(output, "output", {c.windows(), c.heads, c.dim}));
  if (output->view.empty()) return call.Nothing();
  return call.Launch({In(input), In(weight), Out(output)}, CostOf(c), [c](const Run& t) -> Status {
    const Values<float> x(t[0]), w(t[1]);
    const Scratch<float> y(t[2].numel());
    if (!x.ok() || !w.ok() || !y.ok()) return ScratchFailed(t.plan().name);
    ParallelFor(c.windows(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        AddWindow(
            c, w.get(), [&](int64_t j) { return x.get() + (c.first[i] + j) * c.row(); },
            y.get() + i * c.row());
    });
    StoreValues(t[2], y.get());
    return Status();
  });
}

Status aclnn::NsaCompressGrad(Call& call, const aclTensor* outputGrad, const aclTensor* input,
                              const aclTensor* weight, const aclIntArray* actSeqLenOptionalOptional,
                              int64_t compressBlockSize, int64_t compressStride, int64_t actSeqLenType,
                              char* layoutOptionalOptional, const aclTensor* inputGradOut,
                              const aclTensor* weightGradOut) {
  Compression c;
  RETURN_IF_ERROR(ReadCompression(call, input, weight, actSeqLenOptionalOptional, layoutOptionalOptional,
                                  compressBlockSize, compressStride, actSeqLenType, &c));
  RETURN_IF_ERROR(call.RequireFloating(outputGrad, "outputGrad", {c.windows(), c.heads, c.dim}));
  RETURN_IF_ERROR(call.RequireFloating(inputGradOut, "inputGrad", {c.rows, c.heads, c.dim}));
  RETURN_IF_ERROR(call.RequireFloating(weightGradOut, "weightGrad", {c.window, c.heads}));
  return call.Launch(
      {In(outputGrad), In(input), In(weight), Out(inputGradOut), Out(weightGradOut)}, CostOf(c),
      [c](const Run& t) -> Status {
        const Values<float> g(t[0]), x(t[1]), w(t[2]);
        const Scratch<float> gx(t[3].numel());
        const Scratch<double> gw(t[4].numel());
        if (!g.ok() || !x.ok() || !w.ok() || !gx.ok() || !gw.ok()) return ScratchFailed(t.plan().name);
        std::fill_n(gx.get(), t[3].numel(), 0.0f);
        std::fill_n(gw.get(), t[4].numel(), 0.0);
        ParallelFor(c.heads, 1, [&](int64_t begin, int64_t end) {  // a head owns what it adds to
          for (int64_t i = 0; i < c.windows(); ++i)
            for (int64_t j = 0; j < c.window; ++j)
              for (int64_t h = begin; h < end; ++h) {
                const int64_t from = i * c.row() + h * c.dim, to = (c.first[i] + j) * c.row() + h * c.dim;
                const float by = w[j * c.heads + h];
                double sum = 0;
                for (int64_t d = 0; d < c.dim; ++d) {
                  gx[to + d] += by * g[from + d];
                  sum += static_cast<double>(g[from + d]) * x[to + d];
                }
                gw[j * c.heads + h] += sum;
              }
        });
        StoreValues(t[3], gx.get());
        StoreValues(t[4], gw.get());
        return Status();
      });
}

// input: pages [blocks,page,N,D]. A sequence whose length completes a window gets it into its slot of the
// cache [slots,N,D].
Status aclnn::NsaCompressWithCache(Call& call, const aclTensor* input, const aclTensor* weight,
                                   const aclTensor* slotMapping, const aclIntArray* actSeqLenOptional,
                                   const aclTensor* blockTableOptional, char*, int64_t compressBlockSize,
                                   int64_t compressStride, int64_t, int64_t pageBlockSize,
                                   aclTensor* outputCache) {
  RETURN_IF_ERROR(CheckWindow(call, compressBlockSize, compressStride));
  RETURN_IF_ERROR(call.RequireRank(input, "input", 4, 4));
  RETURN_IF_ERROR(call.RequireRank(outputCache, "outputCache", 3, 3));
  const TensorView& v = input->view;
  Compression c;
  c.heads = v.dims[2], c.dim = v.dims[3], c.window = compressBlockSize, c.stride = compressStride;
  RETURN_IF_ERROR(call.RequireFloating(input, "input", {v.dims[0], pageBlockSize, c.heads, c.dim}));
  RETURN_IF_ERROR(call.RequireFloating(weight, "weight", {c.window, c.heads}));
  RETURN_IF_ERROR(
      call.RequireFloating(outputCache, "outputCache", {outputCache->view.dims[0], c.heads, c.dim}));
  if (actSeqLenOptional == nullptr || actSeqLenOptional->size == 0 || blockTableOptional == nullptr)
    return call.Invalid("{} is absent, which a paged input needs",
                        blockTableOptional == nullptr ? "blockTableOptional" : "actSeqLenOptional");
  const int64_t batches = static_cast<int64_t>(actSeqLenOptional->size);
  RETURN_IF_ERROR(call.RequireRank(blockTableOptional, "blockTable", 2, 2));
  if (blockTableOptional->view.dims[0] < batches || slotMapping->view.numel() != batches)
    return call.Invalid("blockTable has shape {} and slotMapping {}, expected rows for {} sequences",
                        ShapeString(blockTableOptional->view), ShapeString(slotMapping->view), batches);
  for (const auto& [t, name] :
       {std::pair{slotMapping, "slotMapping"}, std::pair{blockTableOptional, "blockTable"}})
    if (!IsInteger(t->view.dtype))
      return call.Invalid("{} has type {}, expected int32", name, Name(t->view.dtype));
  if (!outputCache->view.contiguous())
    return call.Invalid("outputCache has gaps, expected a contiguous cache");
  if (v.empty()) return call.Nothing();
  SequenceRows pages;
  pages.layout = RowLayout::kPages;
  pages.length = pageBlockSize, pages.rows = v.dims[0] * pageBlockSize;
  pages.columns = blockTableOptional->view.dims[1];
  std::vector<int64_t> lengths(actSeqLenOptional->begin(), actSeqLenOptional->end());
  return call.Launch({In(input), In(weight), In(slotMapping), In(blockTableOptional), Out(outputCache)},
                     Cost{}, [c, pages, lengths](const Run& t) -> Status {
                       const DenseInput x(t[0]);
                       const Values<float> w(t[1]);
                       const Values<int64_t> slots(t[2]);
                       const Values<int32_t> table(t[3]);
                       const Scratch<float> row(c.row()), sum(c.row());
                       if (!x.ok() || !w.ok() || !slots.ok() || !table.ok() || !row.ok() || !sum.ok())
                         return ScratchFailed(t.plan().name);
                       const DenseReader<float> reader(x.view());
                       SequenceRows rows = pages;
                       rows.table = table.get();
                       RETURN_IF_ERROR(rows.Read(t.plan().name, "actSeqLenOptional", lengths));
                       for (size_t b = 0; b < lengths.size(); ++b) {
                         const int64_t n = lengths[b];
                         if (n < c.window || (n - c.window) % c.stride != 0) continue;
                         if (slots[b] < 0 || slots[b] >= t[4].dims[0])
                           return Error(kParamInvalid, "{}: slotMapping has {}, expected 0 to {}",
                                        t.plan().name, slots[b], t[4].dims[0] - 1);
                         for (int64_t i = n - c.window; i < n; ++i)
                           if (rows.RowOf(static_cast<int64_t>(b), i) < 0)
                             return Error(kParamInvalid,
                                          "{}: blockTable names no page for row {} of sequence {}",
                                          t.plan().name, i, b);
                         AddWindow(
                             c, w.get(),
                             [&](int64_t j) {
                               const int64_t at = rows.RowOf(static_cast<int64_t>(b), n - c.window + j);
                               return reader.Read(at * c.row(), c.row(), row.get());
                             },
                             sum.get());
                         Convert(t[4].bytes() + slots[b] * c.row() * SizeOf(t[4].dtype), t[4].dtype,
                                 sum.get(), DType::kFloat, c.row());
                       }
                       return Status();
                     });
}

}  // namespace anycann
