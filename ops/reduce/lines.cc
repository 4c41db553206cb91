#include "ops/reduce/lines.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/parallel.h"
#include "base/scratch_array.h"
#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int kMaxOperands = kMaxLineInputs + kMaxLineOutputs;
constexpr int64_t kGatherLines =
    16;  // neighbouring lines that are gathered together: a cache line of each row
constexpr int64_t kTileBytes = int64_t{1}
                               << 18;  // of one operand's columns: a quarter of the second-level cache
constexpr int64_t kShortLine = 16;     // contiguous lines this short are better worked on across
constexpr int64_t kDenseElements =
    2048;  // short lines that follow each other are converted this many at once
constexpr int64_t kUnitNanoseconds = 20000;  // less work does not pay for waking another thread

class Job {
 public:
  Job(const LineKernel& kernel, std::span<const TensorView> outputs, std::span<const TensorView> inputs,
      int dim, const void* params)
      : k_(kernel), params_(params), count_(kernel.outputs + kernel.inputs) {
    for (int k = 0; k < count_; ++k) {
      const bool is_output = k < k_.outputs;
      Operand& o = o_[k];
      const TensorView& v = is_output ? outputs[k] : inputs[k - k_.outputs];
      o.data = v.bytes();
      o.storage = v.dtype;
      o.compute = is_output ? k_.out_types[k] : k_.in_types[k - k_.outputs];
      o.size = SizeOf(o.storage);
      o.step = SizeOf(o.compute);
      o.length = v.rank == 0 ? 1 : v.dims[dim];
      o.stride = v.rank == 0 ? 1 : v.strides[dim];
      o.straight = o.storage == o.compute && (o.stride == 1 || o.length <= 1);
      int r = 0;
      for (int i = 0; i < v.rank; ++i)
        if (i != dim) o.strides[r++] = v.strides[i];
    }
    const TensorView& shape = inputs[0];
    for (int i = 0; i < shape.rank; ++i)
      if (i != dim) dims_[rank_++] = shape.dims[i];
    n_ = o_[k_.outputs].length;
    for (int i = 0; i < rank_; ++i) lines_ *= dims_[i];
    Normalise();
  }

  Status Run() {
    if (lines_ == 0) return Status();
    bool along = true;  // lines lie along the memory
    for (int k = 0; k < count_; ++k) along &= o_[k].stride == 1 || o_[k].length <= 1;
    const int64_t inner = dims_[rank_ - 1];
    const int64_t widest = Widest();
    columns_ = k_.columns && inner >= 8 && (along ? n_ <= kShortLine && inner >= kMaxColumns : FastAcross());
    if (columns_)
      width_ = ColumnWidth(widest);
    else if (along)
      width_ = Dense() ? std::clamp<int64_t>(kDenseElements / std::max<int64_t>(n_, 1), 1, inner) : 1;
    else
      width_ = std::min(kGatherLines, inner);
    const int64_t tiles_per_run = (inner + width_ - 1) / width_, tiles = lines_ / inner * tiles_per_run;
    const double unit = k_.cost * static_cast<double>(std::max<int64_t>(n_, 8) * width_) / 8;
    const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kUnitNanoseconds / unit));
    std::atomic<bool> failed{false};
    ParallelFor(tiles, grain, [&](int64_t begin, int64_t end) {
      ScratchArray<char> memory(BufferBytes());
      if (!memory) {
        failed.store(true, std::memory_order_relaxed);
        return;
      }
      for (int64_t t = begin; t < end; ++t) {
        const int64_t first = t % tiles_per_run * width_;
        Tile(t / tiles_per_run, first, std::min(width_, inner - first), memory.get());
      }
    });
    return failed ? Error(kInner, "out of memory for lines of {} elements", n_) : Status();
  }

 private:
  struct Operand {
    char* data;
    DType storage, compute;
    int64_t size, step;         // bytes of an element, stored and computed
    int64_t length, stride;     // along the dimension
    int64_t strides[kMaxRank];  // of the kept dimensions
    bool straight;              // a line can be used where it lies
  };

  // Kept dimensions: the fastest last (by the first operand that distinguishes them), adjacent ones merged.
  void Normalise() {
    const auto outside = [&](int a, int b) {
      for (int k = 0; k < count_; ++k) {
        const int64_t x = std::abs(o_[k].strides[a]), y = std::abs(o_[k].strides[b]);
        if (x != y && x != 0 && y != 0) return x > y;
      }
      return true;
    };
    int r = 0;
    for (int i = 0; i < rank_; ++i)
      if (dims_[i] != 1) Move(i, r++);
    rank_ = r;
    for (int i = 1; i < rank_; ++i)
      for (int j = i; j > 0 && !outside(j - 1, j); --j) {
        std::swap(dims_[j - 1], dims_[j]);
        for (int k = 0; k < count_; ++k) std::swap(o_[k].strides[j - 1], o_[k].strides[j]);
      }
    r = 0;
    for (int i = 1; i < rank_; ++i) {
      bool merge = true;
      for (int k = 0; k < count_; ++k) merge &= o_[k].strides[r] == o_[k].strides[i] * dims_[i];
      const int64_t size = merge ? dims_[r] * dims_[i] : dims_[i];
      Move(i, merge ? r : ++r);
      dims_[r] = size;
    }
    if (rank_ > 0) {
      rank_ = r + 1;
    } else {
      rank_ = 1;
      dims_[0] = 1;
      for (int k = 0; k < count_; ++k) o_[k].strides[0] = 0;
    }
  }
  void Move(int from, int to) {
    dims_[to] = dims_[from];
    for (int k = 0; k < count_; ++k) o_[k].strides[to] = o_[k].strides[from];
  }

  int64_t Widest() const {
    int64_t bytes = 1;
    for (int k = 0; k < count_; ++k) bytes = std::max(bytes, o_[k].length * std::max(o_[k].size, o_[k].step));
    return bytes;
  }
  // Neighbouring lines lie next to each other in every operand that is more than one value per line.
  bool FastAcross() const {
    for (int k = 0; k < count_; ++k)
      if (o_[k].length > 1 && o_[k].strides[rank_ - 1] != 1) return false;
    return true;
  }
  // Contiguous lines that follow each other without a gap.
  bool Follows(const Operand& o) const {
    return (o.stride == 1 || o.length == 1) && o.strides[rank_ - 1] == o.length;
  }
  bool Dense() const {
    for (int k = 0; k < count_; ++k)
      if (!Follows(o_[k])) return false;
    return true;
  }
  int64_t ColumnWidth(int64_t line_bytes) const {
    const int64_t fitting = std::max<int64_t>(kTileBytes / line_bytes / 16 * 16, 64);
    return std::min({fitting, kMaxColumns, dims_[rank_ - 1]});
  }

  static int64_t Rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t BufferBytes() const {
    int64_t bytes = Rounded(k_.scratch_bytes) + Rounded(k_.column_scratch_bytes * width_);
    for (int k = 0; k < count_; ++k)
      bytes += Rounded(o_[k].length * width_ * o_[k].step) + Rounded(o_[k].length * width_ * o_[k].size);
    return bytes;
  }

  char* Address(const Operand& o, int64_t run, int64_t first) const {
    int64_t offset = first * o.strides[rank_ - 1];
    for (int i = rank_ - 2; i >= 0 && run != 0; --i) {
      offset += run % dims_[i] * o.strides[i];
      run /= dims_[i];
    }
    return o.data + offset * o.size;
  }

  // Lines [first, first + width) of kept run `run`.
  void Tile(int64_t run, int64_t first, int64_t width, char* memory) const {
    char* scratch = memory;
    memory += Rounded(k_.scratch_bytes) + Rounded(k_.column_scratch_bytes * width_);
    char *address[kMaxOperands], *line[kMaxOperands];
    int64_t ld[kMaxOperands];
    for (int k = 0; k < count_; ++k) {
      const Operand& o = o_[k];
      char *work = memory, *stage = memory + Rounded(o.length * width_ * o.step);
      memory = stage + Rounded(o.length * width_ * o.size);
      address[k] = Address(o, run, first);
      const bool direct = columns_ ? o.storage == o.compute && (o.strides[rank_ - 1] == 1 || width == 1)
                                   : o.straight && (width == 1 || Follows(o));
      line[k] = direct ? address[k] : work;
      ld[k] = !columns_ ? o.length : direct ? o.stride : width;
      if (!direct && k >= k_.outputs) Gather(o, address[k], width, work, stage);
    }
    Compute(line, ld, width, scratch);
    for (int k = 0; k < k_.outputs; ++k)
      if (line[k] != address[k])
        Scatter(o_[k], address[k], width, line[k], line[k] + Rounded(o_[k].length * width_ * o_[k].step));
  }

  void Compute(char* const* line, const int64_t* ld, int64_t width, void* scratch) const {
    void* out[kMaxLineOutputs];
    const void* in[kMaxLineInputs];
    for (int64_t j = 0; j < (columns_ ? 1 : width); ++j) {
      for (int k = 0; k < count_; ++k) {
        char* p = line[k] + j * o_[k].length * o_[k].step;
        if (k < k_.outputs)
          out[k] = p;
        else
          in[k - k_.outputs] = p;
      }
      if (columns_)
        k_.columns(out, ld, in, ld + k_.outputs, n_, width, scratch, params_);
      else
        k_.line(out, in, n_, scratch, params_);
    }
  }

  // As lines: work[j * length + i]; as columns: work[i * width + j].
  void Gather(const Operand& o, const char* from, int64_t width, char* work, char* stage) const {
    if (!columns_ && (width == 1 ? o.stride == 1 : Follows(o)))
      return Convert(work, o.compute, from, o.storage, o.length * width);
    char* raw = o.storage == o.compute ? work : stage;
    const int64_t across = o.strides[rank_ - 1];
    if (columns_) {
      for (int64_t i = 0; i < o.length; ++i)
        PackStrided(raw + i * width * o.size, from + i * o.stride * o.size, across, width, o.size);
    } else if (width == 1) {
      PackStrided(raw, from, o.stride, o.length, o.size);
    } else {
      alignas(16) char row[kGatherLines * 16];
      for (int64_t i = 0; i < o.length; ++i) {
        PackStrided(row, from + i * o.stride * o.size, across, width, o.size);
        UnpackStrided(raw + i * o.size, o.length, row, width, o.size);
      }
    }
    if (raw != work) Convert(work, o.compute, raw, o.storage, o.length * width);
  }
  void Scatter(const Operand& o, char* to, int64_t width, const char* work, char* stage) const {
    if (!columns_ && (width == 1 ? o.stride == 1 : Follows(o)))
      return Convert(to, o.storage, work, o.compute, o.length * width);
    const char* raw = work;
    if (o.storage != o.compute) {
      Convert(stage, o.storage, work, o.compute, o.length * width);
      raw = stage;
    }
    const int64_t across = o.strides[rank_ - 1];
    if (columns_) {
      for (int64_t i = 0; i < o.length; ++i)
        UnpackStrided(to + i * o.stride * o.size, across, raw + i * width * o.size, width, o.size);
    } else if (width == 1) {
      UnpackStrided(to, o.stride, raw, o.length, o.size);
    } else {
      alignas(16) char row[kGatherLines * 16];
      for (int64_t i = 0; i < o.length; ++i) {
        PackStrided(row, raw + i * o.size, o.length, width, o.size);
        UnpackStrided(to + i * o.stride * o.size, across, row, width, o.size);
      }
    }
  }

  const LineKernel& k_;
  const void* params_;
  const int count_;  // operands, outputs first
  Operand o_[kMaxOperands];
  int rank_ = 0;  // of the kept dimensions
  int64_t dims_[kMaxRank];
  int64_t lines_ = 1, n_;
  int64_t width_;  // lines of a tile
  bool columns_;
};

}  // namespace

Status RunLines(const LineKernel& kernel, std::span<const TensorView> outputs,
                std::span<const TensorView> inputs, int dim, const void* params) {
  return Job(kernel, outputs, inputs, dim, params).Run();
}

}  // namespace anycann
