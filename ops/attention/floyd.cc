// Floyd attention: each pair (i, k) looks over the nodes j between them, with keys and values of both its
// legs, (i, j) and (j, k). query and the result [B,H,M,N,D], key1 and value1 [B,H,M,K,D], key2 and value2
// [B,H,K,N,D]:
//   P = softmax over K of scale * (query key1^T + query key2^T), out = P value1 + P value2.
// Formula and shapes: torch_npu's documentation of npu_fused_floyd_attention.
//
// Everything is a batch of matrix products: over i with the first leg, over k with the second. Scores exist
// for some rows of i at a time.
#include <algorithm>
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/convert.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/reduce/exp_sum.h"

namespace anycann {
namespace {

constexpr int64_t kCopies = 8;             // of each softmax statistic
constexpr int64_t kScores = 4 << 20;       // floats of scores at a time, at least one row's
constexpr float kMasked = -4000000000.0f;  // added to a masked score before the scale

struct FloydPlan {
  int64_t batch = 0, heads = 0, m = 0, n = 0, k = 0, d = 0;
  bool masked = false;
  float scale = 1;
  int64_t block() const { return std::clamp<int64_t>(kScores / (n * k), 1, m); }
};

TensorView Swapped(const TensorView& v) { return v.Transpose(0, 1); }
TensorView Turned(const TensorView& v) { return v.Transpose(1, 2); }

// out [a,b,c] = x [a,b,d] y [a,d,c], added to what is there where `add`.
Status Product(const TensorView& x, const TensorView& y, const TensorView& out, bool add = false) {
  return Gemm(MakeGemm(x, y, out, add ? &out : nullptr));
}

// Of one head: x [m,N,D], leg1 [m,K,D], leg2 [K,N,D], scores [m,N,K].
Status Scores(const TensorView& x, const TensorView& leg1, const TensorView& leg2, const TensorView& scores) {
  RETURN_IF_ERROR(Product(x, Turned(leg1), scores));
  return Product(Swapped(x), Turned(Swapped(leg2)), Swapped(scores), true);
}

// sum [m,N,D] = weights [m,N,K] over both legs, cast to out.
Status Mix(const TensorView& weights, const TensorView& leg1, const TensorView& leg2, const TensorView& sum,
           const TensorView& out) {
  RETURN_IF_ERROR(Product(weights, leg1, sum));
  RETURN_IF_ERROR(Product(Swapped(weights), Swapped(leg2), Swapped(sum), true));
  CopyCast(out, sum);
  return Status();
}

// The legs' gradients: that of the first complete, that of the second added to over the rows of i.
Status Spread(const TensorView& weights, const TensorView& x, const TensorView& dleg1,
              const TensorView& dleg2) {
  RETURN_IF_ERROR(Product(Turned(weights), x, dleg1));
  return Product(Turned(Swapped(weights)), Swapped(x), Swapped(dleg2), true);
}

// A head of a tensor, and rows of i of it.
TensorView Head(const TensorView& v, int64_t b, int64_t h) { return v.Select(0, b).Select(0, h); }
TensorView Rows(const TensorView& v, int64_t b, int64_t h, int64_t first, int64_t count) {
  return Head(v, b, h).Narrow(0, first, count);
}

// The scores of a row, scaled and masked. mask: a head's rows [m,N,K], or no data.
void ScaleRow(float* s, int64_t k, float scale, const TensorView& mask, int64_t i, int64_t j) {
  if (mask.data == nullptr) {
    for (int64_t l = 0; l < k; ++l) s[l] *= scale;
    return;
  }
  const uint8_t* hidden = mask.ptr<uint8_t>() + i * mask.strides[0] + j * mask.strides[1];
  for (int64_t l = 0; l < k; ++l) s[l] = (hidden[l * mask.strides[2]] != 0 ? s[l] + kMasked : s[l]) * scale;
}

template <class Work>  // (b, h, first row, rows)
Status ForEachBlock(const FloydPlan& p, Work work) {
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.m; i += p.block())
        RETURN_IF_ERROR(work(b, h, i, std::min(p.block(), p.m - i)));
  return Status();
}

TensorView MaskOf(const FloydPlan& p, const TensorView& mask) {
  TensorView wide = mask;
  const int64_t dims[] = {p.batch, p.heads, p.m, p.n, p.k};
  BroadcastTo(mask, dims, 5, &wide);
  return wide;
}

Status RunFloyd(const Run& t, const FloydPlan& p) {
  const TensorView &q = t[0], &k1 = t[1], &v1 = t[2], &k2 = t[3], &v2 = t[4], &out = t[7];
  const Scratch<float> scores(p.block() * p.n * p.k), sums(p.block() * p.n * p.d);
  const int64_t rows = p.batch * p.heads * p.m * p.n;
  const Scratch<float> max(rows * kCopies), total(rows * kCopies);
  if (!scores.ok() || !sums.ok() || !max.ok() || !total.ok()) return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(ForEachBlock(p, [&](int64_t b, int64_t h, int64_t i, int64_t m) -> Status {
    const TensorView s = TensorView::Contiguous(scores.get(), DType::kFloat, {m, p.n, p.k});
    RETURN_IF_ERROR(Scores(Rows(q, b, h, i, m), Rows(k1, b, h, i, m), Head(k2, b, h), s));
    const TensorView mask = p.masked ? Rows(MaskOf(p, t[8]), b, h, i, m) : TensorView{};
    const int64_t first = ((b * p.heads + h) * p.m + i) * p.n;
    ParallelFor(m * p.n, std::max<int64_t>(1, 4096 / p.k), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float* row = scores.get() + r * p.k;
        ScaleRow(row, p.k, p.scale, mask, r / p.n, r % p.n);
        const float top = *std::max_element(row, row + p.k);
        const float sum = static_cast<float>(ExpAndSum(row, row, p.k, top)), share = 1 / sum;
        for (int64_t l = 0; l < p.k; ++l) row[l] *= share;
        std::fill_n(max.get() + (first + r) * kCopies, kCopies, top);
        std::fill_n(total.get() + (first + r) * kCopies, kCopies, sum);
      }
    });
    return Mix(s, Rows(v1, b, h, i, m), Head(v2, b, h),
               TensorView::Contiguous(sums.get(), DType::kFloat, {m, p.n, p.d}), Rows(out, b, h, i, m));
  }));
  StoreValues(t[5], max.get());
  StoreValues(t[6], total.get());
  return Status();
}

// In order: query and the legs, dy, max, sum, the forward's result, five gradients in the inputs' order,
// mask.
Status RunFloydGrad(const Run& t, const FloydPlan& p) {
  const TensorView &q = t[0], &k1 = t[1], &v1 = t[2], &k2 = t[3], &v2 = t[4], &dy = t[5];
  const Values<float> max(t[6]), total(t[7]), out(t[8]), upper(dy);
  const int64_t size = p.block() * p.n * p.k;
  const Scratch<float> weights(size), slopes(size), sums(p.block() * p.n * p.d);
  const Scratch<float> second_key(p.k * p.n * p.d), second_value(p.k * p.n * p.d);
  for (const Values<float>* v : {&max, &total, &out, &upper})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  for (const Scratch<float>* s : {&weights, &slopes, &sums, &second_key, &second_value})
    if (!s->ok()) return ScratchFailed(t.plan().name);
  const auto second = [&](const Scratch<float>& s) {
    return TensorView::Contiguous(s.get(), DType::kFloat, {p.k, p.n, p.d});
  };
  return ForEachBlock(p, [&](int64_t b, int64_t h, int64_t i, int64_t m) -> Status {
    if (i == 0) {
      std::fill_n(second_key.get(), p.k * p.n * p.d, 0.0f);
      std::fill_n(second_value.get(), p.k * p.n * p.d, 0.0f);
    }
    const TensorView w = TensorView::Contiguous(weights.get(), DType::kFloat, {m, p.n, p.k});
    const TensorView ds = TensorView::Contiguous(slopes.get(), DType::kFloat, {m, p.n, p.k});
    const TensorView query = Rows(q, b, h, i, m), gradient = Rows(dy, b, h, i, m);
    RETURN_IF_ERROR(Scores(query, Rows(k1, b, h, i, m), Head(k2, b, h), w));
    RETURN_IF_ERROR(Scores(gradient, Rows(v1, b, h, i, m), Head(v2, b, h), ds));
    const TensorView mask = p.masked ? Rows(MaskOf(p, t[14]), b, h, i, m) : TensorView{};
    const int64_t first = ((b * p.heads + h) * p.m + i) * p.n;
    ParallelFor(m * p.n, std::max<int64_t>(1, 4096 / p.k), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float *row = weights.get() + r * p.k, *slope = slopes.get() + r * p.k;
        ScaleRow(row, p.k, p.scale, mask, r / p.n, r % p.n);
        ExpAndSum(row, row, p.k, max[(first + r) * kCopies]);
        const float share = 1 / total[(first + r) * kCopies];
        float product = 0;
        for (int64_t l = (first + r) * p.d; l < (first + r + 1) * p.d; ++l) product += upper[l] * out[l];
        for (int64_t l = 0; l < p.k; ++l) {
          row[l] *= share;
          slope[l] = row[l] * (slope[l] - product) * p.scale;
        }
      }
    });
    RETURN_IF_ERROR(Mix(ds, Rows(k1, b, h, i, m), Head(k2, b, h),
                        TensorView::Contiguous(sums.get(), DType::kFloat, {m, p.n, p.d}),
                        Rows(t[9], b, h, i, m)));
    RETURN_IF_ERROR(Spread(ds, query, Rows(t[10], b, h, i, m), second(second_key)));
    RETURN_IF_ERROR(Spread(w, gradient, Rows(t[11], b, h, i, m), second(second_value)));
    if (i + m < p.m) return Status();
    CopyCast(Head(t[12], b, h), second(second_key));
    CopyCast(Head(t[13], b, h), second(second_value));
    return Status();
  });
}

struct Named {
  const aclTensor* tensor;
  const char* name;
};

// Shapes and types of what both directions have.
Status Check(Call& call, const Named (&legs)[5], const aclTensor* mask, FloydPlan* p) {
  const auto& [query, key1, value1, key2, value2] = legs;
  for (const Named& o : legs) RETURN_IF_ERROR(call.RequireRank(o.tensor, o.name, 5, 5));
  const TensorView& q = query.tensor->view;
  if (q.dtype != DType::kFloat && q.dtype != DType::kFloat16 && q.dtype != DType::kBFloat16)
    return call.Invalid("query has type {}, expected float, float16 or bfloat16", Name(q.dtype));
  p->batch = q.dims[0], p->heads = q.dims[1], p->m = q.dims[2], p->n = q.dims[3], p->d = q.dims[4];
  p->k = key1.tensor->view.dims[3];
  const int64_t first[] = {p->batch, p->heads, p->m, p->k, p->d};
  const int64_t second[] = {p->batch, p->heads, p->k, p->n, p->d};
  for (const Named& o : {key1, value1}) RETURN_IF_ERROR(call.RequireShape(o.tensor, o.name, first, 5));
  for (const Named& o : {key2, value2}) RETURN_IF_ERROR(call.RequireShape(o.tensor, o.name, second, 5));
  for (const Named& o : legs) RETURN_IF_ERROR(call.RequireDType(o.tensor, o.name, q.dtype));
  p->masked = mask != nullptr;
  if (mask == nullptr) return Status();
  const TensorView& v = mask->view;
  if (v.dtype != DType::kBool && v.dtype != DType::kUint8)
    return call.Invalid("attenMask has type {}, expected bool or uint8", Name(v.dtype));
  const int64_t dims[] = {p->batch, p->heads, p->m, p->n, p->k};
  TensorView wide;
  if (!BroadcastTo(v, dims, 5, &wide))
    return call.Invalid("attenMask has shape {}, which does not expand to the scores' {}", ShapeString(v),
                        ShapeString(dims, 5));
  return Status();
}

Status CheckStatistics(Call& call, const FloydPlan& p, const aclTensor* max, const aclTensor* sum) {
  const int64_t dims[] = {p.batch, p.heads, p.m, p.n, kCopies};
  for (const Named& o : {Named{max, "softmaxMax"}, Named{sum, "softmaxSum"}}) {
    RETURN_IF_ERROR(call.RequireShape(o.tensor, o.name, dims, 5));
    RETURN_IF_ERROR(call.RequireDType(o.tensor, o.name, DType::kFloat));
  }
  return Status();
}

}  // namespace

Status aclnn::FusedFloydAttention(Call& call, const aclTensor* query, const aclTensor* key1,
                                  const aclTensor* value1, const aclTensor* key2, const aclTensor* value2,
                                  const aclTensor* attenMaskOptional, double scaleValueOptional,
                                  const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
                                  const aclTensor* attentionOutOut) {
  FloydPlan p;
  p.scale = static_cast<float>(scaleValueOptional);
  RETURN_IF_ERROR(
      Check(call, {{query, "query"}, {key1, "key1"}, {value1, "value1"}, {key2, "key2"}, {value2, "value2"}},
            attenMaskOptional, &p));
  RETURN_IF_ERROR(CheckStatistics(call, p, softmaxMaxOut, softmaxSumOut));
  RETURN_IF_ERROR(call.RequireSameShape(attentionOutOut, "attentionOut", query, "query"));
  RETURN_IF_ERROR(call.RequireDType(attentionOutOut, "attentionOut", query->view.dtype));
  if (query->view.empty()) return call.Nothing();
  if (p.k == 0) return call.Invalid("key1 has shape {}: no node to look over", ShapeString(key1->view));
  std::vector<Arg> args = {In(query),  In(key1),           In(value1),         In(key2),
                           In(value2), Out(softmaxMaxOut), Out(softmaxSumOut), Out(attentionOutOut)};
  if (p.masked) args.push_back(In(attenMaskOptional));
  const double work = static_cast<double>(query->view.numel()) * static_cast<double>(p.k);
  return call.Launch(args, Cost{8 * work, 0}, [p](const Run& t) { return RunFloyd(t, p); });
}

Status aclnn::FusedFloydAttentionGrad(Call& call, const aclTensor* query, const aclTensor* key1,
                                      const aclTensor* value1, const aclTensor* key2, const aclTensor* value2,
                                      const aclTensor* dy, const aclTensor* attenMaskOptional,
                                      const aclTensor* softmaxMax, const aclTensor* softmaxSum,
                                      const aclTensor* attentionIn, double scaleValue, const aclTensor* dqOut,
                                      const aclTensor* dk1Out, const aclTensor* dv1Out,
                                      const aclTensor* dk2Out, const aclTensor* dv2Out) {
  FloydPlan p;
  p.scale = static_cast<float>(scaleValue);
  const Named legs[] = {
      {query, "query"}, {key1, "key1"}, {value1, "value1"}, {key2, "key2"}, {value2, "value2"}};
  RETURN_IF_ERROR(Check(call, legs, attenMaskOptional, &p));
  RETURN_IF_ERROR(CheckStatistics(call, p, softmaxMax, softmaxSum));
  for (const Named& o : {Named{dy, "dy"}, Named{attentionIn, "attentionIn"}}) {
    RETURN_IF_ERROR(call.RequireSameShape(o.tensor, o.name, query, "query"));
    RETURN_IF_ERROR(call.RequireDType(o.tensor, o.name, query->view.dtype));
  }
  const Named gradients[] = {
      {dqOut, "dq"}, {dk1Out, "dk1"}, {dv1Out, "dv1"}, {dk2Out, "dk2"}, {dv2Out, "dv2"}};
  std::vector<Arg> args;
  for (const Named& o : legs) args.push_back(In(o.tensor));
  for (const aclTensor* t : {dy, softmaxMax, softmaxSum, attentionIn}) args.push_back(In(t));
  for (int i = 0; i < 5; ++i) {
    RETURN_IF_ERROR(
        call.RequireSameShape(gradients[i].tensor, gradients[i].name, legs[i].tensor, legs[i].name));
    RETURN_IF_ERROR(call.RequireDType(gradients[i].tensor, gradients[i].name, query->view.dtype));
    args.push_back(Out(gradients[i].tensor));
  }
  if (p.masked) args.push_back(In(attenMaskOptional));
  if (p.batch * p.heads * p.m * p.n * p.k * p.d == 0) {
    // Nothing looked: no gradient anywhere.
    return call.Launch(args, Cost{}, [](const Run& t) {
      constexpr char kZero[8] = {};
      for (int i = 9; i < 14; ++i) Fill(t[i], kZero);
      return Status();
    });
  }
  const double work = static_cast<double>(query->view.numel()) * static_cast<double>(p.k);
  return call.Launch(args, Cost{20 * work, 0}, [p](const Run& t) { return RunFloydGrad(t, p); });
}

}  // namespace anycann
