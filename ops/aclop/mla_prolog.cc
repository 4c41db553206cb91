// MlaProlog: what multi-head latent attention computes before its scores: the query through two low-rank
// projections, with its rotary part, and the row of the caches that each token gets. As torch_npu documents
// npu_mla_prolog.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "ops/aclop/chain.h"

namespace anycann::aclop {
namespace {

struct Sizes {
  int64_t tokens, heads, low_rank_query, plain, rotary, low_rank_key;  // T, N, Hcq, D, Dr, Hckv
};

// What the input must hold: its dimensions or, of tokens, their product.
Status RequireElements(Call& call, const aclTensor* t, const char* name, int64_t elements) {
  if (t->view.numel() == elements) return Status();
  return call.Invalid("{} has shape {}, expected {} elements", name, ShapeString(t->view), elements);
}

Status ReadSizes(Call& call, Arguments& a, Sizes* s) {
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "token_x", 2, 3));
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "weight_dq", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(a.In(3), "weight_uk", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(a.In(4), "weight_dkv_kr", 2, 2));
  const TensorView &x = a.In(0)->view, &uk = a.In(3)->view;
  const int64_t hidden = a.In(1)->view.dims[0];
  s->heads = uk.dims[0], s->plain = uk.dims[1], s->low_rank_key = uk.dims[2];
  s->low_rank_query = a.In(1)->view.dims[1];
  s->rotary = a.In(4)->view.dims[1] - s->low_rank_key;
  s->tokens = x.numel() / std::max<int64_t>(x.dims[x.rank - 1], 1);
  if (hidden <= 0 || x.dims[x.rank - 1] != hidden || s->rotary < 0 || s->rotary % 2 != 0 || s->heads == 0)
    return call.Invalid(
        "token_x has shape {}, weight_dq {}, weight_uk {} and weight_dkv_kr {}: they don't fit together",
        ShapeString(x), ShapeString(a.In(1)->view), ShapeString(uk), ShapeString(a.In(4)->view));
  const int64_t uq_qr[] = {s->low_rank_query, s->heads * (s->plain + s->rotary)},
                dkv_kr[] = {hidden, s->low_rank_key + s->rotary};
  RETURN_IF_ERROR(call.RequireShape(a.In(2), "weight_uq_qr", uq_qr, 2));
  RETURN_IF_ERROR(call.RequireShape(a.In(4), "weight_dkv_kr", dkv_kr, 2));
  RETURN_IF_ERROR(RequireElements(call, a.In(5), "rmsnorm_gamma_cq", s->low_rank_query));
  RETURN_IF_ERROR(RequireElements(call, a.In(6), "rmsnorm_gamma_ckv", s->low_rank_key));
  RETURN_IF_ERROR(RequireElements(call, a.In(7), "rope_sin", s->tokens * s->rotary));
  RETURN_IF_ERROR(RequireElements(call, a.In(8), "rope_cos", s->tokens * s->rotary));
  RETURN_IF_ERROR(RequireElements(call, a.In(9), "cache_index", s->tokens));
  RETURN_IF_ERROR(RequireElements(call, a.Out(0), "query", s->tokens * s->heads * s->low_rank_key));
  return RequireElements(call, a.Out(1), "query_rope", s->tokens * s->heads * s->rotary);
}

// x / sqrt(mean(x^2) + epsilon) * gamma for each row.
aclTensor* RmsNorm(Chain& chain, const aclTensor* x, const aclTensor* gamma, double epsilon) {
  aclTensor* y = chain.Temporary(x);
  chain.Step([&](Call& c) {
    return c.Launch({In(x), In(gamma), Out(y)}, Cost{4.0 * static_cast<double>(x->view.numel()), 0},
                    [epsilon](const Run& t) -> Status {
                      const Dense in(t[0], DType::kDouble, Dense::kRead),
                          scale(t[1], DType::kDouble, Dense::kRead);
                      Dense out(t[2], DType::kDouble, Dense::kWrite);
                      const int64_t n = t[0].dims[1];
                      for (int64_t row = 0; row < t[0].dims[0]; ++row) {
                        const double* v = in.ptr<double>() + row * n;
                        double squares = 0;
                        for (int64_t i = 0; i < n; ++i) squares += v[i] * v[i];
                        const double root = std::sqrt(squares / static_cast<double>(n) + epsilon);
                        for (int64_t i = 0; i < n; ++i)
                          out.ptr<double>()[row * n + i] = v[i] / root * scale.ptr<double>()[i];
                      }
                      out.Commit();
                      return Status();
                    });
  });
  return y;
}

// Pairs (2j, 2j + 1) turned by the angles of their token, as halves of the result. x: [T, N, Dr].
aclTensor* Rotary(Chain& chain, const aclTensor* x, const aclTensor* sin, const aclTensor* cos) {
  aclTensor* y = chain.Temporary(x);
  chain.Step([&](Call& c) {
    return c.Launch({In(x), In(sin), In(cos), Out(y)}, Cost{6.0 * static_cast<double>(x->view.numel()), 0},
                    [](const Run& t) -> Status {
                      const Dense in(t[0], DType::kDouble, Dense::kRead),
                          sin(t[1], DType::kDouble, Dense::kRead), cos(t[2], DType::kDouble, Dense::kRead);
                      Dense out(t[3], DType::kDouble, Dense::kWrite);
                      const int64_t heads = t[0].dims[1], n = t[0].dims[2], half = n / 2;
                      for (int64_t row = 0; row < t[0].dims[0] * heads; ++row) {
                        const double *v = in.ptr<double>() + row * n,
                                     *s = sin.ptr<double>() + row / heads * n,
                                     *k = cos.ptr<double>() + row / heads * n;
                        double* y = out.ptr<double>() + row * n;
                        for (int64_t j = 0; j < half; ++j) {
                          y[j] = v[2 * j] * k[j] - v[2 * j + 1] * s[j];
                          y[half + j] = v[2 * j + 1] * k[half + j] + v[2 * j] * s[half + j];
                        }
                      }
                      out.Commit();
                      return Status();
                    });
  });
  return y;
}

// Rows quantised to 8 bits by their own largest value: the levels, and the scale of each row.
struct Quantised {
  aclTensor *levels, *scales;
};
Quantised QuantiseRows(Chain& chain, const aclTensor* x, const aclTensor* smooth) {
  const int64_t rows = chain.ok() ? x->view.dims[0] : 0;
  Quantised q{chain.Temporary(x), chain.Temporary({rows, 1})};
  const bool smoothed = smooth != nullptr;
  chain.Step([&](Call& c) {
    return c.Launch(
        {In(x), In(smoothed ? smooth : x), Out(q.levels), Out(q.scales)},
        Cost{4.0 * static_cast<double>(x->view.numel()), 0}, [smoothed](const Run& t) -> Status {
          const Dense in(t[0], DType::kDouble, Dense::kRead), smooth(t[1], DType::kDouble, Dense::kRead);
          Dense levels(t[2], DType::kDouble, Dense::kWrite), scales(t[3], DType::kDouble, Dense::kWrite);
          const int64_t n = t[0].dims[1];
          for (int64_t row = 0; row < t[0].dims[0]; ++row) {
            double *y = levels.ptr<double>() + row * n, largest = 0;
            for (int64_t i = 0; i < n; ++i) {
              y[i] = in.ptr<double>()[row * n + i] * (smoothed ? smooth.ptr<double>()[i] : 1);
              largest = std::max(largest, std::abs(y[i]));
            }
            const double scale = largest / 127;
            scales.ptr<double>()[row] = scale;
            for (int64_t i = 0; i < n; ++i) y[i] = scale > 0 ? std::nearbyint(y[i] / scale) : 0;
          }
          levels.Commit();
          scales.Commit();
          return Status();
        });
  });
  return q;
}

// Writes each token's row into the cache of [blocks, block size, 1, width], whose blocks hold rows (PA_BSND)
// or stripes of 32 bytes (PA_NZ); with a scale, as levels of 8 bits. A negative index leaves the token out.
Status StoreInCache(Call& call, Chain& chain, const aclTensor* rows, const aclTensor* index, aclTensor* cache,
                    const aclTensor* scale, bool stripes) {
  RETURN_IF_ERROR(call.RequireRank(cache, "a cache", 4, 4));
  const int64_t width = rows->view.dims[1], block = cache->view.dims[1], slots = cache->view.dims[0] * block;
  const int64_t stripe = 32 / SizeOf(cache->view.dtype);
  const bool quantised = cache->view.dtype == DType::kInt8;
  if (cache->view.dims[2] != 1 || cache->view.dims[3] != width || (stripes && width % stripe != 0))
    return call.Invalid("a cache has shape {}, expected [blocks,block size,1,{}]", ShapeString(cache->view),
                        width);
  if (quantised != (scale != nullptr))
    return call.Invalid("a cache is {}, and its quantisation scale {}", Describe(cache),
                        scale == nullptr ? "absent" : "given");
  if (scale != nullptr && scale->view.numel() != width && scale->view.numel() != 1)
    return call.Invalid("a quantisation scale has shape {}, expected [1,{}]", ShapeString(scale->view),
                        width);
  if (cache->view.empty()) return Status();
  chain.Step([&](Call& c) {
    return c.Launch(
        {In(rows), In(index), In(quantised ? scale : rows), Out(cache)},
        Cost{2.0 * static_cast<double>(rows->view.numel()), 0}, [=](const Run& t) -> Status {
          const Dense in(t[0], DType::kDouble, Dense::kRead), to(t[1], DType::kInt64, Dense::kRead),
              by(t[2], DType::kDouble, Dense::kRead);
          Dense out(t[3], DType::kDouble, Dense::kUpdate);
          for (int64_t token = 0; token < t[0].dims[0]; ++token) {
            const int64_t slot = to.ptr<int64_t>()[token];
            if (slot < 0) continue;
            if (slot >= slots)
              return Error(kParamInvalid, "MlaProlog: cache_index is {}, expected a value below {}", slot,
                           slots);
            for (int64_t i = 0; i < width; ++i) {
              double v = in.ptr<double>()[token * width + i];
              if (quantised)
                v = std::clamp(std::nearbyint(v * by.ptr<double>()[by.view().numel() == 1 ? 0 : i]), -128.0,
                               127.0);
              const int64_t at = stripes ? (i / stripe * block + slot % block) * stripe + i % stripe
                                         : slot % block * width + i;
              out.ptr<double>()[slot / block * block * width + at] = v;
            }
          }
          out.Commit();
          return Status();
        });
  });
  return Status();
}

}  // namespace

// token_x, weight_dq, weight_uq_qr, weight_uk, weight_dkv_kr, rmsnorm_gamma_cq, rmsnorm_gamma_ckv, rope_sin,
// rope_cos, cache_index, kv_cache, kr_cache; dequant_scale_x, _w_dq, _w_uq_qr, _w_dkv_kr, quant_scale_ckv,
// quant_scale_ckr, smooth_scales_cq -> query, query_rope, and the caches, which are updated where they are
// too.
Status MlaProlog(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(12, 4));
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, a, &s));
  const double epsilon_query = a.Number("rmsnorm_epsilon_cq", 1e-5),
               epsilon_key = a.Number("rmsnorm_epsilon_ckv", 1e-5);
  const bool stripes = a.Flag(a.Index(a.Attr("cache_mode", "PA_BSND"), {"PA_BSND", "PA_NZ"}));
  RETURN_IF_ERROR(a.status());
  for (size_t i : {12, 13, 15})
    if (a.In(i) != nullptr) return call.Invalid("input {} is given, but the interface keeps it for later", i);
  const bool quantised = a.In(2)->view.dtype == DType::kInt8;
  if (quantised != (a.In(14) != nullptr) || (!quantised && a.In(18) != nullptr))
    return call.Invalid("weight_uq_qr is {}, dequant_scale_w_uq_qr {} and smooth_scales_cq {}",
                        Describe(a.In(2)), a.In(14) == nullptr ? "absent" : "given",
                        a.In(18) == nullptr ? "absent" : "given");
  if (quantised)
    RETURN_IF_ERROR(RequireElements(call, a.In(14), "dequant_scale_w_uq_qr", a.In(2)->view.dims[1]));
  if (a.In(18) != nullptr)
    RETURN_IF_ERROR(RequireElements(call, a.In(18), "smooth_scales_cq", s.low_rank_query));
  const auto view = [&](const aclTensor* t, std::initializer_list<int64_t> dims) {
    return a.View(TensorView::Contiguous(t->view.data, t->view.dtype, dims));
  };
  Chain chain(a);
  if (s.tokens > 0) {
    const aclTensor* x = chain.Float(view(a.In(0), {s.tokens, a.In(1)->view.dims[0]}));
    const aclTensor* norm = RmsNorm(chain, chain.Product(x, chain.Float(a.In(1))), a.In(5), epsilon_query);
    aclTensor* both = nullptr;  // the plain and the rotary part of every head
    if (quantised) {
      const Quantised q = QuantiseRows(chain, norm, a.In(18));
      both = chain.Each<3>({chain.Product(q.levels, chain.Float(a.In(2))), q.scales, a.In(14)},
                           [](const double(&v)[3]) { return v[0] * v[1] * v[2]; });
    } else {
      both = chain.Product(norm, chain.Float(a.In(2)));
    }
    if (!chain.ok()) return chain.Done(call);
    const TensorView heads =
        TensorView::Contiguous(both->view.data, both->view.dtype, {s.tokens, s.heads, s.plain + s.rotary});
    const aclTensor* plain = a.View(heads.Narrow(2, 0, s.plain).Transpose(0, 1));
    aclTensor* query = chain.Product(plain, chain.Float(a.In(3)));
    if (!chain.ok()) return chain.Done(call);
    chain.Store(a.View(query->view.Transpose(0, 1)), view(a.Out(0), {s.tokens, s.heads, s.low_rank_key}));
    chain.Store(Rotary(chain, a.View(heads.Narrow(2, s.plain, s.rotary)), a.In(7), a.In(8)),
                view(a.Out(1), {s.tokens, s.heads, s.rotary}));
    const aclTensor* low = chain.Product(x, chain.Float(a.In(4)));
    if (!chain.ok()) return chain.Done(call);
    const aclTensor *key =
                        RmsNorm(chain, a.View(low->view.Narrow(1, 0, s.low_rank_key)), a.In(6), epsilon_key),
                    *turned =
                        Rotary(chain, a.View(low->view.Narrow(1, s.low_rank_key, s.rotary).Unsqueeze(1)),
                               a.In(7), a.In(8));
    if (!chain.ok()) return chain.Done(call);
    RETURN_IF_ERROR(StoreInCache(call, chain, key, a.In(9), a.In(10), a.In(16), stripes));
    RETURN_IF_ERROR(
        StoreInCache(call, chain, view(turned, {s.tokens, s.rotary}), a.In(9), a.In(11), a.In(17), stripes));
  }
  for (size_t i = 0; i < 2 && chain.ok(); ++i) a.Updated(a.Out(2 + i), a.In(10 + i));
  return chain.Done(call);
}

}  // namespace anycann::aclop
