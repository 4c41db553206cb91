// Uniform real numbers, random integers and exponential numbers.
#include <cmath>
#include <limits>

#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/complex_parts.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

// from + (to - from) * u, u having `bits` random bits as torch gives each type: a value never rounds up to
// `to`.
struct UniformFloat {
  float from, width, to, unit;
  int shift;
  float operator()(uint32_t word) const {
    const float v = static_cast<float>(word >> shift) * unit * width + from;
    return v < to ? v : from;
  }
};
struct UniformDouble {
  double from, width, to;
  double operator()(uint64_t word) const {
    const double v = static_cast<double>(word >> 11) * 0x1p-53 * width + from;
    return v < to ? v : from;
  }
};

Status Uniform(Call& call, const aclTensor* self, double from, double to, const Seeding& seeding) {
  const DType type = self->view.dtype;
  if (IsComplex(type)) {
    const RealParts parts(self);
    return parts.get() ? Uniform(call, parts.get(), from, to, seeding) : call.NoMemory();
  }
  if (!IsFloating(type)) return call.Invalid("selfRef has type {}, expected a floating type", Name(type));
  if (!(from <= to)) return call.Invalid("from is {} and to is {}, expected from <= to", from, to);
  if (!std::isfinite(to - from)) return call.Invalid("to - from is {}, which is not finite", to - from);
  if (type == DType::kDouble)
    return LaunchRandomMap<uint64_t>(call, &DrawWideWords, seeding, {}, self,
                                     UniformDouble{from, to - from, to});
  const int bits = type == DType::kFloat ? 24 : type == DType::kFloat16 ? 11 : 8;
  const UniformFloat f{static_cast<float>(from), static_cast<float>(to - from), static_cast<float>(to),
                       std::ldexp(1.0f, -bits), 32 - bits};
  return LaunchRandomMap<uint32_t>(call, &DrawWords, seeding, {}, self, f);
}

// from + a number below `range`: the upper half of word * range. Some numbers are more likely than others by
// at most range / 2^32 (2^64).
struct IntegerBelow {
  int64_t from;
  uint64_t range;
  int64_t operator()(uint32_t word) const {
    return static_cast<int64_t>(static_cast<uint64_t>(from) + (uint64_t{word} * range >> 32));
  }
};
struct WideIntegerBelow {
  int64_t from;
  uint64_t range;  // 0: 2^64
  int64_t operator()(uint64_t word) const {
    const uint64_t below =
        range == 0 ? word : static_cast<uint64_t>(static_cast<unsigned __int128>(word) * range >> 64);
    return static_cast<int64_t>(static_cast<uint64_t>(from) + below);
  }
};

struct BoolBelow {
  uint32_t from, range;
  bool operator()(uint32_t word) const { return (from + (uint64_t{word} * range >> 32)) != 0; }
};

Status Integers(Call& call, const aclTensor* self, int64_t from, uint64_t range, const Seeding& seeding) {
  if (IsComplex(self->view.dtype)) return Unsupported(call, self->view.dtype);
  if (self->view.dtype == DType::kBool) {
    if (from < 0 || from > 1 || range == 0 || range > 2 - static_cast<uint64_t>(from))
      return call.Invalid("the numbers from {} to {} are drawn, expected 0 and 1 for bool", from,
                          static_cast<uint64_t>(from) + range - 1);
    return LaunchRandomMap<uint32_t>(call, &DrawWords, seeding, {}, self,
                                     BoolBelow{static_cast<uint32_t>(from), static_cast<uint32_t>(range)});
  }
  if (range != 0 && range <= (uint64_t{1} << 28))
    return LaunchRandomMap<uint32_t>(call, &DrawWords, seeding, {}, self, IntegerBelow{from, range});
  return LaunchRandomMap<uint64_t>(call, &DrawWideWords, seeding, {}, self, WideIntegerBelow{from, range});
}

Status FromTo(Call& call, const aclTensor* self, int64_t from, int64_t to, const Seeding& seeding) {
  if (from >= to) return call.Invalid("from is {} and to is {}, expected from < to", from, to);
  return Integers(call, self, from, static_cast<uint64_t>(to) - static_cast<uint64_t>(from), seeding);
}

// All that the type can hold from 0 on; for floating types the integers that it holds exactly.
Status WithoutFromTo(Call& call, const aclTensor* self, const Seeding& seeding) {
  if (IsComplex(self->view.dtype)) return Unsupported(call, self->view.dtype);
  uint64_t range;
  switch (self->view.dtype) {
    case DType::kBool: range = 2; break;
    case DType::kFloat: range = (uint64_t{1} << 24) + 1; break;
    case DType::kFloat16: range = (uint64_t{1} << 11) + 1; break;
    case DType::kBFloat16: range = (uint64_t{1} << 8) + 1; break;
    case DType::kDouble: range = (uint64_t{1} << 53) + 1; break;
    case DType::kUint64: range = 0; break;
    default: range = uint64_t{1} << (SizeOf(self->view.dtype) * 8 - (IsUnsigned(self->view.dtype) ? 0 : 1));
  }
  return Integers(call, self, 0, range, seeding);
}

// -log(u) / lambda with u in (0, 1].
struct ExponentialFloat {
  float scale;
  float operator()(uint32_t word) const {
    return scale * -math::Log(static_cast<float>((word >> 8) + 1) * 0x1p-24f);
  }
};
struct ExponentialDouble {
  double scale;
  double operator()(uint64_t word) const {
    return scale * -std::log(static_cast<double>((word >> 11) + 1) * 0x1p-53);
  }
};

Status Exponential(Call& call, const aclTensor* self, double lambda, const Seeding& seeding) {
  const DType type = self->view.dtype;
  if (!IsFloating(type)) return call.Invalid("selfRef has type {}, expected a floating type", Name(type));
  if (!(lambda > 0)) return call.Invalid("lambda is {}, expected a positive number", lambda);
  if (type == DType::kDouble)
    return LaunchRandomMap<uint64_t>(call, &DrawWideWords, seeding, {}, self, ExponentialDouble{1 / lambda});
  return LaunchRandomMap<uint32_t>(call, &DrawWords, seeding, {}, self,
                                   ExponentialFloat{static_cast<float>(1 / lambda)});
}

}  // namespace

Status aclnn::InplaceUniform(Call& call, const aclTensor* selfRef, double from, double to, uint64_t seed,
                             uint64_t offset) {
  return Uniform(call, selfRef, from, to, {static_cast<int64_t>(seed), static_cast<int64_t>(offset)});
}
Status aclnn::InplaceUniformTensor(Call& call, const aclTensor* selfRef, double from, double to,
                                   const aclTensor* seedTensor, const aclTensor* offsetTensor,
                                   uint64_t offset) {
  return Uniform(call, selfRef, from, to, {0, static_cast<int64_t>(offset), seedTensor, offsetTensor});
}
Status aclnn::InplaceRandom(Call& call, const aclTensor* selfRef, int64_t from, int64_t to, int64_t seed,
                            int64_t offset) {
  return FromTo(call, selfRef, from, to, {seed, offset});
}
Status aclnn::InplaceRandomTensor(Call& call, const aclTensor* selfRef, int64_t from, int64_t to,
                                  const aclTensor* seedTensor, const aclTensor* offsetTensor,
                                  int64_t offset) {
  return FromTo(call, selfRef, from, to, {0, offset, seedTensor, offsetTensor});
}
Status aclnn::InplaceRandomWithoutFromTo(Call& call, const aclTensor* selfRef, int64_t seed, int64_t offset) {
  return WithoutFromTo(call, selfRef, {seed, offset});
}
Status aclnn::InplaceRandomWithoutFromToTensor(Call& call, const aclTensor* selfRef,
                                               const aclTensor* seedTensor, const aclTensor* offsetTensor,
                                               int64_t offset) {
  return WithoutFromTo(call, selfRef, {0, offset, seedTensor, offsetTensor});
}

Status aclnn::SimThreadExponential(Call& call, aclTensor* selfRef, int64_t count, double lambda, int64_t seed,
                                   int64_t offset) {
  if (count != selfRef->view.numel())
    return call.Invalid("count is {}, expected selfRef's number of elements, {}", count,
                        selfRef->view.numel());
  return Exponential(call, selfRef, lambda, {seed, offset});
}
Status aclnn::StatelessExponentialTensor(Call& call, aclTensor* selfRef, const aclTensor* seedTensor,
                                         const aclTensor* offsetTensor, int64_t offset, double lambd) {
  return Exponential(call, selfRef, lambd, {0, offset, seedTensor, offsetTensor});
}

}  // namespace anycann
