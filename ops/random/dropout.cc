// Dropout. The mask has a bit per element in row-major order, the lowest bit of a byte first, set where the
// element is kept; its bytes are rounded up to 128 elements.
#include <bit>
#include <cmath>
#include <cstring>

#include "aclnn_ops.h"
#include "base/scratch_array.h"
#include "ops/convert.h"
#include "ops/random/draw.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace anycann {
namespace {

constexpr int64_t kMaskAlign = 128;  // elements
int64_t MaskBytes(int64_t n) { return (n + kMaskAlign - 1) / kMaskAlign * (kMaskAlign / 8); }

// Bit i of the 64: words[i] / 2 < threshold, the threshold being the probability to keep times 2^31.
uint64_t KeepBits(const uint32_t* words, uint32_t threshold) {
#if defined(__AVX512F__)
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(threshold));
  uint64_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    const __m512i halves = _mm512_srli_epi32(_mm512_loadu_si512(words + 16 * i), 1);
    bits |= static_cast<uint64_t>(_mm512_cmplt_epu32_mask(halves, limit)) << (16 * i);
  }
  return bits;
#else
  uint8_t bytes[8] = {};
  for (int bit = 0; bit < 8; ++bit)
    for (int byte = 0; byte < 8; ++byte)
      bytes[byte] = static_cast<uint8_t>(bytes[byte] | (words[byte * 8 + bit] >> 1 < threshold) << bit);
  uint64_t bits;
  std::memcpy(&bits, bytes, 8);
  return bits;
#endif
}

uint32_t KeepThreshold(double drop) { return static_cast<uint32_t>(std::llround(std::ldexp(1 - drop, 31))); }

// The bits of elements [first, first + n), n rounded up to a group, into the mask.
void DrawMask(const Philox& philox, uint32_t threshold, int64_t first, int64_t n, uint8_t* mask) {
  uint32_t words[Philox::kGroup];
  for (int64_t i = first; i < first + n; i += Philox::kGroup) {
    philox.Group(static_cast<uint64_t>(i / Philox::kGroup), 0, words);
    const uint64_t bits = KeepBits(words, threshold);
    std::memcpy(mask + i / 8, &bits, 8);
  }
}

// Bits of elements [first, first + n) as bools; first is a multiple of 8 and `keep` has room for n rounded up
// to one.
void UnpackMask(const uint8_t* mask, int64_t first, int64_t n, void* keep) {
  uint8_t* out = static_cast<uint8_t*>(keep);
  const uint8_t* bytes = mask + first / 8;
  for (int64_t i = 0; i < (n + 7) / 8; ++i) {
    // Bit k of the byte alone in byte k, then anything but zero becomes 1.
    const uint64_t spread = (bytes[i] * 0x0101010101010101u) & 0x8040201008040201u;
    const uint64_t ones = ((spread + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
    std::memcpy(out + 8 * i, &ones, 8);
  }
}

template <class T>
struct Kept {
  T scale;
  T operator()(bool keep, T x) const {
    // As bits: g++ 12 turns the selection of a float by a bool into a branch.
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    return std::bit_cast<T>(std::bit_cast<Bits>(x * scale) & (Bits(0) - Bits(keep)));
  }
};

Status CheckProbability(const Call& call, const char* name, double p) {
  return p >= 0 && p <= 1 ? Status() : call.Invalid("{} is {}, expected a number from 0 to 1", name, p);
}

Status CheckMask(const Call& call, const aclTensor* mask, const char* name, int64_t n, int64_t bytes) {
  if (SizeOf(mask->view.dtype) != 1)
    return call.Invalid("{} has type {}, expected uint8", name, Name(mask->view.dtype));
  if (!mask->view.contiguous()) return call.Invalid("{} is not contiguous", name);
  if (mask->view.numel() < bytes)
    return call.Invalid("{} has {} bytes, expected at least {} for {} elements", name, mask->view.numel(),
                        bytes, n);
  return Status();
}

// out = keep ? x * scale : 0, with fill(first, n, keep) giving the bools. Elements count in row-major order,
// so an output of another layout is written through a contiguous one.
template <class Fill>
Status RunKept(const TensorView& x, const TensorView& out, double scale, const Fill& fill) {
  ScratchArray<unsigned char> scratch(out.contiguous() ? 0 : out.nbytes());
  if (!scratch) return Status(kInner, "out of memory");
  const TensorView to =
      out.contiguous() ? out : TensorView::Contiguous(scratch.get(), out.dtype, out.dims, out.rank);
  if (ComputeType(out.dtype) == DType::kDouble) {
    const Kept<double> f{scale};
    RunDrawn(RandomKernelOf<Kept<double>, bool, double>(2), to, {&x, 1}, &f, fill);
  } else {
    const Kept<float> f{static_cast<float>(scale)};
    RunDrawn(RandomKernelOf<Kept<float>, bool, float>(2), to, {&x, 1}, &f, fill);
  }
  if (!out.contiguous()) CopyCast(out, to);
  return Status();
}

Status ApplyMask(Call& call, const aclTensor* self, const aclTensor* mask, double scale, bool keep_all,
                 const aclTensor* out, const char* out_name) {
  RETURN_IF_ERROR(call.RequireSameShape(out, out_name, self, "the input"));
  if (!IsFloating(self->view.dtype))
    return call.Invalid("the input has type {}, expected a floating type", Name(self->view.dtype));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, out_name));
  const int64_t n = self->view.numel();
  if (!keep_all) RETURN_IF_ERROR(CheckMask(call, mask, "mask", n, (n + 7) / 8));
  if (n == 0) return call.Nothing();
  const double bytes = static_cast<double>(self->view.nbytes() + out->view.nbytes() + n / 8);
  return call.Launch({In(self), In(mask), Out(out)}, Cost{static_cast<double>(n), bytes},
                     [scale, keep_all](const Run& t) -> Status {
                       if (keep_all) {
                         CopyCast(t[2], t[0]);
                         return Status();
                       }
                       const uint8_t* bits = t[1].ptr<uint8_t>();
                       return RunKept(t[0], t[2], scale, [bits](int64_t first, int64_t count, void* keep) {
                         UnpackMask(bits, first, count, keep);
                       });
                     });
}

Status MakeMask(Call& call, const aclIntArray* shape, double p, const Seeding& seeding,
                const aclTensor* out) {
  RETURN_IF_ERROR(CheckProbability(call, "prob", p));
  RETURN_IF_ERROR(CheckSeeding(call, seeding));
  int64_t n = 1;
  for (const int64_t d : *shape)
    if (d < 0 || __builtin_mul_overflow(n, d, &n) || n > INT64_MAX - kMaskAlign)
      return call.Invalid("shape has the dimension {}", d);
  RETURN_IF_ERROR(CheckMask(call, out, "out", n, MaskBytes(n)));
  if (n == 0) return call.Nothing();
  Arg operands[3] = {Out(out)};
  size_t count = 1;
  SeedingAtRun at_run{seeding.seed, seeding.offset, -1};
  if (seeding.seed_tensor != nullptr) {
    at_run.first = 1;
    operands[count++] = In(seeding.seed_tensor);
    operands[count++] = In(seeding.offset_tensor);
  }
  const double bytes = static_cast<double>(MaskBytes(n));
  return call.Launch(std::span<const Arg>(operands, count), Cost{80 * bytes, bytes},
                     [n, at_run, threshold = KeepThreshold(p)](const Run& t) -> Status {
                       const Philox philox = at_run.Get(t);
                       uint8_t* mask = t[0].ptr<uint8_t>();
                       const int64_t groups = MaskBytes(n) / 8;
                       ParallelFor(groups, 512, [&](int64_t begin, int64_t end) {
                         DrawMask(philox, threshold, begin * Philox::kGroup, (end - begin) * Philox::kGroup,
                                  mask);
                       });
                       return Status();
                     });
}

// Draws the mask and applies it in one pass.
Status DrawAndApply(Call& call, const aclTensor* input, double p, const Seeding& seeding,
                    const aclTensor* out, const aclTensor* mask) {
  RETURN_IF_ERROR(CheckProbability(call, "p", p));
  RETURN_IF_ERROR(CheckSeeding(call, seeding));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", input, "input"));
  RETURN_IF_ERROR(call.RequireFloating(input, "input"));
  RETURN_IF_ERROR(call.RequireCastable(input->view.dtype, out, "out"));
  const int64_t n = input->view.numel();
  RETURN_IF_ERROR(CheckMask(call, mask, "maskOut", n, MaskBytes(n)));
  if (n == 0) return call.Nothing();
  Arg operands[5] = {In(input), Out(out), Out(mask)};
  size_t count = 3;
  SeedingAtRun at_run{seeding.seed, seeding.offset, -1};
  if (seeding.seed_tensor != nullptr) {
    at_run.first = 3;
    operands[count++] = In(seeding.seed_tensor);
    operands[count++] = In(seeding.offset_tensor);
  }
  const double bytes = static_cast<double>(input->view.nbytes() + out->view.nbytes() + n / 8);
  const double scale = p < 1 ? 1 / (1 - p) : 0;
  return call.Launch(std::span<const Arg>(operands, count), Cost{10.0 * static_cast<double>(n), bytes},
                     [n, at_run, scale, threshold = KeepThreshold(p)](const Run& t) -> Status {
                       const Philox philox = at_run.Get(t);
                       uint8_t* bits = t[2].ptr<uint8_t>();
                       return RunKept(t[0], t[1], scale, [&](int64_t first, int64_t count, void* keep) {
                         // The last chunk draws the rounding, too.
                         const int64_t stop = first + count == n ? MaskBytes(n) * 8 : first + count;
                         DrawMask(philox, threshold, first, stop - first, bits);
                         UnpackMask(bits, first, count, keep);
                       });
                     });
}

Status NoNoiseShape(const Call& call, const aclTensor* noise_shape) {
  if (noise_shape == nullptr || noise_shape->view.empty()) return Status();
  return call.Invalid("optionalNoiseShape is given ({}), expected null: every element has its own bit",
                      ShapeString(noise_shape->view));
}

}  // namespace

Status aclnn::DropoutGenMask(Call& call, const aclIntArray* shape, double prob, int64_t seed, int64_t offset,
                             aclTensor* out) {
  return MakeMask(call, shape, prob, {seed, offset}, out);
}
// probDataType is the type of the tensor that the mask is for; the mask does not depend on it.
Status aclnn::DropoutGenMaskV2(Call& call, const aclIntArray* shape, double prob, int64_t seed,
                               int64_t offset, aclDataType, aclTensor* out) {
  return MakeMask(call, shape, prob, {seed, offset}, out);
}
Status aclnn::DropoutGenMaskV2Tensor(Call& call, const aclIntArray* shape, double prob,
                                     const aclTensor* seedTensor, const aclTensor* offsetTensor,
                                     int64_t offset, aclDataType, aclTensor* out) {
  return MakeMask(call, shape, prob, {0, offset, seedTensor, offsetTensor}, out);
}

Status aclnn::DropoutDoMask(Call& call, const aclTensor* self, const aclTensor* mask, double prob,
                            aclTensor* out) {
  RETURN_IF_ERROR(CheckProbability(call, "prob", prob));
  return ApplyMask(call, self, mask, prob < 1 ? 1 / (1 - prob) : 0, prob == 0, out, "out");
}
Status aclnn::DropoutBackward(Call& call, const aclTensor* gradOutput, const aclTensor* mask, double scale,
                              aclTensor* out) {
  return ApplyMask(call, gradOutput, mask, scale, false, out, "out");
}
Status aclnn::DropoutV3Grad(Call& call, const aclTensor* gradY, const aclTensor* mask, double scale,
                            aclTensor* gradX) {
  return ApplyMask(call, gradY, mask, scale, false, gradX, "gradX");
}

Status aclnn::Dropout(Call& call, const aclTensor* input, double p, bool train, int64_t seed, int64_t offset,
                      aclTensor* out, aclTensor* maskOut) {
  return DrawAndApply(call, input, train ? p : 0, {seed, offset}, out, maskOut);
}
Status aclnn::DropoutV3(Call& call, const aclTensor* input, const aclTensor* optionalNoiseShape, double p,
                        int64_t seed, int64_t offset, aclTensor* out, aclTensor* maskOut) {
  RETURN_IF_ERROR(NoNoiseShape(call, optionalNoiseShape));
  return DrawAndApply(call, input, p, {seed, offset}, out, maskOut);
}
Status aclnn::DropoutV3Tensor(Call& call, const aclTensor* input, const aclTensor* optionalNoiseShape,
                              double p, const aclTensor* seedTensor, const aclTensor* offsetTensor,
                              int64_t offset, aclTensor* out, aclTensor* maskOut) {
  RETURN_IF_ERROR(NoNoiseShape(call, optionalNoiseShape));
  return DrawAndApply(call, input, p, {0, offset, seedTensor, offsetTensor}, out, maskOut);
}

}  // namespace anycann
