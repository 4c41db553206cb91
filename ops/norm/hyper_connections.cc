// Hyper-connections: n copies of the residual stream of a token, mixed into a layer's input (pre), and its
// output mixed back into them (post), with a doubly stochastic matrix (Sinkhorn). Forward and gradients.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// x: [tokens, n, d], or [B,S,n,d]; with `mixing` phi has n * n rows more: a matrix for each token.
struct Streams {
  int64_t tokens = 0, n = 0, d = 0;
  bool mixing = true;
  int64_t width() const { return n * d; }
  int64_t numbers() const { return 2 * n + (mixing ? n * n : 0); }
};

float Sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

Status ReadStreams(Call& call, const aclTensor* x, Streams* s) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 3, 4));
  const TensorView& v = x->view;
  s->n = v.dims[v.rank - 2], s->d = v.dims[v.rank - 1];
  s->tokens = v.dims[0] * (v.rank == 4 ? v.dims[1] : 1);
  if (s->n < 1 || s->n > 64 || s->d < 1)
    return call.Invalid("x has shape {}, expected 1 to 64 streams of 1 or more numbers", ShapeString(v));
  return call.RequireFloats(x, "x", s->tokens * s->width());
}

TensorView Matrix(const float* p, int64_t rows, int64_t columns) {
  return TensorView::Contiguous(const_cast<float*>(p), DType::kFloat, {rows, columns});
}

struct Pre {
  Streams s;
  float norm_eps = 0, hc_eps = 0;
  int x = -1, phi = -1, alpha = -1, bias = -1, gamma = -1;
  int in = -1, post = -1, res = -1, inverse = -1, mix = -1, pre = -1;
};

Status RunPre(const Run& t, const Pre& p) {
  const Streams& s = p.s;
  const Values<float> x(t[p.x]), alpha(t[p.alpha]), bias(t[p.bias]), gamma(t, p.gamma);
  const Scratch<float> scaled(gamma.get() != nullptr || p.gamma >= 0 ? s.tokens * s.width() : 0),
      mix(s.tokens * s.numbers()), in(s.tokens * s.d), post(s.tokens * s.n),
      res(s.mixing ? s.tokens * s.n * s.n : 0), inverse(s.tokens), pre(s.tokens * s.n);
  for (const Values<float>* v : {&x, &alpha, &bias, &gamma})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  for (const Scratch<float>* v : {&scaled, &mix, &in, &post, &res, &inverse, &pre})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  const float* rows = x.get();
  if (gamma.get() != nullptr) {
    for (int64_t i = 0; i < s.tokens * s.width(); ++i) scaled[i] = x[i] * gamma[i % s.width()];
    rows = scaled.get();
  }
  RETURN_IF_ERROR(Gemm(MakeGemm(Matrix(rows, s.tokens, s.width()), t[p.phi].Transpose(0, 1),
                                Matrix(mix.get(), s.tokens, s.numbers()), nullptr)));
  ParallelFor(s.tokens, std::max<int64_t>(1, 4096 / s.width()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float *row = x.get() + i * s.width(), *m = mix.get() + i * s.numbers();
      double squares = 0;
      for (int64_t j = 0; j < s.width(); ++j) squares += static_cast<double>(row[j]) * row[j];
      const float by =
          static_cast<float>(1 / std::sqrt(squares / static_cast<double>(s.width()) + p.norm_eps));
      inverse[i] = by;
      std::fill_n(in.get() + i * s.d, s.d, 0.0f);
      for (int64_t j = 0; j < s.n; ++j) {
        pre[i * s.n + j] = Sigmoid(m[j] * by * alpha[0] + bias[j]) + p.hc_eps;
        post[i * s.n + j] = 2 * Sigmoid(m[s.n + j] * by * alpha[1] + bias[s.n + j]);
        for (int64_t d = 0; d < s.d; ++d) in[i * s.d + d] += pre[i * s.n + j] * row[j * s.d + d];
      }
      for (int64_t j = 0; j < s.n * s.n && s.mixing; ++j)
        res[i * s.n * s.n + j] = m[2 * s.n + j] * by * alpha[2] + bias[2 * s.n + j];
    }
  });
  const std::pair<int, const float*> made[] = {{p.in, in.get()},   {p.post, post.get()},
                                               {p.res, res.get()}, {p.inverse, inverse.get()},
                                               {p.mix, mix.get()}, {p.pre, pre.get()}};
  for (const auto& [at, values] : made)
    if (at >= 0) StoreValues(t[at], values);
  return Status();
}

struct PreGradient {
  Streams s;
  float hc_eps = 0;
  int x = -1, phi = -1, alpha = -1, g_in = -1, g_post = -1, g_res = -1, inverse = -1, mix = -1, pre = -1,
      post = -1, gamma = -1, g_x_post = -1;
  int gx = -1, gphi = -1, galpha = -1, gbias = -1, ggamma = -1;
};

Status RunPreGradient(const Run& t, const PreGradient& p) {
  const Streams& s = p.s;
  const Values<float> x(t, p.x), alpha(t, p.alpha), g_in(t, p.g_in), g_post(t, p.g_post), g_res(t, p.g_res),
      inverse(t, p.inverse), mix(t, p.mix), pre(t, p.pre), post(t, p.post), gamma(t, p.gamma),
      more(t, p.g_x_post);
  const int64_t numbers = s.numbers(), width = s.width();
  const Scratch<float> g_mix(s.tokens * numbers), scaled(s.tokens * width), g_scaled(s.tokens * width),
      gx(s.tokens * width), g_inverse(s.tokens);
  const Scratch<double> galpha(3), gbias(numbers), ggamma(width);
  for (const Values<float>* v :
       {&x, &alpha, &g_in, &g_post, &g_res, &inverse, &mix, &pre, &post, &gamma, &more})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  for (const Scratch<float>* v : {&g_mix, &scaled, &g_scaled, &gx, &g_inverse})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  if (!galpha.ok() || !gbias.ok() || !ggamma.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(galpha.get(), 3, 0.0);
  std::fill_n(gbias.get(), numbers, 0.0);
  std::fill_n(ggamma.get(), width, 0.0);
  for (int64_t i = 0; i < s.tokens; ++i) {
    g_inverse[i] = 0;
    for (int64_t j = 0; j < numbers; ++j) {
      float g;
      const int part = j < s.n ? 0 : j < 2 * s.n ? 1 : 2;
      if (part == 0) {
        g = 0;
        for (int64_t d = 0; d < s.d; ++d) g += g_in[i * s.d + d] * x[i * width + j * s.d + d];
        const float y = pre[i * s.n + j] - p.hc_eps;
        g *= y * (1 - y);
      } else if (part == 1) {
        const float y = post[i * s.n + j - s.n];
        g = g_post[i * s.n + j - s.n] * y * (1 - y / 2);
      } else {
        g = g_res[i * s.n * s.n + j - 2 * s.n];
      }
      const float value = mix[i * numbers + j];
      gbias[j] += g;
      galpha[part] += static_cast<double>(g) * value * inverse[i];
      const float normed = g * alpha[part];
      g_inverse[i] += normed * value;
      g_mix[i * numbers + j] = normed * inverse[i];
    }
  }
  for (int64_t i = 0; i < s.tokens * width; ++i)
    scaled[i] = x[i] * (gamma.get() != nullptr ? gamma[i % width] : 1.0f);
  const TensorView d = Matrix(g_mix.get(), s.tokens, numbers);
  RETURN_IF_ERROR(Gemm(MakeGemm(d, t[p.phi], Matrix(g_scaled.get(), s.tokens, width), nullptr)));
  RETURN_IF_ERROR(
      Gemm(MakeGemm(d.Transpose(0, 1), Matrix(scaled.get(), s.tokens, width), t[p.gphi], nullptr)));
  for (int64_t i = 0; i < s.tokens; ++i) {
    const float cube = inverse[i] * inverse[i] * inverse[i];
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = i * width + j;
      ggamma[j] += static_cast<double>(g_scaled[at]) * x[at];
      gx[at] = g_scaled[at] * (gamma.get() != nullptr ? gamma[j] : 1.0f) +
               pre[i * s.n + j / s.d] * g_in[i * s.d + j % s.d] -
               g_inverse[i] * cube * x[at] / static_cast<float>(width) +
               (more.get() != nullptr ? more[at] : 0.0f);
    }
  }
  StoreValues(t[p.gx], gx.get());
  StoreValues(t[p.galpha], galpha.get());
  StoreValues(t[p.gbias], gbias.get());
  if (p.ggamma >= 0) StoreValues(t[p.ggamma], ggamma.get());
  return Status();
}

// Rows to a softmax, columns and rows in turn to a sum of one. kept: each step's matrix and sums, or nothing.
void Balance(const float* x, int64_t n, int64_t iterations, float eps, float* y, float* matrices,
             float* sums) {
  int64_t step = 0;
  const auto keep = [&](const float* totals) {
    if (matrices == nullptr) return;
    std::copy_n(y, n * n, matrices + step * n * n);
    std::copy_n(totals, n, sums + step * n);
    ++step;
  };
  std::vector<float> totals(static_cast<size_t>(n));
  const auto rows = [&] {
    for (int64_t r = 0; r < n; ++r) {
      totals[r] = eps;
      for (int64_t c = 0; c < n; ++c) totals[r] += y[r * n + c];
      for (int64_t c = 0; c < n; ++c) y[r * n + c] /= totals[r];
    }
    keep(totals.data());
  };
  const auto columns = [&] {
    for (int64_t c = 0; c < n; ++c) {
      totals[c] = eps;
      for (int64_t r = 0; r < n; ++r) totals[c] += y[r * n + c];
      for (int64_t r = 0; r < n; ++r) y[r * n + c] /= totals[c];
    }
    keep(totals.data());
  };
  for (int64_t r = 0; r < n; ++r) {
    const float top = *std::max_element(x + r * n, x + (r + 1) * n);
    float sum = 0;
    for (int64_t c = 0; c < n; ++c) sum += y[r * n + c] = std::exp(x[r * n + c] - top);
    for (int64_t c = 0; c < n; ++c) y[r * n + c] /= sum;
    totals[r] = sum;
  }
  keep(totals.data());
  for (int64_t i = 0; i < n * n; ++i) y[i] += eps;
  columns();
  for (int64_t i = 1; i < iterations; ++i) {
    rows();
    columns();
  }
}

// y[j] = post[j] * out + the sum over i of res[i][j] * x[i].
struct Post {
  Streams s;
  bool mixing = true;
};

Status ReadPost(Call& call, const aclTensor* x, const aclTensor* res, const aclTensor* out,
                const aclTensor* post, Post* p) {
  RETURN_IF_ERROR(ReadStreams(call, x, &p->s));
  p->mixing = res != nullptr;
  RETURN_IF_ERROR(call.RequireFloats(out, "hOut", p->s.tokens * p->s.d));
  RETURN_IF_ERROR(call.RequireFloats(post, "hPost", p->s.tokens * p->s.n));
  return res == nullptr ? Status() : call.RequireFloats(res, "hRes", p->s.tokens * p->s.n * p->s.n);
}

Cost CostOf(const Streams& s) {
  return {2.0 * static_cast<double>(s.tokens * s.width()) * static_cast<double>(s.numbers()), 0};
}

Status LaunchPost(Call& call, const aclTensor* x, const aclTensor* res, const aclTensor* out,
                  const aclTensor* post, const aclTensor* y) {
  res = Given(res);
  Post p;
  RETURN_IF_ERROR(ReadPost(call, x, res, out, post, &p));
  RETURN_IF_ERROR(call.RequireFloats(y, "out", p.s.tokens * p.s.width()));
  if (p.s.tokens == 0) return call.Nothing();
  Operands o;
  const int at_x = o.Input(x), at_out = o.Input(out), at_post = o.Input(post), at_res = o.Input(res),
            at_y = o.Output(y);
  return call.Launch(o.list(), CostOf(p.s), [=](const Run& t) -> Status {
    const Values<float> x(t[at_x]), out(t[at_out]), post(t[at_post]), res(t, at_res);
    const Scratch<float> y(t[at_y].numel());
    if (!x.ok() || !out.ok() || !post.ok() || !res.ok() || !y.ok()) return ScratchFailed(t.plan().name);
    const int64_t n = p.s.n, d = p.s.d;
    ParallelFor(p.s.tokens, std::max<int64_t>(1, 4096 / p.s.width()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < n; ++j) {
          float* __restrict to = y.get() + (i * n + j) * d;
          for (int64_t k = 0; k < d; ++k) to[k] = post[i * n + j] * out[i * d + k];
          for (int64_t from = 0; from < n; ++from) {
            const float by = res.get() != nullptr ? res[(i * n + from) * n + j] : from == j ? 1.0f : 0.0f;
            const float* v = x.get() + (i * n + from) * d;
            for (int64_t k = 0; k < d; ++k) to[k] += by * v[k];
          }
        }
    });
    StoreValues(t[at_y], y.get());
    return Status();
  });
}

}  // namespace

Status aclnn::MhcPre(Call& call, const aclTensor* x, const aclTensor* phi, const aclTensor* alpha,
                     const aclTensor* bias, const aclTensor* gammaOptional, double normEps, double hcEps,
                     aclTensor* hIn, aclTensor* hPost, aclTensor* hRes, aclTensor* invRmsOptional,
                     aclTensor* hMixOptional, aclTensor* hPreOptional) {
  Pre p;
  Streams& s = p.s;
  RETURN_IF_ERROR(ReadStreams(call, x, &s));
  RETURN_IF_ERROR(call.RequireRank(phi, "phi", 2, 2));
  s.mixing = phi->view.dims[0] != 2 * s.n;
  const int64_t dims[] = {s.numbers(), s.width()};
  RETURN_IF_ERROR(call.RequireShape(phi, "phi", dims, 2));
  RETURN_IF_ERROR(call.RequireFloats(phi, "phi", s.numbers() * s.width()));
  RETURN_IF_ERROR(call.RequireFloats(alpha, "alpha", s.mixing ? 3 : 2));
  RETURN_IF_ERROR(call.RequireFloats(bias, "bias", s.numbers()));
  const aclTensor* gamma = Given(gammaOptional);
  if (gamma != nullptr) RETURN_IF_ERROR(call.RequireFloats(gamma, "gamma", s.width()));
  const aclTensor *res = s.mixing ? hRes : nullptr, *inverse = Given(invRmsOptional),
                  *mix = Given(hMixOptional), *pre = Given(hPreOptional);
  for (const auto& [t, name, each] : {std::tuple<const aclTensor*, const char*, int64_t>{hIn, "hIn", s.d},
                                      {hPost, "hPost", s.n},
                                      {res, "hRes", s.n * s.n},
                                      {inverse, "invRms", 1},
                                      {mix, "hMix", s.numbers()},
                                      {pre, "hPre", s.n}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireFloats(t, name, s.tokens * each));
  if (s.tokens == 0) return call.Nothing();
  p.norm_eps = static_cast<float>(normEps), p.hc_eps = static_cast<float>(hcEps);
  Operands o;
  p.x = o.Input(x), p.phi = o.Input(phi), p.alpha = o.Input(alpha), p.bias = o.Input(bias);
  p.gamma = o.Input(gamma);
  p.in = o.Output(hIn), p.post = o.Output(hPost), p.res = o.Output(res), p.inverse = o.Output(inverse);
  p.mix = o.Output(mix), p.pre = o.Output(pre);
  return call.Launch(o.list(), CostOf(s), [p](const Run& t) { return RunPre(t, p); });
}

Status aclnn::MhcPreV2(Call& call, const aclTensor* x, const aclTensor* phi, const aclTensor* alpha,
                       const aclTensor* bias, const aclTensor* gammaOptional, double normEps, double hcEps,
                       int64_t, aclTensor* hIn, aclTensor* hPost, aclTensor* hRes, aclTensor* invRmsOptional,
                       aclTensor* hMixOptional, aclTensor* hPreOptional) {
  return MhcPre(call, x, phi, alpha, bias, gammaOptional, normEps, hcEps, hIn, hPost, hRes, invRmsOptional,
                hMixOptional, hPreOptional);
}

Status aclnn::MhcPreBackward(Call& call, const aclTensor* x, const aclTensor* phi, const aclTensor* alpha,
                             const aclTensor* gradHIn, const aclTensor* gradHPost, const aclTensor* gradHRes,
                             const aclTensor* invRms, const aclTensor* hMix, const aclTensor* hPre,
                             const aclTensor* hPost, const aclTensor* gamma,
                             const aclTensor* gradXPostOptional, float hcEps, const aclTensor* gradX,
                             const aclTensor* gradPhi, const aclTensor* gradAlpha, const aclTensor* gradBias,
                             const aclTensor* gradGamma) {
  PreGradient p;
  Streams& s = p.s;
  RETURN_IF_ERROR(ReadStreams(call, x, &s));
  gamma = Given(gamma);
  const aclTensor *more = Given(gradXPostOptional), *ggamma = gamma == nullptr ? nullptr : Given(gradGamma);
  const int64_t dims[] = {s.numbers(), s.width()};
  RETURN_IF_ERROR(call.RequireShape(phi, "phi", dims, 2));
  RETURN_IF_ERROR(call.RequireShape(gradPhi, "gradPhi", dims, 2));
  for (const auto& [t, name, count] :
       {std::tuple<const aclTensor*, const char*, int64_t>{phi, "phi", s.numbers() * s.width()},
        {alpha, "alpha", 3},
        {gradHIn, "gradHIn", s.tokens * s.d},
        {gradHPost, "gradHPost", s.tokens * s.n},
        {gradHRes, "gradHRes", s.tokens * s.n * s.n},
        {invRms, "invRms", s.tokens},
        {hMix, "hMix", s.tokens * s.numbers()},
        {hPre, "hPre", s.tokens * s.n},
        {hPost, "hPost", s.tokens * s.n},
        {gamma, "gamma", s.width()},
        {more, "gradXPost", s.tokens * s.width()},
        {gradX, "gradX", s.tokens * s.width()},
        {gradPhi, "gradPhi", s.numbers() * s.width()},
        {gradAlpha, "gradAlpha", 3},
        {gradBias, "gradBias", s.numbers()},
        {ggamma, "gradGamma", s.width()}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireFloats(t, name, count));
  p.hc_eps = hcEps;
  Operands o;
  p.x = o.Input(x), p.phi = o.Input(phi), p.alpha = o.Input(alpha);
  p.g_in = o.Input(gradHIn), p.g_post = o.Input(gradHPost), p.g_res = o.Input(gradHRes);
  p.inverse = o.Input(invRms), p.mix = o.Input(hMix), p.pre = o.Input(hPre), p.post = o.Input(hPost);
  p.gamma = o.Input(gamma), p.g_x_post = o.Input(more);
  p.gx = o.Output(gradX), p.gphi = o.Output(gradPhi), p.galpha = o.Output(gradAlpha);
  p.gbias = o.Output(gradBias), p.ggamma = o.Output(ggamma);
  Cost cost = CostOf(s);
  cost.flops *= 2;
  return call.Launch(o.list(), cost, [p](const Run& t) { return RunPreGradient(t, p); });
}

Status aclnn::MhcPost(Call& call, const aclTensor* x, const aclTensor* hRes, const aclTensor* hOut,
                      const aclTensor* hPost, aclTensor* out) {
  return LaunchPost(call, x, hRes, hOut, hPost, out);
}

Status aclnn::HcPost(Call& call, const aclTensor* x, const aclTensor* residual, const aclTensor* post,
                     const aclTensor* comb, const aclTensor* yOut) {
  return LaunchPost(call, residual, comb, x, post, yOut);
}

Status aclnn::MhcPostBackward(Call& call, const aclTensor* gradOutput, const aclTensor* x,
                              const aclTensor* hRes, const aclTensor* hOut, const aclTensor* hPost,
                              aclTensor* gradX, aclTensor* gradHRes, aclTensor* gradHOut,
                              aclTensor* gradHPost) {
  const aclTensor* res = Given(hRes);
  Post p;
  RETURN_IF_ERROR(ReadPost(call, x, res, hOut, hPost, &p));
  const Streams& s = p.s;
  const aclTensor* gres = res == nullptr ? nullptr : gradHRes;
  for (const auto& [t, name, each] :
       {std::tuple<const aclTensor*, const char*, int64_t>{gradOutput, "gradOutput", s.width()},
        {gradX, "gradX", s.width()},
        {gres, "gradHRes", s.n * s.n},
        {gradHOut, "gradHOut", s.d},
        {gradHPost, "gradHPost", s.n}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireFloats(t, name, s.tokens * each));
  if (s.tokens == 0) return call.Nothing();
  Operands o;
  const int at_g = o.Input(gradOutput), at_x = o.Input(x), at_res = o.Input(res), at_out = o.Input(hOut),
            at_post = o.Input(hPost), at_gx = o.Output(gradX), at_gres = o.Output(gres),
            at_gout = o.Output(gradHOut), at_gpost = o.Output(gradHPost);
  return call.Launch(o.list(), CostOf(s), [=](const Run& t) -> Status {
    const Values<float> g(t[at_g]), x(t[at_x]), out(t[at_out]), post(t[at_post]), res(t, at_res);
    const int64_t n = p.s.n, d = p.s.d, tokens = p.s.tokens;
    const Scratch<float> gx(tokens * n * d), gres(tokens * n * n), gout(tokens * d), gpost(tokens * n);
    for (const Values<float>* v : {&g, &x, &out, &post, &res})
      if (!v->ok()) return ScratchFailed(t.plan().name);
    for (const Scratch<float>* v : {&gx, &gres, &gout, &gpost})
      if (!v->ok()) return ScratchFailed(t.plan().name);
    ParallelFor(tokens, std::max<int64_t>(1, 4096 / (n * d)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::fill_n(gout.get() + i * d, d, 0.0f);
        for (int64_t j = 0; j < n; ++j) {
          const float* v = g.get() + (i * n + j) * d;
          double sum = 0;
          for (int64_t k = 0; k < d; ++k) {
            sum += static_cast<double>(v[k]) * out[i * d + k];
            gout[i * d + k] += post[i * n + j] * v[k];
          }
          gpost[i * n + j] = static_cast<float>(sum);
        }
        for (int64_t from = 0; from < n; ++from) {
          float* to = gx.get() + (i * n + from) * d;
          std::fill_n(to, d, 0.0f);
          for (int64_t j = 0; j < n; ++j) {
            const float by = res.get() != nullptr ? res[(i * n + from) * n + j] : from == j ? 1.0f : 0.0f;
            const float *v = g.get() + (i * n + j) * d, *own = x.get() + (i * n + from) * d;
            double sum = 0;
            for (int64_t k = 0; k < d; ++k) {
              to[k] += by * v[k];
              sum += static_cast<double>(v[k]) * own[k];
            }
            gres[(i * n + from) * n + j] = static_cast<float>(sum);
          }
        }
      }
    });
    StoreValues(t[at_gx], gx.get());
    if (at_gres >= 0) StoreValues(t[at_gres], gres.get());
    StoreValues(t[at_gout], gout.get());
    StoreValues(t[at_gpost], gpost.get());
    return Status();
  });
}

// x: matrices [.., n, n]. normOut and sumOut, where given, keep each step for the gradient: for each token
// 2 * numIters matrices of rows of 8 numbers, and as many rows of sums.
Status aclnn::MhcSinkhorn(Call& call, const aclTensor* x, float eps, int64_t numIters, aclTensor* output,
                          aclTensor* normOut, aclTensor* sumOut) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 3, 4));
  const TensorView& v = x->view;
  const int64_t n = v.dims[v.rank - 1], tokens = n > 0 ? v.numel() / (n * n) : 0;
  if (n < 1 || n > 8 || v.dims[v.rank - 2] != n)
    return call.Invalid("x has shape {}, expected square matrices of 1 to 8 rows", ShapeString(v));
  if (numIters < 1 || numIters > 1000) return call.Invalid("numIters is {}, expected 1 to 1000", numIters);
  RETURN_IF_ERROR(call.RequireFloats(x, "x", v.numel()));
  RETURN_IF_ERROR(call.RequireFloats(output, "output", v.numel()));
  const aclTensor *matrices = Given(normOut), *sums = matrices == nullptr ? nullptr : Given(sumOut);
  const int64_t steps = 2 * numIters;
  if (matrices != nullptr) {
    if (sums == nullptr) return call.Invalid("sumOut is absent, but normOut is given");
    RETURN_IF_ERROR(call.RequireFloats(matrices, "normOut", steps * tokens * n * 8));
    RETURN_IF_ERROR(call.RequireFloats(sums, "sumOut", steps * tokens * 8));
  }
  if (v.empty()) return call.Nothing();
  Operands o;
  const int at_x = o.Input(x), at_y = o.Output(output), at_matrices = o.Output(matrices),
            at_sums = o.Output(sums);
  return call.Launch(
      o.list(), Cost{4.0 * static_cast<double>(v.numel() * steps), 0}, [=](const Run& t) -> Status {
        const Values<float> x(t[at_x]);
        const bool keep = at_matrices >= 0;
        const Scratch<float> y(tokens * n * n), kept(keep ? tokens * steps * n * 8 : 0),
            totals(keep ? tokens * steps * 8 : 0);
        if (!x.ok() || !y.ok() || !kept.ok() || !totals.ok()) return ScratchFailed(t.plan().name);
        std::fill_n(kept.get(), keep ? tokens * steps * n * 8 : 0, 0.0f);
        std::fill_n(totals.get(), keep ? tokens * steps * 8 : 0, 0.0f);
        ParallelFor(tokens, 8, [&](int64_t begin, int64_t end) {
          std::vector<float> matrix(static_cast<size_t>(steps * n * n)), sum(static_cast<size_t>(steps * n));
          for (int64_t i = begin; i < end; ++i) {
            Balance(x.get() + i * n * n, n, numIters, eps, y.get() + i * n * n,
                    keep ? matrix.data() : nullptr, sum.data());
            for (int64_t step = 0; keep && step < steps; ++step)
              for (int64_t r = 0; r < n; ++r) {
                std::copy_n(matrix.data() + (step * n + r) * n, n,
                            kept.get() + ((step * tokens + i) * n + r) * 8);
                totals[(step * tokens + i) * 8 + r] = sum[step * n + r];
              }
          }
        });
        StoreValues(t[at_y], y.get());
        if (keep) StoreValues(t[at_matrices], kept.get());
        if (keep) StoreValues(t[at_sums], totals.get());
        return Status();
      });
}

// From the steps that MhcSinkhorn kept.
Status aclnn::MhcSinkhornBackward(Call& call, const aclTensor* gradOutput, const aclTensor* normOut,
                                  const aclTensor* sumOut, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(gradOutput, "gradOutput", 3, 4));
  const TensorView& v = gradOutput->view;
  const int64_t n = v.dims[v.rank - 1], tokens = n > 0 ? v.numel() / (n * n) : 0;
  if (n < 1 || n > 8 || v.dims[v.rank - 2] != n)
    return call.Invalid("gradOutput has shape {}, expected square matrices of 1 to 8 rows", ShapeString(v));
  RETURN_IF_ERROR(call.RequireFloats(gradOutput, "gradOutput", v.numel()));
  RETURN_IF_ERROR(call.RequireFloats(out, "out", v.numel()));
  if (v.empty()) return call.Nothing();
  const int64_t steps = normOut->view.numel() / (tokens * n * 8);
  if (steps < 2 || steps % 2 != 0)
    return call.Invalid("normOut has shape {}, expected an even number of steps of {} numbers",
                        ShapeString(normOut->view), tokens * n * 8);
  RETURN_IF_ERROR(call.RequireFloats(normOut, "normOut", steps * tokens * n * 8));
  RETURN_IF_ERROR(call.RequireFloats(sumOut, "sumOut", steps * tokens * 8));
  return call.Launch({In(gradOutput), In(normOut), In(sumOut), Out(out)},
                     Cost{6.0 * static_cast<double>(v.numel() * steps), 0}, [=](const Run& t) -> Status {
                       const Values<float> g(t[0]), matrices(t[1]), sums(t[2]);
                       const Scratch<float> y(tokens * n * n);
                       if (!g.ok() || !matrices.ok() || !sums.ok() || !y.ok())
                         return ScratchFailed(t.plan().name);
                       ParallelFor(tokens, 8, [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                           float* d = y.get() + i * n * n;
                           std::copy_n(g.get() + i * n * n, n * n, d);
                           for (int64_t step = steps - 1; step >= 0; --step) {
                             const float* m = matrices.get() + (step * tokens + i) * n * 8;
                             const float* total = sums.get() + (step * tokens + i) * 8;
                             const bool columns = step % 2 == 1;  // the last step and every second before it
                             for (int64_t line = 0; line < n; ++line) {
                               float dot = 0;
                               for (int64_t k = 0; k < n; ++k)
                                 dot += columns ? d[k * n + line] * m[k * 8 + line]
                                                : d[line * n + k] * m[line * 8 + k];
                               for (int64_t k = 0; k < n; ++k) {
                                 float& value = columns ? d[k * n + line] : d[line * n + k];
                                 if (step > 0)
                                   value = (value - dot) / total[line];
                                 else
                                   value = m[line * 8 + k] * (value - dot);
                               }
                             }
                           }
                         }
                       });
                       StoreValues(t[3], y.get());
                       return Status();
                     });
}

// The streams' sum, and their mixing matrix through Sinkhorn.
Status aclnn::HcPre(Call& call, const aclTensor* x, const aclTensor* hcFn, const aclTensor* hcScale,
                    const aclTensor* hcBase, int64_t hcMult, int64_t hcSinkhornIters, double hcEps,
                    double normEps, const aclTensor* yOut, const aclTensor* postOut,
                    const aclTensor* combFragOut) {
  Pre p;
  Streams& s = p.s;
  RETURN_IF_ERROR(ReadStreams(call, x, &s));
  if (hcMult != s.n)
    return call.Invalid("hcMult is {}, x {} has {} streams", hcMult, ShapeString(x->view), s.n);
  if (hcSinkhornIters < 1 || hcSinkhornIters > 1000)
    return call.Invalid("hcSinkhornIters is {}, expected 1 to 1000", hcSinkhornIters);
  const int64_t dims[] = {s.numbers(), s.width()};
  RETURN_IF_ERROR(call.RequireShape(hcFn, "hcFn", dims, 2));
  for (const auto& [t, name, count] :
       {std::tuple{hcFn, "hcFn", s.numbers() * s.width()}, std::tuple{hcScale, "hcScale", int64_t{3}},
        std::tuple{hcBase, "hcBase", s.numbers()}, std::tuple{yOut, "y", s.tokens * s.d},
        std::tuple{postOut, "post", s.tokens * s.n},
        std::tuple{combFragOut, "combFrag", s.tokens * s.n * s.n}})
    RETURN_IF_ERROR(call.RequireFloats(t, name, count));
  if (s.tokens == 0) return call.Nothing();
  p.norm_eps = static_cast<float>(normEps), p.hc_eps = static_cast<float>(hcEps);
  Operands o;
  p.x = o.Input(x), p.phi = o.Input(hcFn), p.alpha = o.Input(hcScale), p.bias = o.Input(hcBase);
  p.in = o.Output(yOut), p.post = o.Output(postOut), p.res = o.Output(combFragOut);
  return call.Launch(o.list(), CostOf(s), [p, hcSinkhornIters](const Run& t) -> Status {
    RETURN_IF_ERROR(RunPre(t, p));
    const int64_t n = p.s.n;
    const Values<float> mixed(t[p.res]);
    const Scratch<float> y(p.s.tokens * n * n);
    if (!mixed.ok() || !y.ok()) return ScratchFailed(t.plan().name);
    for (int64_t i = 0; i < p.s.tokens; ++i)
      Balance(mixed.get() + i * n * n, n, hcSinkhornIters, p.hc_eps, y.get() + i * n * n, nullptr, nullptr);
    StoreValues(t[p.res], y.get());
    return Status();
  });
}

}  // namespace anycann
