#include "ops/elementwise/engine.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "ops/convert.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace anycann {
namespace {

constexpr int kMaxOperands = kMaxElementwiseInputs + kMaxElementwiseOutputs;
constexpr int64_t kBlock = 1024;    // elements: with 3 operands of 4 bytes 12 KiB of the 32 KiB L1
constexpr int64_t kShortRow = 128;  // rows shorter than this are gathered several to a block
constexpr int64_t kMaxElement = 16;
// Outputs beyond this many bytes are written past the caches: no read-for-ownership, a quarter less traffic
// for a+b.
constexpr int64_t kStreamBytes = int64_t{16} << 20;

// The operands over one common set of dimensions, adjacent ones merged, the fastest last.
struct Loop {
  int rank = 0;
  int count = 0;  // operands: outputs first
  int64_t dims[kMaxRank];
  int64_t strides[kMaxOperands][kMaxRank];  // elements
  char* data[kMaxOperands];
  DType storage[kMaxOperands], compute[kMaxOperands];
  int64_t size[kMaxOperands];  // bytes of a stored element
  bool dense[kMaxOperands];    // contiguous over all dims
};

void Swap(Loop& l, int a, int b) {
  std::swap(l.dims[a], l.dims[b]);
  for (int k = 0; k < l.count; ++k) std::swap(l.strides[k][a], l.strides[k][b]);
}

// True when dimension a should be outside of b: decided by the first operand that distinguishes them.
bool Outside(const Loop& l, int a, int b) {
  for (int k = 0; k < l.count; ++k) {
    const int64_t x = std::abs(l.strides[k][a]), y = std::abs(l.strides[k][b]);
    if (x == y || x == 0 || y == 0) continue;
    return x > y;
  }
  return true;
}

void Normalise(Loop& l) {
  int r = 0;
  for (int i = 0; i < l.rank; ++i) {
    if (l.dims[i] == 1) continue;
    if (r != i) {
      l.dims[r] = l.dims[i];
      for (int k = 0; k < l.count; ++k) l.strides[k][r] = l.strides[k][i];
    }
    ++r;
  }
  l.rank = r;
  for (int i = 1; i < l.rank; ++i)
    for (int j = i; j > 0 && !Outside(l, j - 1, j); --j) Swap(l, j - 1, j);
  r = 0;
  for (int i = 1; i < l.rank; ++i) {
    bool merge = true;
    for (int k = 0; k < l.count && merge; ++k) merge = l.strides[k][r] == l.strides[k][i] * l.dims[i];
    if (merge) {
      l.dims[r] *= l.dims[i];
    } else {
      l.dims[++r] = l.dims[i];
    }
    for (int k = 0; k < l.count; ++k) l.strides[k][r] = l.strides[k][i];
  }
  if (l.rank > 0) l.rank = r + 1;
  if (l.rank == 0) {
    l.rank = 1;
    l.dims[0] = 1;
    for (int k = 0; k < l.count; ++k) l.strides[k][0] = 1;
  }
}

Loop MakeLoop(const ElementwiseKernel& kernel, std::span<const TensorView> outputs,
              std::span<const TensorView> inputs) {
  Loop l;
  l.count = static_cast<int>(outputs.size() + inputs.size());
  l.rank = outputs[0].rank;
  for (int i = 0; i < l.rank; ++i) l.dims[i] = outputs[0].dims[i];
  for (int k = 0; k < l.count; ++k) {
    const bool is_output = k < static_cast<int>(outputs.size());
    const TensorView& v = is_output ? outputs[k] : inputs[k - outputs.size()];
    for (int i = 0; i < l.rank; ++i) l.strides[k][i] = v.strides[i];
    l.data[k] = v.bytes();
    l.storage[k] = v.dtype;
    l.compute[k] = is_output ? kernel.out_types[k] : kernel.in_types[k - outputs.size()];
    l.size[k] = SizeOf(v.dtype);
  }
  Normalise(l);
  for (int k = 0; k < l.count; ++k) l.dense[k] = l.rank == 1 && (l.strides[k][0] == 1 || l.dims[0] == 1);
  return l;
}

// A position in the loop's dimensions.
struct Position {
  int64_t index[kMaxRank];
  void Set(const Loop& l, int64_t linear) {
    for (int i = l.rank - 1; i >= 0; --i) {
      index[i] = linear % l.dims[i];
      linear /= l.dims[i];
    }
  }
  char* Address(const Loop& l, int k) const {
    int64_t offset = 0;
    for (int i = 0; i < l.rank; ++i) offset += index[i] * l.strides[k][i];
    return l.data[k] + offset * l.size[k];
  }
  // Elements left in the row, and the step over them.
  int64_t Left(const Loop& l) const { return l.dims[l.rank - 1] - index[l.rank - 1]; }
  void Advance(const Loop& l, int64_t n) {
    index[l.rank - 1] += n;
    for (int i = l.rank - 1; i > 0 && index[i] == l.dims[i]; --i) {
      index[i] = 0;
      ++index[i - 1];
    }
  }
};

// Moves n elements between operand k, from `start` on, and contiguous `buffer` of the operand's storage type.
void Move(const Loop& l, int k, Position start, int64_t n, char* buffer, bool gather) {
  const int64_t stride = l.strides[k][l.rank - 1], size = l.size[k];
  while (n > 0) {
    const int64_t m = std::min(n, start.Left(l));
    char* address = start.Address(l, k);
    if (stride == 1 || m == 1) {
      gather ? std::memcpy(buffer, address, m * size) : std::memcpy(address, buffer, m * size);
    } else if (gather) {
      PackStrided(buffer, address, stride, m, size);
    } else {
      UnpackStrided(address, stride, buffer, m, size);
    }
    buffer += m * size;
    n -= m;
    start.Advance(l, m);
  }
}

// memcpy of whole cache lines past the caches. dst is aligned as given; tails go the ordinary way.
void StreamCopy(char* dst, const char* src, int64_t n) {
#if defined(__AVX512F__)
  const int64_t head = std::min<int64_t>(n, -reinterpret_cast<intptr_t>(dst) & 63);
  std::memcpy(dst, src, head);
  dst += head, src += head, n -= head;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + i), _mm512_loadu_si512(src + i));
  std::memcpy(dst + i, src + i, n - i);
#elif defined(__SSE2__)
  const int64_t head = std::min<int64_t>(n, -reinterpret_cast<intptr_t>(dst) & 15);
  std::memcpy(dst, src, head);
  dst += head, src += head, n -= head;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i)));
  std::memcpy(dst + i, src + i, n - i);
#else
  std::memcpy(dst, src, n);
#endif
}

struct alignas(64) Buffer {
  char bytes[kBlock * kMaxElement];
};

class BlockRunner {
 public:
  BlockRunner(const ElementwiseKernel& kernel, const Loop& l, const void* params)
      : kernel_(kernel), l_(l), params_(params) {
    all_direct_ = true;
    for (int k = 0; k < l.count; ++k) {
      direct_[k] = l.dense[k] && l.storage[k] == l.compute[k];
      all_direct_ &= direct_[k];
    }
    int64_t total = 1;
    for (int i = 0; i < l.rank; ++i) total *= l.dims[i];
    // Streaming pays when the output is not read again from the cache: not for in-place updates.
    stream_ = kernel.outputs == 1 && direct_[0] && total * l.size[0] >= kStreamBytes;
    for (int k = 1; k < l.count; ++k) stream_ &= l.data[k] != l.data[0];
  }

  void operator()(int64_t begin, int64_t end) const {
    if (all_direct_ && !stream_) {
      Direct(begin, end - begin);
      return;
    }
    // One thread's buffers: storage type and compute type of an operand share one, converted through a
    // second.
    Buffer buffers[kMaxOperands], stage;
    const void* constant[kMaxOperands] = {};
    Position p;
    p.Set(l_, begin);
    const bool short_rows = l_.dims[l_.rank - 1] < kShortRow;
    while (begin < end) {
      int64_t n = std::min(kBlock, end - begin);
      if (!short_rows) n = std::min(n, p.Left(l_));
      RunBlock(p, begin, n, buffers, &stage, constant);
      begin += n;
      for (int64_t left = n; left > 0;) {
        const int64_t m = std::min(left, p.Left(l_));
        p.Advance(l_, m);
        left -= m;
      }
    }
#if defined(__SSE2__)
    if (stream_) _mm_sfence();
#endif
  }

 private:
  void Direct(int64_t begin, int64_t n) const {
    void* out[kMaxElementwiseOutputs];
    const void* in[kMaxElementwiseInputs];
    for (int k = 0; k < l_.count; ++k) {
      char* address = l_.data[k] + begin * l_.size[k];
      if (k < kernel_.outputs)
        out[k] = address;
      else
        in[k - kernel_.outputs] = address;
    }
    kernel_.loop(out, in, n, params_);
  }

  void RunBlock(const Position& p, int64_t begin, int64_t n, Buffer* buffers, Buffer* stage,
                const void** constant) const {
    void* out[kMaxElementwiseOutputs];
    const void* in[kMaxElementwiseInputs];
    for (int k = kernel_.outputs; k < l_.count; ++k)
      in[k - kernel_.outputs] = Load(k, p, begin, n, buffers[k].bytes, stage, constant);
    for (int k = 0; k < kernel_.outputs; ++k) out[k] = OutputAddress(k, p, n, buffers[k].bytes);
    kernel_.loop(out, in, n, params_);
    for (int k = 0; k < kernel_.outputs; ++k) Store(k, p, n, static_cast<char*>(out[k]), stage);
  }

  bool RowDirect(int k, const Position& p, int64_t n) const {
    return l_.storage[k] == l_.compute[k] && l_.strides[k][l_.rank - 1] == 1 && n <= p.Left(l_);
  }

  const void* Load(int k, const Position& p, int64_t begin, int64_t n, char* buffer, Buffer* stage,
                   const void** constant) const {
    if (direct_[k]) return l_.data[k] + begin * l_.size[k];
    if (RowDirect(k, p, n)) return p.Address(l_, k);
    if (l_.rank == 1 && l_.strides[k][0] == 0) {  // one value for all: converted once per thread
      if (constant[k] == nullptr) {
        Convert(stage->bytes, l_.compute[k], l_.data[k], l_.storage[k], 1);
        PackStrided(buffer, stage->bytes, 0, kBlock, SizeOf(l_.compute[k]));
        constant[k] = buffer;
      }
      return buffer;
    }
    if (l_.storage[k] == l_.compute[k]) {
      Move(l_, k, p, n, buffer, true);
      return buffer;
    }
    if (l_.strides[k][l_.rank - 1] == 1 && n <= p.Left(l_)) {
      Convert(buffer, l_.compute[k], p.Address(l_, k), l_.storage[k], n);
      return buffer;
    }
    Move(l_, k, p, n, stage->bytes, true);
    Convert(buffer, l_.compute[k], stage->bytes, l_.storage[k], n);
    return buffer;
  }

  void* OutputAddress(int k, const Position& p, int64_t n, char* buffer) const {
    if (!stream_ && RowDirect(k, p, n)) return p.Address(l_, k);
    return buffer;
  }

  void Store(int k, const Position& p, int64_t n, char* from, Buffer* stage) const {
    if (stream_) return StreamCopy(p.Address(l_, k), from, n * l_.size[k]);
    if (RowDirect(k, p, n)) return;
    if (l_.storage[k] != l_.compute[k]) {
      if (l_.strides[k][l_.rank - 1] == 1 && n <= p.Left(l_)) {
        Convert(p.Address(l_, k), l_.storage[k], from, l_.compute[k], n);
        return;
      }
      Convert(stage->bytes, l_.storage[k], from, l_.compute[k], n);
      from = stage->bytes;
    }
    Move(l_, k, p, n, from, false);
  }

  const ElementwiseKernel& kernel_;
  const Loop& l_;
  const void* params_;
  bool direct_[kMaxOperands];
  bool all_direct_;
  bool stream_;
};

}  // namespace

void RunElementwise(const ElementwiseKernel& kernel, std::span<const TensorView> outputs,
                    std::span<const TensorView> inputs, const void* params) {
  const int64_t n = outputs[0].numel();
  if (n == 0) return;
  const Loop l = MakeLoop(kernel, outputs, inputs);
  const BlockRunner run(kernel, l, params);
  ParallelFor(n, ParallelGrain(kernel), run);
}

void RunElementwiseRange(const ElementwiseKernel& kernel, std::span<const TensorView> outputs,
                         std::span<const TensorView> inputs, const void* params, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const Loop l = MakeLoop(kernel, outputs, inputs);
  BlockRunner(kernel, l, params)(begin, end);
}

int64_t ParallelGrain(const ElementwiseKernel& kernel) {
  return std::max<int64_t>(kBlock, static_cast<int64_t>(160000 / std::max(kernel.cost, 0.25)));
}

}  // namespace anycann
