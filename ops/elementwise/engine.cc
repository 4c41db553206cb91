#include "ops/elementwise/engine.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "ops/convert.h"

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
  bool single[kMaxOperands];   // one value for all
  bool repeats[kMaxOperands];  // one row for all
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
  for (int k = 0; k < l.count; ++k) {
    int64_t expected = 1;
    l.dense[k] = l.single[k] = l.repeats[k] = true;
    for (int i = l.rank - 1; i >= 0; expected *= l.dims[i--]) {
      if (l.dims[i] == 1) continue;
      l.dense[k] &= l.strides[k][i] == expected;
      l.single[k] &= l.strides[k][i] == 0;
      l.repeats[k] &= i == l.rank - 1 || l.strides[k][i] == 0;
    }
  }
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

// Moves n elements between operand k, from `p` on, and contiguous `buffer` of the operand's storage type.
template <bool gather>
void Move(const Loop& l, int k, Position p, int64_t n, char* buffer) {
  VisitBytes(l.size[k], [&](auto x) {
    using T = decltype(x);
    const int last = l.rank - 1;
    const int64_t stride = l.strides[k][last], row_stride = last > 0 ? l.strides[k][last - 1] : 0;
    T* b = reinterpret_cast<T*>(buffer);
    T* a = reinterpret_cast<T*>(p.Address(l, k));
    T* row = a - p.index[last] * stride;
    for (;;) {
      const int64_t m = std::min(n, p.Left(l));
      if (stride == 1 && m > 8) {
        gather ? std::memcpy(b, a, static_cast<size_t>(m) * sizeof(T))
               : std::memcpy(a, b, static_cast<size_t>(m) * sizeof(T));
      } else if (gather && stride == 0) {
        const T value = *a;
        for (int64_t i = 0; i < m; ++i) b[i] = value;
      } else if (gather) {
        for (int64_t i = 0; i < m; ++i) b[i] = a[i * stride];
      } else {
        for (int64_t i = 0; i < m; ++i) a[i * stride] = b[i];
      }
      b += m;
      n -= m;
      if (n == 0) return;
      p.Advance(l, m);
      row = p.index[last - 1] != 0 ? row + row_stride : reinterpret_cast<T*>(p.Address(l, k));
      a = row;
    }
  });
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
    bool loaded[kMaxOperands] = {};  // the operand's buffer holds what every block reads
    Position p;
    p.Set(l_, begin);
    // Long rows are cut into blocks; of short ones a block takes as many whole ones as it can.
    const int last = l_.rank - 1;
    const int64_t row = l_.dims[last];
    const bool short_rows = row < kShortRow && last > 0;
    const int64_t block = short_rows ? kBlock / row * row : kBlock;
    while (begin < end) {
      int64_t n = std::min(block, end - begin);
      if (!short_rows || p.index[last] != 0) n = std::min(n, p.Left(l_));
      RunBlock(p, begin, n, buffers, &stage, loaded);
      begin += n;
      p.Set(l_, begin);
    }
    if (stream_) StreamFence();
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
                bool* loaded) const {
    void* out[kMaxElementwiseOutputs];
    const void* in[kMaxElementwiseInputs];
    for (int k = kernel_.outputs; k < l_.count; ++k)
      in[k - kernel_.outputs] = Load(k, p, begin, n, buffers[k].bytes, stage, &loaded[k]);
    for (int k = 0; k < kernel_.outputs; ++k) out[k] = OutputAddress(k, p, begin, n, buffers[k].bytes);
    kernel_.loop(out, in, n, params_);
    for (int k = 0; k < kernel_.outputs; ++k) Store(k, p, begin, n, static_cast<char*>(out[k]), stage);
  }

  // The address of n elements of operand k that lie side by side; nullptr when they don't.
  char* Contiguous(int k, const Position& p, int64_t begin, int64_t n) const {
    if (l_.dense[k]) return l_.data[k] + begin * l_.size[k];
    return l_.strides[k][l_.rank - 1] == 1 && n <= p.Left(l_) ? p.Address(l_, k) : nullptr;
  }

  const void* Load(int k, const Position& p, int64_t begin, int64_t n, char* buffer, Buffer* stage,
                   bool* loaded) const {
    const DType from = l_.storage[k], to = l_.compute[k];
    if (const char* address = Contiguous(k, p, begin, n)) {
      if (from == to) return address;
      *loaded = false;
      Convert(buffer, to, address, from, n);
      return buffer;
    }
    const bool row_start = p.index[l_.rank - 1] == 0;
    if (l_.single[k] || (l_.repeats[k] && row_start)) {
      if (!*loaded) Repeat(k, p, l_.single[k] ? 1 : l_.dims[l_.rank - 1], buffer, stage);
      *loaded = true;
      return buffer;
    }
    *loaded = false;
    Move<true>(l_, k, p, n, from == to ? buffer : stage->bytes);
    if (from != to) Convert(buffer, to, stage->bytes, from, n);
    return buffer;
  }

  // Fills the buffer with the n elements at `p`, converted, over and over. n is 1 or a row that fits.
  void Repeat(int k, const Position& p, int64_t n, char* buffer, Buffer* stage) const {
    const int64_t size = SizeOf(l_.compute[k]);
    n = std::min(n, kBlock);
    Move<true>(l_, k, p, n, stage->bytes);
    Convert(buffer, l_.compute[k], stage->bytes, l_.storage[k], n);
    for (int64_t have = n * size, all = kBlock * size; have < all; have *= 2)
      std::memcpy(buffer + have, buffer, static_cast<size_t>(std::min(have, all - have)));
  }

  void* OutputAddress(int k, const Position& p, int64_t begin, int64_t n, char* buffer) const {
    char* address = Contiguous(k, p, begin, n);
    return address != nullptr && l_.storage[k] == l_.compute[k] && !stream_ ? address : buffer;
  }

  void Store(int k, const Position& p, int64_t begin, int64_t n, char* from, Buffer* stage) const {
    char* address = Contiguous(k, p, begin, n);
    const bool same = l_.storage[k] == l_.compute[k];
    if (stream_) return StreamCopy(address, from, n * l_.size[k]);
    if (address == from) return;
    if (!same) {
      Convert(address != nullptr ? address : stage->bytes, l_.storage[k], from, l_.compute[k], n);
      if (address != nullptr) return;
      from = stage->bytes;
    }
    Move<false>(l_, k, p, n, from);
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
