#include "ops/random/draw.h"

#include <cmath>

#include "base/vector_math.h"
#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kGroup = Philox::kGroup;

// cos and sin of 2 pi times the fraction word / 2^32, to float accuracy: the top bits are the quadrant, the
// rest is an exact angle in [-pi/4, pi/4].
struct CosSin {
  float cos, sin;
};
inline CosSin OfTurn(uint32_t word) {
  const uint32_t quadrant = (word + 0x20000000u) >> 30;
  const float x = static_cast<float>(static_cast<int32_t>(word - (quadrant << 30))) * 1.46291807926715968e-9f;
  const float z = x * x;
  const float s =
      x + x * z * (-1.66666667e-1f + z * (8.33333333e-3f + z * (-1.98412698e-4f + z * 2.75573192e-6f)));
  const float c = 1.0f + z * (-0.5f + z * (4.16666667e-2f + z * (-1.38888889e-3f + z * 2.48015873e-5f)));
  const float a = quadrant & 1 ? s : c, b = quadrant & 1 ? c : s;
  return {quadrant == 1 || quadrant == 2 ? -a : a, quadrant >= 2 ? -b : b};
}

}  // namespace

void DrawWords(const Philox& philox, int64_t first, int64_t n, void* values) {
  uint32_t* words = static_cast<uint32_t*>(values);
  for (int64_t i = 0; i < n; i += kGroup)
    philox.Group(static_cast<uint64_t>((first + i) / kGroup), 0, words + i);
}

void DrawWideWords(const Philox& philox, int64_t first, int64_t n, void* values) {
  uint64_t* wide = static_cast<uint64_t*>(values);
  for (int64_t i = 0; i < n; i += kGroup) {
    uint32_t high[kGroup], low[kGroup];
    philox.Group(static_cast<uint64_t>((first + i) / kGroup), 0, high);
    philox.Group(static_cast<uint64_t>((first + i) / kGroup), 1, low);
    for (int j = 0; j < kGroup; ++j) wide[i + j] = static_cast<uint64_t>(high[j]) << 32 | low[j];
  }
}

void DrawNormal(const Philox& philox, int64_t first, int64_t n, void* values) {
  float* normal = static_cast<float*>(values);
  constexpr int64_t kHalf = kGroup / 2;
  for (int64_t i = 0; i < n; i += kGroup) {
    uint32_t words[kGroup];
    philox.Group(static_cast<uint64_t>((first + i) / kGroup), 0, words);
    float* out = normal + i;
    for (int j = 0; j < kHalf; ++j) {
      const float u = static_cast<float>((words[j] >> 8) + 1) * 0x1p-24f;  // (0, 1]
      const float radius = std::sqrt(-2.0f * math::Log(u));
      const CosSin angle = OfTurn(words[kHalf + j]);
      out[j] = radius * angle.cos;
      out[kHalf + j] = radius * angle.sin;
    }
  }
}

void DrawNormalDouble(const Philox& philox, int64_t first, int64_t n, void* values) {
  double* normal = static_cast<double*>(values);
  constexpr int64_t kHalf = kGroup / 2;
  uint64_t words[kGroup];
  for (int64_t i = 0; i < n; i += kGroup) {
    DrawWideWords(philox, first + i, kGroup, words);
    for (int j = 0; j < kHalf; ++j) {
      const double u = static_cast<double>((words[j] >> 11) + 1) * 0x1p-53;
      const double angle = static_cast<double>(words[kHalf + j] >> 11) * (0x1p-53 * 6.283185307179586);
      const double radius = std::sqrt(-2 * std::log(u));
      normal[i + j] = radius * std::cos(angle);
      normal[i + kHalf + j] = radius * std::sin(angle);
    }
  }
}

Status CheckSeeding(const Call& call, const Seeding& seeding) {
  const std::pair<const aclTensor*, const char*> tensors[] = {{seeding.seed_tensor, "seedTensor"},
                                                              {seeding.offset_tensor, "offsetTensor"}};
  for (const auto& [t, name] : tensors) {
    if (t == nullptr) continue;
    if (t->view.numel() != 1)
      return call.Invalid("{} has shape {}, expected one element", name, ShapeString(t->view));
    if (t->view.dtype != DType::kInt64 && t->view.dtype != DType::kUint64)
      return call.Invalid("{} has type {}, expected int64 or uint64", name, Name(t->view.dtype));
  }
  return Status();
}

Philox SeedingAtRun::Get(const Run& t) const {
  Philox philox{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)};
  if (first >= 0) {
    philox.seed = static_cast<uint64_t>(ReadInt64(t[first]));
    philox.offset += static_cast<uint64_t>(ReadInt64(t[first + 1]));
  }
  return philox;
}

Status LaunchRandom(Call& call, const ElementwiseKernel& kernel, Source source, const Seeding& seeding,
                    std::span<const aclTensor* const> inputs, const aclTensor* out,
                    const ElementwiseParams& params) {
  RETURN_IF_ERROR(CheckSeeding(call, seeding));
  RETURN_IF_ERROR(call.RequireCastable(kernel.out_types[0], out, "out"));
  Arg operands[6];
  size_t count = inputs.size();
  if (!inputs.empty()) RETURN_IF_ERROR(BroadcastInputs(call, inputs, out, std::span(operands, count)));
  if (out->view.empty()) return call.Nothing();
  operands[count++] = Out(out);
  SeedingAtRun at_run{seeding.seed, seeding.offset, -1};
  if (seeding.seed_tensor != nullptr) {
    at_run.first = static_cast<int>(count);
    operands[count++] = In(seeding.seed_tensor);
    operands[count++] = In(seeding.offset_tensor);
  }
  const double n = static_cast<double>(out->view.numel());
  return call.Launch(std::span<const Arg>(operands, count),
                     Cost{10 * n, static_cast<double>(out->view.nbytes())}, [=](const Run& t) -> Status {
                       TensorView in[kMaxElementwiseInputs];
                       for (int i = 0; i < kernel.inputs; ++i) in[i] = t[i];
                       const Philox philox = at_run.Get(t);
                       RunDrawn(
                           kernel, t[kernel.inputs],
                           std::span<const TensorView>(in, static_cast<size_t>(kernel.inputs)), params.bytes,
                           [&](int64_t first, int64_t n, void* values) { source(philox, first, n, values); });
                       return Status();
                     });
}

}  // namespace anycann
