// The feed-forward network of a layer, or of each expert: activation(x @ weight1 + bias1) @ weight2 + bias2,
// in floats, with quantised weights, or in 8 bits throughout.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string_view>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/quant_param.h"
#include "ops/quant/rounded.h"
#include "ops/quant/scaled_product.h"

namespace anycann {
namespace {

enum class Activation { kFastGelu, kGelu, kRelu, kSilu, kGeGlu, kSwiGlu, kReGlu };

bool IsGated(Activation a) { return a >= Activation::kGeGlu; }

float Activate(Activation a, float x) {
  switch (a) {
    case Activation::kFastGelu: return x / (1 + std::exp(-1.702f * x));
    case Activation::kGelu:
    case Activation::kGeGlu: return 0.5f * x * (1 + std::erf(x * 0.70710678f));
    case Activation::kRelu:
    case Activation::kReGlu: return std::max(x, 0.0f);
    default: return x / (1 + std::exp(-x));
  }
}

// One product: weight [K,N] or [experts,K,N] with what belongs to it.
struct Layer {
  IntegerMatrix matrix;
  int weight = -1, bias = -1, scale = -1, antiquant_scale = -1, antiquant_offset = -1;
  int64_t k = 0, n = 0;
};

struct Ffn {
  Layer first, second;
  Activation activation = Activation::kRelu;
  bool levels = false, ends = false;  // 8 bits throughout; tokens as ends of rows
  int64_t rows = 0, experts = 1;
  bool grouped = false;
  std::vector<int64_t> tokens;  // of a list on the host
  int x = -1, scale = -1, offset = -1, counts = -1, y = -1;
};

// x [rows,K] -> y [rows,N] of floats.
Status Multiply(const Run& t, const Ffn& f, const Layer& l, int64_t expert, const TensorView& x,
                const TensorView& y) {
  const char* op = t.plan().name;
  Buffer<int8_t> memory;
  TensorView all;
  RETURN_IF_ERROR(ResolveWeight(op, l.matrix, t[l.weight], &memory, &all));
  const TensorView w = all.rank == 3 ? all.Select(0, expert) : all;
  const TensorView bias = l.bias < 0 ? TensorView() : f.grouped ? t[l.bias].Select(0, expert) : t[l.bias];
  if (x.dtype == DType::kInt8) {
    const QuantScales scale(f.grouped ? t[l.scale].Select(0, expert) : t[l.scale]);
    if (!scale.ok()) return ScratchFailed(op);
    ProductScales s;
    s.column = scale.get();
    s.per_column = true;
    s.bias = l.bias >= 0 ? &bias : nullptr;
    return RunScaledProduct(op, x, w, y, s);
  }
  if (IsFloating(w.dtype)) return Gemm(MakeGemm(x, w, y, l.bias >= 0 ? &bias : nullptr));
  const Scratch<float> plain(l.k * l.n);
  const auto vector = [&](int i) {
    return i < 0 ? Values<float>() : Values<float>(f.grouped ? t[i].Select(0, expert) : t[i]);
  };
  const Values<float> scale = vector(l.antiquant_scale), offset = vector(l.antiquant_offset);
  if (!plain.ok() || !scale.ok() || !offset.ok()) return ScratchFailed(op);
  const DType kept = t[l.antiquant_scale].dtype;
  const TensorView floats = TensorView::Contiguous(plain.get(), DType::kFloat, {l.k, l.n});
  CopyCast(floats, w);
  ParallelFor(l.k, std::max<int64_t>(1, 65536 / (l.n + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * l.n; i < end * l.n; ++i)
      plain[i] = Rounded(kept, Rounded(kept, plain[i] + (offset.get() != nullptr ? offset[i % l.n] : 0.0f)) *
                                   scale[i % l.n]);
  });
  return Gemm(MakeGemm(x, floats, y, l.bias >= 0 ? &bias : nullptr));
}

Status RunRows(const Run& t, const Ffn& f, int64_t expert, int64_t begin, int64_t end, const TensorView& x,
               const TensorView& y) {
  const int64_t rows = end - begin, k = f.second.k;
  if (rows == 0) return Status();
  const Scratch<float> middle(rows * f.first.n), activated(rows * k);
  const Scratch<int8_t> levels(f.levels ? rows * k : 0);
  if (!middle.ok() || !activated.ok() || !levels.ok()) return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(Multiply(t, f, f.first, expert, x.Narrow(0, begin, rows),
                           TensorView::Contiguous(middle.get(), DType::kFloat, {rows, f.first.n})));
  const auto vector = [&](int i) {
    if (i < 0) return Values<float>();
    return Values<float>(f.grouped ? t[i].Select(0, expert) : t[i]);
  };
  const Values<float> scale = vector(f.scale), offset = vector(f.offset);
  if (!scale.ok() || !offset.ok()) return ScratchFailed(t.plan().name);
  const DType kept = f.levels ? t[f.y].dtype : DType::kFloat;
  const bool per_column = f.scale >= 0 && t[f.scale].numel() != f.experts;
  ParallelFor(rows, std::max<int64_t>(1, 4096 / (k + 1)), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      for (int64_t i = 0; i < k; ++i) {
        const float* row = middle.get() + r * f.first.n;
        const bool gated = IsGated(f.activation);  // as Ascend C's units: first half * activation(second)
        float v = Rounded(kept, Activate(f.activation, Rounded(kept, row[gated ? k + i : i])));
        if (gated) v *= row[i];
        if (f.levels) {
          v = Rounded(kept, v * Rounded(kept, scale[per_column ? i : 0]));
          if (offset.get() != nullptr) v = Rounded(kept, v + Rounded(kept, offset[0]));
          levels[r * k + i] = static_cast<int8_t>(std::clamp(std::nearbyint(v), -128.0f, 127.0f));
        } else {
          activated[r * k + i] = v;
        }
      }
  });
  const TensorView right = f.levels ? TensorView::Contiguous(levels.get(), DType::kInt8, {rows, k})
                                    : TensorView::Contiguous(activated.get(), DType::kFloat, {rows, k});
  return Multiply(t, f, f.second, expert, right, y.Narrow(0, begin, rows));
}

Status RunFfn(const Run& t, const Ffn& f) {
  const DenseInput in(t[f.x]);
  const DenseOutput out(t[f.y]);
  if (!in.ok() || !out.ok()) return ScratchFailed(t.plan().name);
  const TensorView x = TensorView::Contiguous(in.view().data, in.view().dtype, {f.rows, f.first.k});
  const TensorView y = TensorView::Contiguous(out.view().data, out.view().dtype, {f.rows, f.second.n});
  std::vector<int64_t> tokens = f.tokens;
  if (f.counts >= 0) {
    const Values<int64_t> v(t[f.counts]);
    if (!v.ok()) return ScratchFailed(t.plan().name);
    tokens.assign(v.get(), v.get() + t[f.counts].numel());
  }
  if (!f.grouped) tokens = {f.rows};
  int64_t begin = 0;
  for (size_t e = 0; e < tokens.size(); ++e) {
    const int64_t n = f.grouped && f.ends ? tokens[e] - begin : tokens[e];
    if (n < 0 || n > f.rows - begin)
      return Error(kParamInvalid, "{}: expertTokens has {} for expert {}, after {} of {} rows", t.plan().name,
                   tokens[e], e, begin, f.rows);
    RETURN_IF_ERROR(RunRows(t, f, static_cast<int64_t>(e), begin, begin + n, x, y));
    begin += n;
  }
  if (begin < f.rows)
    return Error(kParamInvalid, "{}: expertTokens names {} of the {} rows of x", t.plan().name, begin,
                 f.rows);
  out.Finish();
  return Status();
}

struct LayerTensors {
  const aclTensor *weight, *bias, *scale, *antiquant_scale, *antiquant_offset;
  const char* number;
};

Status RequireVector(Call& call, const aclTensor* t, const std::string& name, const Ffn& f, int64_t n) {
  const int64_t dims[] = {f.experts, n};
  return f.grouped ? call.RequireShape(t, name.c_str(), dims, 2)
                   : call.RequireShape(t, name.c_str(), dims + 1, 1);
}

Status ReadLayer(Call& call, const LayerTensors& x, const Ffn& f, Operands* o, Layer* l) {
  const auto name = [&](const char* part) { return std::string(part) + x.number; };
  const int rank = f.grouped ? 3 : 2;
  RETURN_IF_ERROR(call.RequireRank(x.weight, name("weight").c_str(), rank, rank));
  if (f.grouped && x.weight->view.dims[0] != f.experts)
    return call.Invalid("{} has shape {}, expected {} experts", name("weight"), ShapeString(x.weight->view),
                        f.experts);
  Arg arg = In(x.weight);
  RETURN_IF_ERROR(ReadWeight(call, x.weight, name("weight").c_str(), false, &l->matrix, &arg));
  l->k = l->matrix.rows(), l->n = l->matrix.columns();
  const bool floats = IsFloating(x.weight->view.dtype);
  if ((f.levels && floats) || (!f.levels && !floats) != (x.antiquant_scale != nullptr) ||
      f.levels != (x.scale != nullptr))
    return call.Invalid(
        "{} is {}, {} {} and {} {}: x of int8 goes with int8 weights and a deqScale, floats with "
        "floats, or with integers and an antiquantScale",
        name("weight"), Describe(x.weight), name("deqScale"), x.scale == nullptr ? "absent" : "given",
        name("antiquantScale"), x.antiquant_scale == nullptr ? "absent" : "given");
  if (x.antiquant_offset != nullptr && x.antiquant_scale == nullptr)
    return call.Invalid("{} is given without {}", name("antiquantOffset"), name("antiquantScale"));
  for (const auto& [t, part] :
       {std::pair{x.bias, "bias"}, std::pair{x.scale, "deqScale"},
        std::pair{x.antiquant_scale, "antiquantScale"}, std::pair{x.antiquant_offset, "antiquantOffset"}})
    if (t != nullptr) RETURN_IF_ERROR(RequireVector(call, t, name(part), f, l->n));
  for (const auto& [t, part] :
       {std::pair{x.antiquant_scale, "antiquantScale"}, std::pair{x.antiquant_offset, "antiquantOffset"}})
    if (t != nullptr && !IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a floating type", name(part), Name(t->view.dtype));
  if (x.scale != nullptr && !IsQuantParam(x.scale->view.dtype) && !IsFloating(x.scale->view.dtype))
    return call.Invalid("{} has type {}, expected int64 or a floating type", name("deqScale"),
                        Name(x.scale->view.dtype));
  if (x.bias != nullptr && !IsFloating(x.bias->view.dtype) &&
      !(f.levels && x.bias->view.dtype == DType::kInt32))
    return call.Invalid("{} has type {}, expected a floating type{}", name("bias"), Name(x.bias->view.dtype),
                        f.levels ? " or int32" : "");
  l->weight = o->Input(arg), l->bias = o->Input(x.bias), l->scale = o->Input(x.scale);
  l->antiquant_scale = o->Input(x.antiquant_scale), l->antiquant_offset = o->Input(x.antiquant_offset);
  return Status();
}

Status ReadActivation(Call& call, const char* text, Activation* a) {
  static constexpr std::string_view kNames[] = {"fastgelu", "gelu",   "relu", "silu",
                                                "geglu",    "swiglu", "reglu"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (text != nullptr && kNames[i] == text) return *a = static_cast<Activation>(i), Status();
  return call.Invalid("activation is {}, expected fastgelu, gelu, relu, silu, geglu, swiglu or reglu",
                      text == nullptr ? "null" : text);
}

Status LaunchFfn(Call& call, const aclTensor* x, LayerTensors first, LayerTensors second,
                 const aclTensor* scale, const aclTensor* offset, const char* activation, const aclTensor* y,
                 Ffn f, const aclTensor* counts) {
  for (LayerTensors* l : {&first, &second})
    for (const aclTensor** t : {&l->bias, &l->scale, &l->antiquant_scale, &l->antiquant_offset})
      *t = Given(*t);
  scale = Given(scale), offset = Given(offset);
  RETURN_IF_ERROR(ReadActivation(call, activation, &f.activation));
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, kMaxRank));
  f.levels = x->view.dtype == DType::kInt8;
  if (!f.levels && !IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected int8 or a floating type", Name(x->view.dtype));
  Operands o;
  f.x = o.Input(x), f.counts = o.Input(counts);
  RETURN_IF_ERROR(ReadLayer(call, first, f, &o, &f.first));
  RETURN_IF_ERROR(ReadLayer(call, second, f, &o, &f.second));
  const TensorView& v = x->view;
  const int64_t middle = f.first.n / (IsGated(f.activation) ? 2 : 1);
  if (v.dims[v.rank - 1] != f.first.k || f.second.k != middle ||
      (IsGated(f.activation) && f.first.n % 2 != 0) || f.first.k < 1)
    return call.Invalid("x has shape {}, weight1 {} and weight2 {}: they don't fit together with {}",
                        ShapeString(v), ShapeString(first.weight->view), ShapeString(second.weight->view),
                        activation);
  f.rows = v.numel() / f.first.k;
  int64_t dims[kMaxRank];
  std::copy_n(v.dims, v.rank, dims);
  dims[v.rank - 1] = f.second.n;
  RETURN_IF_ERROR(call.RequireShape(y, "y", dims, v.rank));
  RETURN_IF_ERROR(call.RequireFloating(y, "y"));
  if (f.levels != (scale != nullptr))
    return call.Invalid("x is {} and scale {}: int8 goes with a scale", Describe(x),
                        scale == nullptr ? "absent" : "given");
  for (const auto& [t, name] : {std::pair{scale, "scale"}, std::pair{offset, "offset"}}) {
    if (t == nullptr) continue;
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected float32", name, Name(t->view.dtype));
    if (t->view.rank < 1 || (f.grouped && t->view.dims[0] != f.experts) ||
        (t->view.numel() != f.experts && (t == offset || t->view.numel() != f.experts * f.second.k)))
      return call.Invalid("{} has shape {}, expected one for each of {} experts{}", name,
                          ShapeString(t->view), f.experts, t == scale ? ", or for each column too" : "");
  }
  f.scale = o.Input(scale), f.offset = o.Input(offset);
  f.y = o.Output(y);
  if (y->view.empty()) return call.Nothing();
  const double flops = 2.0 * static_cast<double>(f.rows) *
                       static_cast<double>(f.first.k * f.first.n + f.second.k * f.second.n);
  return call.Launch(
      o.list(), Cost{flops, o.bytes()},
      [plan = std::make_shared<const Ffn>(std::move(f))](const Run& t) { return RunFfn(t, *plan); });
}

}  // namespace

Status aclnn::FFNV2(Call& call, const aclTensor* x, const aclTensor* weight1, const aclTensor* weight2,
                    const aclIntArray* expertTokens, const aclTensor* bias1, const aclTensor* bias2,
                    const aclTensor* scale, const aclTensor* offset, const aclTensor* deqScale1,
                    const aclTensor* deqScale2, const aclTensor* antiquantScale1,
                    const aclTensor* antiquantScale2, const aclTensor* antiquantOffset1,
                    const aclTensor* antiquantOffset2, const char* activation, int64_t, bool tokensIndexFlag,
                    const aclTensor* y) {
  Ffn f;
  f.ends = tokensIndexFlag;
  if (expertTokens != nullptr && expertTokens->size > 0) {
    f.grouped = true;
    f.experts = static_cast<int64_t>(expertTokens->size);
    f.tokens.assign(expertTokens->begin(), expertTokens->end());
  }
  return LaunchFfn(call, x, {weight1, bias1, deqScale1, antiquantScale1, antiquantOffset1, "1"},
                   {weight2, bias2, deqScale2, antiquantScale2, antiquantOffset2, "2"}, scale, offset,
                   activation, y, std::move(f), nullptr);
}

Status aclnn::FFN(Call& call, const aclTensor* x, const aclTensor* weight1, const aclTensor* weight2,
                  const aclIntArray* expertTokens, const aclTensor* bias1, const aclTensor* bias2,
                  const aclTensor* scale, const aclTensor* offset, const aclTensor* deqScale1,
                  const aclTensor* deqScale2, const aclTensor* antiquantScale1,
                  const aclTensor* antiquantScale2, const aclTensor* antiquantOffset1,
                  const aclTensor* antiquantOffset2, const char* activation, int64_t innerPrecise,
                  const aclTensor* y) {
  return FFNV2(call, x, weight1, weight2, expertTokens, bias1, bias2, scale, offset, deqScale1, deqScale2,
               antiquantScale1, antiquantScale2, antiquantOffset1, antiquantOffset2, activation, innerPrecise,
               false, y);
}

Status aclnn::FFNV3(Call& call, const aclTensor* x, const aclTensor* weight1, const aclTensor* weight2,
                    const aclTensor* expertTokensOptional, const aclTensor* bias1Optional,
                    const aclTensor* bias2Optional, const aclTensor* scaleOptional,
                    const aclTensor* offsetOptional, const aclTensor* deqScale1Optional,
                    const aclTensor* deqScale2Optional, const aclTensor* antiquantScale1Optional,
                    const aclTensor* antiquantScale2Optional, const aclTensor* antiquantOffset1Optional,
                    const aclTensor* antiquantOffset2Optional, const char* activation, int64_t,
                    bool tokensIndexFlag, const aclTensor* y) {
  Ffn f;
  f.ends = tokensIndexFlag;
  const aclTensor* counts = Given(expertTokensOptional);
  if (counts != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(counts, "expertTokens", 1, 1));
    if (!IsInteger(counts->view.dtype))
      return call.Invalid("expertTokens has type {}, expected int64", Name(counts->view.dtype));
    f.grouped = true;
    f.experts = counts->view.numel();
  }
  return LaunchFfn(
      call, x,
      {weight1, bias1Optional, deqScale1Optional, antiquantScale1Optional, antiquantOffset1Optional, "1"},
      {weight2, bias2Optional, deqScale2Optional, antiquantScale2Optional, antiquantOffset2Optional, "2"},
      scaleOptional, offsetOptional, activation, y, std::move(f), counts);
}

}  // namespace anycann
