// Legacy attention in parts, and whole: layer normalisation with three projections, scores, and their
// gradients; all products in float32. Heads are [batch, heads, length, size]; rows are [batch * length, heads
// * size].
#include <atomic>
#include <cmath>

#include "aclop_operators.h"
#include "ops/aclop/chain.h"
#include "ops/aclop/layer_norm.h"

namespace anycann::aclop {
namespace {

struct HeadShape {
  int64_t batch, heads, length, size;
};

Status ReadHeads(Call& call, const aclTensor* t, const char* name, HeadShape* s) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 4, 4));
  const int64_t* d = t->view.dims;
  *s = {d[0], d[1], d[2], d[3]};
  return Status();
}

// Dense rows as heads: a view.
Status AsHeads(Call& call, Arguments& a, const aclTensor* rows, const HeadShape& s, aclTensor** heads) {
  const TensorView& v = rows->view;
  if (!v.contiguous() || v.numel() != s.batch * s.heads * s.length * s.size)
    return call.Invalid("rows have shape {}, expected [{},{}]", ShapeString(v), s.batch * s.length,
                        s.heads * s.size);
  *heads =
      a.View(TensorView::Contiguous(v.data, v.dtype, {s.batch, s.length, s.heads, s.size}).Transpose(1, 2));
  return a.status();
}

// Heads as dense rows, in float32.
aclTensor* Rows(Arguments& a, Chain& chain, const aclTensor* heads, const HeadShape& s) {
  aclTensor* rows = chain.Temporary({s.batch * s.length, s.heads * s.size});
  if (!chain.ok()) return nullptr;
  aclTensor* view = nullptr;
  chain.Step([&](Call& c) {
    RETURN_IF_ERROR(AsHeads(c, a, rows, s, &view));
    return aclnn::InplaceCopy(c, view, heads);
  });
  return rows;
}

aclTensor* Softmax(Chain& chain, const aclTensor* x) {
  aclTensor* y = chain.Temporary(x);
  chain.Step([&](Call& c) { return aclnn::Softmax(c, x, -1, y); });
  return y;
}

aclTensor* SoftmaxGradient(Chain& chain, const aclTensor* dy, const aclTensor* y) {
  aclTensor* dx = chain.Temporary(y);
  chain.Step([&](Call& c) { return aclnn::SoftmaxBackward(c, dy, y, -1, dx); });
  return dx;
}

// What a mask with a byte for each element keeps of x; x where there is none.
aclTensor* KeptByBytes(Arguments& a, Chain& chain, aclTensor* x, aclTensor* mask, double keep) {
  if (mask == nullptr || !chain.ok()) return x;
  return chain.Each<2>({x, a.Shaped(mask, x)},
                       [keep](const double(&v)[2]) { return v[1] != 0 && keep > 0 ? v[0] / keep : 0; });
}

// The same by a mask with a bit for each.
aclTensor* KeptByBits(Chain& chain, aclTensor* x, const aclTensor* mask, double keep) {
  if (keep == 1 || !chain.ok()) return x;
  aclTensor* y = chain.Temporary(x);
  chain.Step([&](Call& c) { return aclnn::DropoutDoMask(c, x, mask, 1 - keep, y); });
  return y;
}

Status KeptPart(Arguments& a, Value otherwise, double* keep) {
  *keep = a.Real(a.Attr("keep_prob", std::move(otherwise)));
  RETURN_IF_ERROR(a.status());
  if (*keep >= 0 && *keep <= 1) return Status();
  return a.call().Invalid("keep_prob is {}, expected a value in [0,1]", *keep);
}

// x times the transposed weight, as torch's linear layers have it.
aclTensor* Linear(Chain& chain, const aclTensor* x, const aclTensor* weight, const aclTensor* bias) {
  return chain.Biased(chain.Product(chain.Float(x), chain.Transposed(chain.Float(weight))), bias);
}

void StoreSumOfRows(Arguments& a, Chain& chain, const aclTensor* rows, aclTensor* sum) {
  if (!chain.ok()) return;
  const aclIntArray* first = a.Integers(Value(std::vector<int64_t>{0}));
  aclTensor* flat = a.Flat(sum);
  chain.Step([&](Call& c) {
    return aclnn::ReduceSum(c, rows, first, false, static_cast<aclDataType>(flat->view.dtype), flat);
  });
}

}  // namespace

// x [rows, K], kernel_query, kernel_key, kernel_value, gamma, beta, and biases -> the norm of x, its
// projections as heads, mean and variance of the rows. Kernels are [K, heads * size]: not transposed.
Status AttentionLnQKV(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(6, 6));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 2, 2));
  const double epsilon = a.Number("epsilon", 1e-7);
  const bool transpose_x = a.Flag(a.Attr("trans_a", false)),
             transpose_kernel = a.Flag(a.Attr("trans_b", false));
  const int64_t rows = a.In(0)->view.dims[0];
  const aclIntArray* normalized = a.Integers(a.In(0)->view.dims[1]);
  RETURN_IF_ERROR(a.status());
  Chain chain(a);
  aclTensor *mean = chain.Temporary({rows, 1}), *rstd = chain.Temporary({rows, 1});
  chain.Step([&](Call& c) {
    return aclnn::LayerNorm(c, a.In(0), normalized, a.In(4), a.In(5), epsilon, a.Out(0), mean, rstd);
  });
  const aclTensor* norm = chain.TransposedIf(transpose_x, chain.Float(a.Out(0)));
  for (size_t i = 0; i < 3; ++i) {
    HeadShape s;
    RETURN_IF_ERROR(ReadHeads(call, a.Out(1 + i), "a projection", &s));
    const aclTensor* kernel = chain.TransposedIf(transpose_kernel, chain.Float(a.In(1 + i)));
    aclTensor *projected = chain.Biased(chain.Product(norm, kernel), a.In(6 + i)), *heads = nullptr;
    if (!chain.ok()) break;
    RETURN_IF_ERROR(AsHeads(call, a, projected, s, &heads));
    chain.Store(heads, a.Out(1 + i));
  }
  chain.Store(mean, a.Out(4));
  chain.Store(chain.Each<1>({rstd}, [](const double(&v)[1]) { return KeptVariance(v[0]); }), a.Out(5));
  return chain.Done(call);
}

// ln_dx (may be absent), query_dx, key_dw, value_dw [rows, N] and the kernels: the gradient of x.
Status AttentionQKVGradX(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(0, 1));
  for (size_t i = 1; i < 7; ++i)
    if (a.In(i) == nullptr) return call.Invalid("input {} is absent", i);
  const bool transpose_grad = a.Flag(a.Attr("trans_a", false)),
             transpose_kernel = a.Flag(a.Attr("trans_b", true));
  RETURN_IF_ERROR(a.status());
  Chain chain(a);
  aclTensor* sum = chain.Float(a.In(0));
  for (size_t i = 1; i < 4; ++i)
    sum = chain.Biased(chain.Product(chain.TransposedIf(transpose_grad, chain.Float(a.In(i))),
                                     chain.TransposedIf(transpose_kernel, chain.Float(a.In(3 + i)))),
                       sum);
  chain.Store(sum, a.Out(0));
  return chain.Done(call);
}

// x [rows, K], query_dx, key_dw, value_dw [rows, N]: the gradients of the kernels, and of the biases.
Status AttentionQKVGradW(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 6));
  const bool transpose_x = a.Flag(a.Attr("trans_a", true)), transpose_grad = a.Flag(a.Attr("trans_b", false)),
             transpose_result = a.Flag(a.Attr("trans_dw", false));
  RETURN_IF_ERROR(a.status());
  Chain chain(a);
  const aclTensor* x = chain.TransposedIf(transpose_x, chain.Float(a.In(0)));
  for (size_t i = 0; i < 3; ++i) {
    const aclTensor* grad = chain.Float(a.In(1 + i));
    const aclTensor* dw = chain.Product(x, chain.TransposedIf(transpose_grad, grad));
    chain.Store(chain.TransposedIf(transpose_result, dw), a.Out(i));
    StoreSumOfRows(a, chain, grad, a.Out(3 + i));
  }
  return chain.Done(call);
}

// query, key, value as heads, padding_mask (added to the scores), scale, drop_mask (a byte for each score) ->
// rows, and the softmax of the scores.
Status AttentionScore(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(5, 2));
  HeadShape s;
  RETURN_IF_ERROR(ReadHeads(call, a.In(0), "query", &s));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(a, 1.0, &keep));
  const bool transpose_query = a.Flag(a.Attr("query_transpose", false)),
             transpose_key = a.Flag(a.Attr("key_transpose", false)),
             transpose_score = a.Flag(a.Attr("bmm_score_transpose_a", false)),
             transpose_value = a.Flag(a.Attr("bmm_score_transpose_b", false));
  const Value axes = a.Attr("softmax_axes", std::vector<int64_t>{-1});
  RETURN_IF_ERROR(a.status());
  if (a.Integer(axes) != -1 && a.Integer(axes) != 3)
    return call.Invalid("softmax_axes is {}, expected [-1]", axes.Show());
  Chain chain(a);
  const aclTensor *query = chain.TransposedIf(transpose_query, chain.Float(a.In(0))),
                  *key = chain.TransposedIf(transpose_key, chain.Float(a.In(1)));
  const aclTensor* scores = chain.Product(query, chain.Transposed(key));
  aclTensor* softmax = Softmax(chain, chain.Each<3>({scores, a.In(4), a.In(3)},
                                                    [](const double(&v)[3]) { return v[0] * v[1] + v[2]; }));
  chain.Store(softmax, a.Out(1));
  const aclTensor* kept = KeptByBytes(a, chain, softmax, a.In(5), keep);
  const aclTensor* context = chain.Product(chain.TransposedIf(transpose_score, kept),
                                           chain.TransposedIf(transpose_value, chain.Float(a.In(2))));
  if (!chain.ok()) return chain.Done(call);
  RETURN_IF_ERROR(ReadHeads(call, context, "the context", &s));
  aclTensor* rows = nullptr;
  RETURN_IF_ERROR(AsHeads(call, a, a.Out(0), s, &rows));
  chain.Store(context, rows);
  return chain.Done(call);
}

// attention_score (the softmax), dx as heads, value, key, query as heads, scale, drop_mask -> the gradients
// of value, query and key as rows. The call names its third input "query" and its fifth "value": torch_npu
// passes them the other way round.
Status AttentionScoreGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(6, 3));
  double keep = 0;
  RETURN_IF_ERROR(KeptPart(a, 1.0, &keep));
  const bool transpose_query = a.Flag(a.Attr("query_transpose", false)),
             transpose_key = a.Flag(a.Attr("key_transpose", false)),
             transpose_value = a.Flag(a.Attr("value_transpose", false)),
             transpose_dx = a.Flag(a.Attr("dx_transpose", false));
  RETURN_IF_ERROR(a.status());
  Chain chain(a);
  aclTensor* softmax = chain.Float(a.In(0));
  const aclTensor *dx = chain.TransposedIf(transpose_dx, chain.Float(a.In(1))),
                  *value = chain.TransposedIf(transpose_value, chain.Float(a.In(2))),
                  *key = chain.TransposedIf(transpose_key, chain.Float(a.In(3))),
                  *query = chain.TransposedIf(transpose_query, chain.Float(a.In(4)));
  const aclTensor* kept = KeptByBytes(a, chain, softmax, a.In(6), keep);
  const aclTensor* dsoftmax =
      KeptByBytes(a, chain, chain.Product(dx, chain.Transposed(value)), a.In(6), keep);
  const aclTensor* dscores = chain.Each<2>({SoftmaxGradient(chain, dsoftmax, softmax), a.In(5)},
                                           [](const double(&v)[2]) { return v[0] * v[1]; });
  const aclTensor* gradients[] = {chain.Product(chain.Transposed(kept), dx), chain.Product(dscores, key),
                                  chain.Product(chain.Transposed(dscores), query)};
  if (!chain.ok()) return chain.Done(call);
  for (size_t i = 0; i < 3; ++i) {
    HeadShape s;
    RETURN_IF_ERROR(ReadHeads(call, gradients[i], "a gradient", &s));
    aclTensor* out = a.Out(i);
    if (out->view.rank != 4) RETURN_IF_ERROR(AsHeads(call, a, a.Out(i), s, &out));
    chain.Store(gradients[i], out);
  }
  return chain.Done(call);
}

namespace {

struct WholeAttention {
  HeadShape target, source;
  double keep;
};

Status ReadWhole(Arguments& a, const aclTensor* query, WholeAttention* w) {
  const int64_t heads = a.Integer(a.Attr("attn_head_num")), size = a.Integer(a.Attr("attn_dim_per_head")),
                target = a.Integer(a.Attr("tgt_len")), source = a.Integer(a.Attr("src_len"));
  RETURN_IF_ERROR(KeptPart(a, Value(), &w->keep));
  RETURN_IF_ERROR(a.call().RequireRank(query, "query", 2, 2));
  if (heads <= 0 || size <= 0 || target <= 0 || source <= 0)
    return a.call().Invalid(
        "attn_head_num is {}, attn_dim_per_head {}, tgt_len {} and src_len {}, expected positive numbers",
        heads, size, target, source);
  const int64_t batch = query->view.dims[0] / target;
  w->target = {batch, heads, target, size};
  w->source = {batch, heads, source, size};
  return Status();
}

// The mask of dropout with a bit for each score: the client's, or a new one with every call.
Status MakeMask(Call& call, Arguments& a, const WholeAttention& w, const aclTensor* given, aclTensor* mask) {
  static std::atomic<int64_t> calls{0};
  constexpr int64_t kScoresOfACall = int64_t{1} << 32;  // so that the streams of two calls don't meet
  const aclIntArray* scores = a.Integers(
      Value(std::vector<int64_t>{w.target.batch, w.target.heads, w.target.length, w.source.length}));
  RETURN_IF_ERROR(a.status());
  const int64_t skip = given == nullptr ? calls.fetch_add(1) * kScoresOfACall : 0;
  return a.Before([&](Call& c) {
    if (given == nullptr) return aclnn::DropoutGenMask(c, scores, 1 - w.keep, 0, skip, mask);
    RETURN_IF_ERROR(call.RequireDType(given, "dropout_mask_input", DType::kUint8));
    if (given->view.numel() != mask->view.numel())
      return call.Invalid("dropout_mask_input has shape {}, expected [{}]", ShapeString(given->view),
                          mask->view.numel());
    return aclnn::InplaceCopy(c, mask, a.Flat(given));
  });
}

}  // namespace

// query, key, value as rows, the weights of the three projections, attn_mask (added to the scores),
// out_proj_weight, then what there is of four biases and a mask: torch_npu leaves out the absent ones. -> y,
// dropout_mask, the scaled query, key and value as heads, the softmax of the scores, what dropout keeps of
// it, and the context as rows.
Status MultiHeadAttention(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(8, 8));
  WholeAttention w;
  RETURN_IF_ERROR(ReadWhole(a, a.In(0), &w));
  std::vector<aclTensor*> biases;
  aclTensor* mask_given = nullptr;
  for (size_t i = 8; i < a.input_count(); ++i) {
    if (a.In(i) == nullptr) continue;
    if (a.In(i)->view.dtype == DType::kUint8 || i == 12)
      mask_given = a.In(i);
    else
      biases.push_back(a.In(i));
  }
  if (!biases.empty() && biases.size() != 4)
    return call.Invalid("there are {} biases, expected none or all four: which ones they are can't be told",
                        biases.size());
  biases.resize(4, nullptr);
  if (w.keep < 1) RETURN_IF_ERROR(MakeMask(call, a, w, mask_given, a.Out(1)));
  Chain chain(a);
  if (w.keep == 1)
    chain.Step([&](Call& c) { return aclnn::InplaceFillScalar(c, a.Out(1), a.Scalar(int64_t{255})); });
  const double scale = 1 / std::sqrt(static_cast<double>(w.target.size));
  aclTensor* heads[3];
  for (size_t i = 0; i < 3; ++i) {
    aclTensor* rows = Linear(chain, a.In(i), a.In(3 + i), biases[i]);
    if (i == 0) rows = chain.Scaled(rows, scale);
    if (!chain.ok()) return chain.Done(call);
    RETURN_IF_ERROR(AsHeads(call, a, rows, i == 0 ? w.target : w.source, &heads[i]));
    chain.Store(heads[i], a.Out(2 + i));
  }
  const aclTensor* scores = chain.Product(heads[0], chain.Transposed(heads[1]));
  aclTensor* softmax =
      Softmax(chain, chain.Each<2>({scores, a.In(6)}, [](const double(&v)[2]) { return v[0] + v[1]; }));
  chain.Store(softmax, a.Out(5));
  const aclTensor* kept = KeptByBits(chain, softmax, a.Out(1), w.keep);
  chain.Store(kept, a.Out(6));
  aclTensor* context = Rows(a, chain, chain.Product(kept, heads[2]), w.target);
  chain.Store(context, a.Out(7));
  chain.Store(Linear(chain, context, a.In(7), biases[3]), a.Out(0));
  return chain.Done(call);
}

// query, key, value, the four weights, the results of the above (query_res, key_res, value_res, attn_scores,
// attn_res, context), y_grad, dropout_mask -> gradients of the weights, of query, key and value, and of the
// biases.
Status MultiHeadAttentionGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(14, 11));
  WholeAttention w;
  RETURN_IF_ERROR(ReadWhole(a, a.In(0), &w));
  const Value wanted = a.Attr("bias_grad_mask");
  RETURN_IF_ERROR(a.status());
  if (wanted.size() != 4)
    return call.Invalid("bias_grad_mask is {}, expected four truth values", wanted.Show());
  if (w.keep < 1 && a.In(14) == nullptr)
    return call.Invalid("keep_prob is {} and dropout_mask is absent", w.keep);
  const double scale = 1 / std::sqrt(static_cast<double>(w.target.size));
  Chain chain(a);
  const auto bias = [&](size_t i, const aclTensor* rows) {
    if (wanted.Integer(i) != 0) StoreSumOfRows(a, chain, rows, a.Out(7 + i));
  };
  const aclTensor *dy = chain.Float(a.In(13)), *query = chain.Float(a.In(7)), *key = chain.Float(a.In(8)),
                  *value = chain.Float(a.In(9)), *kept = chain.Float(a.In(11));
  chain.Store(chain.Product(chain.Transposed(dy), chain.Float(a.In(12))), a.Out(3));
  bias(3, dy);
  const aclTensor* dcontext_rows = chain.Product(dy, chain.Float(a.In(6)));
  if (!chain.ok()) return chain.Done(call);
  aclTensor* dcontext = nullptr;
  RETURN_IF_ERROR(AsHeads(call, a, dcontext_rows, w.target, &dcontext));
  const aclTensor* dsoftmax =
      KeptByBits(chain, chain.Product(dcontext, chain.Transposed(value)), a.In(14), w.keep);
  const aclTensor* dscores = SoftmaxGradient(chain, dsoftmax, chain.Float(a.In(10)));
  const aclTensor* gradients[] = {Rows(a, chain, chain.Scaled(chain.Product(dscores, key), scale), w.target),
                                  Rows(a, chain, chain.Product(chain.Transposed(dscores), query), w.source),
                                  Rows(a, chain, chain.Product(chain.Transposed(kept), dcontext), w.source)};
  for (size_t i = 0; i < 3; ++i) {
    chain.Store(chain.Product(chain.Transposed(gradients[i]), chain.Float(a.In(i))), a.Out(i));
    chain.Store(chain.Product(gradients[i], chain.Float(a.In(3 + i))), a.Out(4 + i));
    bias(i, gradients[i]);
  }
  return chain.Done(call);
}

}  // namespace anycann::aclop
