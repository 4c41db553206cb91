#include "ops/reduce/engine.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "base/scratch_array.h"
#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kBatch = 512;     // accumulators of one unit: outputs of a row batch, columns of a tile
constexpr int64_t kBuffer = 32768;  // bytes of a thread's gather and conversion buffers
constexpr int64_t kMaxAcc = 64;     // bytes
constexpr int64_t kUnitElements = 32768;  // input elements below which a unit isn't cut further
constexpr int64_t kUnits = 128;           // enough units for any machine's cores
constexpr int64_t kShortRun = 64;         // contiguous runs shorter than this are gathered several at a time
constexpr int64_t kFewReduced =
    16;  // reductions this short go through columns even where rows are contiguous

// The kept and the reduced dimensions, slowest first, adjacent ones merged; at least one of each.
struct Dims {
  int kept_rank = 0, reduced_rank = 0;
  int64_t kept[kMaxRank], kept_in[kMaxRank], kept_out[kMaxReduceOutputs][kMaxRank];
  int64_t reduced[kMaxRank], reduced_in[kMaxRank];
  int64_t kept_count = 1, reduced_count = 1;
};

void SortAndMergeKept(Dims& d) {
  const auto swap = [&](int a, int b) {
    std::swap(d.kept[a], d.kept[b]);
    std::swap(d.kept_in[a], d.kept_in[b]);
    for (auto& o : d.kept_out) std::swap(o[a], o[b]);
  };
  for (int i = 1; i < d.kept_rank; ++i)
    for (int j = i; j > 0 && std::abs(d.kept_in[j - 1]) < std::abs(d.kept_in[j]); --j) swap(j - 1, j);
  int r = 0;
  for (int i = 1; i < d.kept_rank; ++i) {
    bool merge = d.kept_in[r] == d.kept_in[i] * d.kept[i];
    for (const auto& o : d.kept_out) merge &= o[r] == o[i] * d.kept[i];
    if (merge)
      d.kept[r] *= d.kept[i];
    else
      d.kept[++r] = d.kept[i];
    d.kept_in[r] = d.kept_in[i];
    for (auto& o : d.kept_out) o[r] = o[i];
  }
  if (d.kept_rank > 0) d.kept_rank = r + 1;
}

void SortAndMergeReduced(Dims& d, bool ordered) {
  if (!ordered)
    for (int i = 1; i < d.reduced_rank; ++i)
      for (int j = i; j > 0 && std::abs(d.reduced_in[j - 1]) < std::abs(d.reduced_in[j]); --j) {
        std::swap(d.reduced[j - 1], d.reduced[j]);
        std::swap(d.reduced_in[j - 1], d.reduced_in[j]);
      }
  int r = 0;
  for (int i = 1; i < d.reduced_rank; ++i) {
    if (d.reduced_in[r] == d.reduced_in[i] * d.reduced[i])
      d.reduced[r] *= d.reduced[i];
    else
      d.reduced[++r] = d.reduced[i];
    d.reduced_in[r] = d.reduced_in[i];
  }
  if (d.reduced_rank > 0) d.reduced_rank = r + 1;
}

Dims MakeDims(std::span<const TensorView> outputs, const TensorView& in, uint32_t mask, bool ordered) {
  Dims d;
  for (int i = 0; i < in.rank; ++i) {
    const bool reduced = mask >> i & 1;
    (reduced ? d.reduced_count : d.kept_count) *= in.dims[i];
    if (in.dims[i] == 1) continue;
    if (reduced) {
      d.reduced[d.reduced_rank] = in.dims[i];
      d.reduced_in[d.reduced_rank++] = in.strides[i];
    } else {
      d.kept[d.kept_rank] = in.dims[i];
      d.kept_in[d.kept_rank] = in.strides[i];
      for (size_t k = 0; k < kMaxReduceOutputs; ++k)
        d.kept_out[k][d.kept_rank] = outputs[std::min(k, outputs.size() - 1)].strides[i];
      ++d.kept_rank;
    }
  }
  SortAndMergeKept(d);
  SortAndMergeReduced(d, ordered);
  if (d.kept_rank == 0) {
    d.kept[0] = d.kept_rank = 1;
    d.kept_in[0] = 0;
    for (auto& o : d.kept_out) o[0] = 1;
  }
  if (d.reduced_rank == 0) {
    d.reduced[0] = d.reduced_rank = 1;
    d.reduced_in[0] = 1;
  }
  return d;
}

int64_t OffsetOf(int64_t linear, const int64_t* dims, const int64_t* strides, int rank) {
  int64_t offset = 0;
  for (int i = rank - 1; i > 0 && linear != 0; --i) {
    offset += linear % dims[i] * strides[i];
    linear /= dims[i];
  }
  return offset + linear * strides[0];
}

class Job {
 public:
  Job(const Reducer& reducer, std::span<const TensorView> outputs, const TensorView& in, uint32_t mask,
      const void* params)
      : r_(reducer),
        d_(MakeDims(outputs, in, mask, reducer.ordered)),
        in_(in.bytes()),
        storage_(in.dtype),
        size_(SizeOf(in.dtype)),
        params_(params),
        convert_(in.dtype != reducer.in_type),
        step_(SizeOf(reducer.in_type)) {
    for (int k = 0; k < r_.outputs; ++k) {
      out_[k] = outputs[k].bytes();
      out_type_[k] = outputs[k].dtype;
    }
    inner_ = d_.kept[d_.kept_rank - 1];
    const int64_t kept_stride = std::abs(d_.kept_in[d_.kept_rank - 1]);
    const int64_t reduced_stride = std::abs(d_.reduced_in[d_.reduced_rank - 1]);
    columns_ = (kept_stride < reduced_stride && kept_stride != 0 && inner_ >= 8) ||
               (d_.reduced_count <= kFewReduced && inner_ >= kShortRun);
    // The kept dimensions are walked in batches of consecutive outputs along the innermost one.
    batches_per_run_ = (inner_ + kBatch - 1) / kBatch;
    batches_ = d_.kept_count / inner_ * batches_per_run_;
  }

  Status Run() {
    const int64_t total = d_.kept_count * d_.reduced_count;
    // How many pieces a reduction is cut into, from the shape alone.
    const int64_t lines = columns_ ? batches_ : d_.kept_count;
    const int64_t per_line = std::max<int64_t>(total / lines, 1);
    int64_t pieces = std::min((kUnits + lines - 1) / lines, (per_line + kUnitElements - 1) / kUnitElements);
    pieces = std::max<int64_t>(std::min(pieces, d_.reduced_count / 64), 1);
    if (pieces > 1) return RunPieces(pieces);
    const int64_t grain = std::max<int64_t>(1, kUnitElements * batches_ / std::max<int64_t>(total, 1));
    if (columns_ || batches_ >= kUnits || d_.kept_count == batches_) {
      ParallelFor(batches_, grain, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          const int64_t first = b % batches_per_run_ * kBatch;
          Whole(b / batches_per_run_, first, std::min(kBatch, inner_ - first));
        }
      });
      return Status();
    }
    // Few batches of many long rows: single rows are the unit.
    const int64_t row_grain = std::max<int64_t>(1, kUnitElements / std::max<int64_t>(d_.reduced_count, 1));
    ParallelFor(d_.kept_count, row_grain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t first = begin % inner_, n = std::min({kBatch, inner_ - first, end - begin});
        Whole(begin / inner_, first, n);
        begin += n;
      }
    });
    return Status();
  }

 private:
  struct Buffers {
    alignas(64) char stage[kBuffer];  // gathered, in the storage type
    alignas(64) char work[kBuffer];   // in the compute type
  };

  // Outputs [first, first + n) of kept run `run`, reduced as a whole.
  void Whole(int64_t run, int64_t first, int64_t n) const {
    alignas(64) char acc[kBatch * kMaxAcc];
    r_.init(acc, n, params_);
    Fold(acc, run, first, n, 0, d_.reduced_count);
    Store(acc, run, first, n);
  }

  void Fold(char* acc, int64_t run, int64_t first, int64_t n, int64_t begin, int64_t end) const {
    Buffers buffers;
    const int64_t stride = d_.kept_in[d_.kept_rank - 1];
    const char* base = in_ + (OffsetOf(run, d_.kept, d_.kept_in, d_.kept_rank - 1) + first * stride) * size_;
    if (columns_) {
      FoldColumns(acc, base, n, begin, end, buffers);
    } else {
      for (int64_t i = 0; i < n; ++i)
        FoldRow(acc + i * r_.acc_bytes, base + i * stride * size_, begin, end, buffers);
    }
  }

  // Reduced elements [begin, end) of one output, whose first lies at `base`.
  void FoldRow(char* acc, const char* base, int64_t begin, int64_t end, Buffers& b) const {
    const int last = d_.reduced_rank - 1;
    const int64_t length = d_.reduced[last], stride = d_.reduced_in[last];
    const bool straight = stride == 1 && !convert_ && (last == 0 || length >= kShortRun);
    const int64_t room = kBuffer / std::max(size_, step_);
    int64_t filled = 0;
    const auto flush = [&](int64_t next) {
      const char* x = b.stage;
      if (convert_) Convert(b.work, r_.in_type, b.stage, storage_, filled), x = b.work;
      r_.row(acc, x, filled, next - filled, params_);
      filled = 0;
    };
    while (begin < end) {
      const int64_t inner = last == 0 ? begin : begin % length;
      const int64_t outer = last == 0 ? 0 : OffsetOf(begin / length, d_.reduced, d_.reduced_in, last);
      int64_t n = std::min(end - begin, length - inner);
      const char* x = base + (outer + inner * stride) * size_;
      if (straight) {
        r_.row(acc, x, n, begin, params_);
      } else if (stride == 1 && convert_ && filled == 0 && n >= kShortRun) {
        n = std::min(n, room);
        Convert(b.work, r_.in_type, x, storage_, n);
        r_.row(acc, b.work, n, begin, params_);
      } else {
        n = std::min(n, room - filled);
        PackStrided(b.stage + filled * size_, x, stride, n, size_);
        filled += n;
        if (filled == room) flush(begin + n);
      }
      begin += n;
    }
    if (filled > 0) flush(end);
  }

  // Rows [begin, end) of `cols` neighbouring outputs.
  void FoldColumns(char* acc, const char* base, int64_t cols, int64_t begin, int64_t end, Buffers& b) const {
    const int last = d_.reduced_rank - 1;
    const int64_t length = d_.reduced[last], stride = d_.reduced_in[last],
                  kept_stride = d_.kept_in[d_.kept_rank - 1];
    const bool straight = kept_stride == 1 && !convert_;
    const int64_t room = std::max<int64_t>(1, kBuffer / (std::max(size_, step_) * cols));
    while (begin < end) {
      const int64_t inner = last == 0 ? begin : begin % length;
      const int64_t outer = last == 0 ? 0 : OffsetOf(begin / length, d_.reduced, d_.reduced_in, last);
      int64_t n = std::min(end - begin, length - inner);
      const char* x = base + (outer + inner * stride) * size_;
      if (straight) {
        r_.columns(acc, x, stride, n, cols, begin, params_);
      } else {
        n = std::min(n, room);
        for (int64_t i = 0; i < n; ++i) {
          const char* from = x + i * stride * size_;
          if (kept_stride != 1) {
            PackStrided(b.stage, from, kept_stride, cols, size_);
            from = b.stage;
          }
          Convert(b.work + i * cols * step_, r_.in_type, from, storage_, cols);
        }
        r_.columns(acc, b.work, cols, n, cols, begin, params_);
      }
      begin += n;
    }
  }

  void Store(const char* acc, int64_t run, int64_t first, int64_t n) const {
    alignas(64) char result[kMaxReduceOutputs][kBatch * 16];
    alignas(64) char stored[kBatch * 16];
    void* to[kMaxReduceOutputs];
    char* address[kMaxReduceOutputs];
    const int last = d_.kept_rank - 1;
    for (int k = 0; k < r_.outputs; ++k) {
      const int64_t offset = OffsetOf(run, d_.kept, d_.kept_out[k], last) + first * d_.kept_out[k][last];
      address[k] = out_[k] + offset * SizeOf(out_type_[k]);
      const bool straight = out_type_[k] == r_.out_types[k] && (d_.kept_out[k][last] == 1 || n == 1);
      to[k] = straight ? address[k] : result[k];
    }
    r_.finish(to, acc, n, d_.reduced_count, params_);
    for (int k = 0; k < r_.outputs; ++k) {
      if (to[k] == address[k]) continue;
      Convert(stored, out_type_[k], to[k], r_.out_types[k], n);
      UnpackStrided(address[k], d_.kept_out[k][last], stored, n, SizeOf(out_type_[k]));
    }
  }

  // Every batch is cut along the reduction; the pieces' accumulators are merged in order.
  Status RunPieces(int64_t pieces) {
    const int64_t length = (d_.reduced_count + pieces - 1) / pieces;
    const int64_t batch = columns_ ? std::min(kBatch, inner_) : 1;
    const int64_t per_run = (inner_ + batch - 1) / batch, lines = d_.kept_count / inner_ * per_run;
    ScratchArray<char> accs(lines * pieces * batch * r_.acc_bytes);
    if (!accs)
      return Error(kInner, "out of memory for {} partial results of a reduction", lines * pieces * batch);
    const auto acc_of = [&](int64_t line, int64_t piece) {
      return accs.get() + (line * pieces + piece) * batch * r_.acc_bytes;
    };
    ParallelFor(lines * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t line = u / pieces, piece = u % pieces, first = line % per_run * batch;
        const int64_t n = std::min(batch, inner_ - first);
        r_.init(acc_of(line, piece), n, params_);
        Fold(acc_of(line, piece), line / per_run, first, n, std::min(piece * length, d_.reduced_count),
             std::min((piece + 1) * length, d_.reduced_count));
      }
    });
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t first = line % per_run * batch, n = std::min(batch, inner_ - first);
      for (int64_t piece = 1; piece < pieces; ++piece)
        r_.merge(acc_of(line, 0), acc_of(line, piece), n, params_);
      Store(acc_of(line, 0), line / per_run, first, n);
    }
    return Status();
  }

  const Reducer& r_;
  const Dims d_;
  const char* in_;
  const DType storage_;
  const int64_t size_;  // bytes of a stored input element
  const void* params_;
  const bool convert_;
  const int64_t step_;  // bytes of an input element in the compute type
  char* out_[kMaxReduceOutputs];
  DType out_type_[kMaxReduceOutputs];
  int64_t inner_;  // size of the innermost kept dimension
  bool columns_;
  int64_t batches_per_run_, batches_;
};

}  // namespace

TensorView KeepDims(const TensorView& out, int rank, uint32_t mask) {
  TensorView v = out;
  if (out.rank == rank) return v;
  v.rank = rank;
  int j = 0;
  for (int i = 0; i < rank; ++i) {
    const bool reduced = mask >> i & 1;
    v.dims[i] = reduced ? 1 : out.dims[j];
    v.strides[i] = reduced ? 0 : out.strides[j];
    j += !reduced;
  }
  return v;
}

Status RunReduce(const Reducer& reducer, std::span<const TensorView> outputs, const TensorView& in,
                 uint32_t mask, const void* params) {
  if (outputs[0].empty()) return Status();
  return Job(reducer, outputs, in, mask, params).Run();
}

}  // namespace anycann
