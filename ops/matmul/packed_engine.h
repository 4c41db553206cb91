// The driver of packed products: cuts the work, packs, and runs tiles over blocks that stay in the
// second-level cache.
//
// A Problem says what is multiplied: matrices (packed_gemm.h), or images and filters (ops/conv).
//   using Lanes               registers (tile.h)
//   m, n, units               rows, real columns and depth of C; a unit is what one Element of a panel holds
//   PackLeft(to, first, lines, u0, u1)           to[(u - u0) * lines + i] = element u of row first + i
//   PackRight(to, padded, first, lines, u0, u1)  to[(u - u0) * padded + i], the same of columns; zero from
//   `lines` on Accumulator* Direct(int64_t* ld)             C's own memory when tiles may accumulate there,
//   else nullptr Store(accumulators, ld, row, rows, column, columns)
//
// Three ways, chosen by the shape alone: serial (small), shared (one operand is packed whole and shared by
// all tasks, each task packs its strip of the other), deep (much depth for few results: tasks share the
// depth, and their sums are added in order).
#pragma once

#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/matmul/tile.h"

namespace anycann {

template <class Problem>
class PackedEngine {
  using L = typename Problem::Lanes;
  using Element = typename L::Element;
  using Accumulator = typename L::Accumulator;
  static constexpr int kWidth = kTileVectors * L::kLanes;    // columns of a right panel
  static constexpr int64_t kDepth = 1536 / sizeof(Element);  // units between two visits of the accumulators
  static constexpr int64_t kBlockLeft = 12,
                           kBlockRight = 8;   // panels of a block: both sides fit the L2 cache
  static constexpr double kSerialWork = 1e6;  // multiply-adds below which nothing is split
  static constexpr int64_t kTasks = 16;       // wanted, so that uneven cores even out
  static constexpr int64_t kStripBytes = int64_t{1} << 20;
  static constexpr int64_t kSharedBytes = int64_t{64} << 20;
  static constexpr int64_t kDeepUnits = 8192;              // deeper: panels of the whole depth don't pay
  static constexpr int64_t kDeepAccumulators = 128 << 10;  // of one task

 public:
  explicit PackedEngine(const Problem& problem)
      : problem_(problem), m_(problem.m), n_(problem.n), units_(problem.units) {
    left_panels_ = (m_ + kTileRows - 1) / kTileRows;
    height_ = (m_ + left_panels_ - 1) / left_panels_;  // evenly high panels: 16 rows are 8 + 8, not 14 + 2
    left_panels_ = (m_ + height_ - 1) / height_;
    right_panels_ = (n_ + kWidth - 1) / kWidth;
  }

  static double Work(const Problem& p) {
    return static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.units);
  }
  // Whether items of this size are better spread over the threads whole.
  static bool Small(const Problem& p) { return Work(p) < 32 * kSerialWork; }
  static int64_t ItemGrain(const Problem& p) {
    return std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / (Work(p) + 1)));
  }

  // False when memory is exhausted.
  bool Run(bool serial) const {
    if (units_ > kDeepUnits) return RunDeep();
    if (serial || Work(problem_) < kSerialWork) return RunSerial();
    const bool share_left = m_ <= n_;
    // The smaller operand is shared, in pieces that bound its memory.
    const int64_t panels = share_left ? left_panels_ : right_panels_;
    const int64_t panel_bytes = share_left ? LeftBytes(1) : RightBytes(1);
    const int64_t piece = std::clamp<int64_t>(kSharedBytes / std::max<int64_t>(1, panel_bytes), 1, panels);
    for (int64_t begin = 0; begin < panels; begin += piece)
      if (!RunShared(share_left, begin, std::min(panels, begin + piece))) return false;
    return true;
  }

  bool RunDeep() const;

 private:
  static constexpr int64_t kElement = sizeof(Element);
  int64_t LeftBytes(int64_t panels) const { return panels * height_ * units_ * kElement; }
  int64_t RightBytes(int64_t panels) const { return panels * kWidth * units_ * kElement; }
  int Rows(int64_t panel) const { return static_cast<int>(std::min(height_, m_ - panel * height_)); }
  int Columns(int64_t panel) const {
    return static_cast<int>(std::min<int64_t>(kWidth, n_ - panel * kWidth));
  }
  int Vectors(int64_t panel) const { return Columns(panel) > L::kLanes ? 2 : 1; }

  // Panels [begin, end), each `u1 - u0` units deep and at full pitch.
  void PackLeft(Element* to, int64_t begin, int64_t end, int64_t u0, int64_t u1) const {
    for (int64_t p = begin; p < end; ++p, to += height_ * (u1 - u0))
      problem_.PackLeft(to, p * height_, Rows(p), u0, u1);
  }
  void PackRight(Element* to, int64_t begin, int64_t end, int64_t u0, int64_t u1) const {
    for (int64_t q = begin; q < end; ++q, to += kWidth * (u1 - u0))
      problem_.PackRight(to, Vectors(q) * L::kLanes, q * kWidth, Columns(q), u0, u1);
  }

  template <class T = Element>
  static T* Buffer(ScratchSlot slot, int64_t bytes) {
    return static_cast<T*>(ThreadScratch(slot, static_cast<size_t>(bytes)));
  }

  bool RunSerial() const {
    Element* left = Buffer(ScratchSlot::kLeft, LeftBytes(left_panels_));
    Element* right = Buffer(ScratchSlot::kRight, RightBytes(right_panels_));
    if (left == nullptr || right == nullptr) return false;
    PackLeft(left, 0, left_panels_, 0, units_);
    PackRight(right, 0, right_panels_, 0, units_);
    return Blocks(left, 0, left_panels_, right, 0, right_panels_);
  }

  bool RunShared(bool share_left, int64_t begin, int64_t end) const {
    const int64_t panel_bytes = share_left ? LeftBytes(1) : RightBytes(1);
    Element* shared = Buffer(ScratchSlot::kShared, panel_bytes * (end - begin));
    if (shared == nullptr) return false;
    ParallelFor(end - begin, std::max<int64_t>(1, (64 << 10) / panel_bytes), [&](int64_t b, int64_t e) {
      Element* to = shared + b * panel_bytes / kElement;
      if (share_left)
        PackLeft(to, begin + b, begin + e, 0, units_);
      else
        PackRight(to, begin + b, begin + e, 0, units_);
    });
    const int64_t panels = share_left ? right_panels_ : left_panels_;
    const int64_t strip_bytes = share_left ? RightBytes(1) : LeftBytes(1);
    const int64_t most = std::max<int64_t>(1, kStripBytes / strip_bytes);
    const double panel_work = Work(problem_) / static_cast<double>(panels);
    const int64_t least = std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / 2 / panel_work));
    const int64_t strip = std::min(most, std::max(least, (panels + kTasks - 1) / kTasks));
    std::atomic<bool> ok{true};
    ParallelFor((panels + strip - 1) / strip, 1, [&](int64_t b, int64_t e) {
      for (int64_t s = b; s < e; ++s) {
        const int64_t first = s * strip, last = std::min(panels, first + strip);
        Element* own =
            Buffer(share_left ? ScratchSlot::kRight : ScratchSlot::kLeft, strip_bytes * (last - first));
        bool done = own != nullptr;
        if (done && share_left) {
          PackRight(own, first, last, 0, units_);
          done = Blocks(shared, begin, end, own, first, last);
        } else if (done) {
          PackLeft(own, first, last, 0, units_);
          done = Blocks(own, first, last, shared, begin, end);
        }
        if (!done) ok.store(false, std::memory_order_relaxed);
      }
    });
    return ok.load();
  }

  // C of left panels [p0, p1) and right panels [q0, q1), both packed over the whole depth, block by block.
  bool Blocks(const Element* left, int64_t p0, int64_t p1, const Element* right, int64_t q0,
              int64_t q1) const {
    int64_t ld = 0;
    Accumulator* direct = problem_.Direct(&ld);
    Accumulator* acc = nullptr;
    if (direct == nullptr) {
      ld = kBlockRight * kWidth;
      acc = Buffer<Accumulator>(ScratchSlot::kAccumulator,
                                kBlockLeft * kTileRows * ld * static_cast<int64_t>(sizeof(Accumulator)));
      if (acc == nullptr) return false;
    }
    for (int64_t p = p0; p < p1; p += kBlockLeft) {
      for (int64_t q = q0; q < q1; q += kBlockRight) {
        const int64_t pe = std::min(p1, p + kBlockLeft), qe = std::min(q1, q + kBlockRight);
        const Element* l = left + (p - p0) * height_ * units_;
        const Element* r = right + (q - q0) * kWidth * units_;
        const int64_t row = p * height_, column = q * kWidth;
        Block(l, p, pe, r, q, qe, direct ? direct + row * ld + column : acc, ld, direct != nullptr);
        if (direct == nullptr)
          problem_.Store(acc, ld, row, std::min(m_, pe * height_) - row, column,
                         std::min(n_, qe * kWidth) - column);
      }
    }
    return true;
  }

  void Block(const Element* left, int64_t p0, int64_t p1, const Element* right, int64_t q0, int64_t q1,
             Accumulator* c, int64_t ld, bool edges) const {
    const int64_t pieces = std::max<int64_t>(1, (units_ + kDepth - 1) / kDepth);
    const int64_t depth = (units_ + pieces - 1) / pieces;
    for (int64_t u = 0; u < units_; u += depth)
      Piece(left, units_, p0, p1, right, units_, q0, q1, u, std::min(depth, units_ - u), c, ld, edges, u > 0);
  }

  // Adds `depth` units from `u` of the panels, whose pitch is `left_units` and `right_units` units.
  void Piece(const Element* left, int64_t left_units, int64_t p0, int64_t p1, const Element* right,
             int64_t right_units, int64_t q0, int64_t q1, int64_t u, int64_t depth, Accumulator* c,
             int64_t ld, bool edges, bool add) const {
    for (int64_t p = p0; p < p1; ++p) {
      const int rows = Rows(p);
      const Element* a = left + (p - p0) * height_ * left_units + u * rows;
      for (int64_t q = q0; q < q1; ++q) {
        const int vectors = Vectors(q);
        const Element* b = right + (q - q0) * kWidth * right_units + u * vectors * L::kLanes;
        const TileKernel<L> kernel = FindTile<L>(vectors, rows);
        Accumulator* to = c + (p - p0) * height_ * ld + (q - q0) * kWidth;
        if (edges && Columns(q) != vectors * L::kLanes)
          Edge(kernel, depth, a, b, to, ld, rows, Columns(q), add);
        else
          kernel(depth, a, b, to, ld, add);
      }
    }
  }

  // A tile that reaches over the edge of C.
  static void Edge(TileKernel<L> kernel, int64_t depth, const Element* a, const Element* b, Accumulator* to,
                   int64_t ld, int rows, int columns, bool add) {
    alignas(64) Accumulator tile[kTileRows * kWidth];
    kernel(depth, a, b, tile, kWidth, false);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j)
        to[i * ld + j] = add ? to[i * ld + j] + tile[i * kWidth + j] : tile[i * kWidth + j];
  }

  struct DeepCut {
    int64_t strip, strips;  // right panels of a task
    int64_t chunk, chunks;  // units of a task
    int64_t ld;             // of a task's accumulators
  };
  DeepCut CutDeep() const {
    DeepCut cut;
    const int64_t panel_accumulators = left_panels_ * height_ * kWidth;
    cut.strip = std::clamp<int64_t>(kDeepAccumulators / panel_accumulators, 1, right_panels_);
    cut.strips = (right_panels_ + cut.strip - 1) / cut.strip;
    const int64_t enough = std::max<int64_t>(1, units_ / (4 * kDepth));  // pieces of at least this depth
    cut.chunks = std::clamp<int64_t>(kTasks / cut.strips, 1, enough);
    cut.chunk = ((units_ + cut.chunks - 1) / cut.chunks + kDepth - 1) / kDepth * kDepth;
    cut.chunks = (units_ + cut.chunk - 1) / cut.chunk;
    cut.ld = cut.strip * kWidth;
    return cut;
  }
  bool DeepTask(const DeepCut& cut, int64_t strip, int64_t chunk, Accumulator* acc) const;

  const Problem& problem_;
  const int64_t m_, n_, units_;
  int64_t left_panels_, height_, right_panels_;
};

template <class Problem>
bool PackedEngine<Problem>::DeepTask(const DeepCut& cut, int64_t strip, int64_t chunk,
                                     Accumulator* acc) const {
  const int64_t q0 = strip * cut.strip, q1 = std::min(right_panels_, q0 + cut.strip);
  const int64_t begin = chunk * cut.chunk, end = std::min(units_, begin + cut.chunk);
  Element* left = Buffer(ScratchSlot::kLeft, left_panels_ * height_ * kDepth * kElement);
  Element* right = Buffer(ScratchSlot::kRight, kWidth * kDepth * kElement);
  if (left == nullptr || right == nullptr) return false;
  for (int64_t u = begin; u < end; u += kDepth) {
    const int64_t depth = std::min(kDepth, end - u);
    PackLeft(left, 0, left_panels_, u, u + depth);
    for (int64_t q = q0; q < q1; ++q) {
      PackRight(right, q, q + 1, u, u + depth);
      Piece(left, depth, 0, left_panels_, right, depth, q, q + 1, 0, depth, acc + (q - q0) * kWidth, cut.ld,
            false, u > begin);
    }
  }
  return true;
}

template <class Problem>
bool PackedEngine<Problem>::RunDeep() const {
  if (m_ == 0 || n_ == 0) return true;  // no elements
  if (units_ == 0) return RunSerial();  // zeros
  const DeepCut cut = CutDeep();
  const int64_t size = left_panels_ * height_ * cut.ld, tasks = cut.strips * cut.chunks;
  constexpr int64_t kBytes = sizeof(Accumulator);
  Accumulator* sums = nullptr;  // [strip][chunk] of `size`
  if (cut.chunks > 1) {
    sums = Buffer<Accumulator>(ScratchSlot::kShared, size * tasks * kBytes);
    if (sums == nullptr) return false;
  }
  std::atomic<bool> ok{true};
  const auto store = [&](const Accumulator* acc, int64_t strip, int64_t row, int64_t rows) {
    const int64_t column = strip * cut.ld;
    problem_.Store(acc + row * cut.ld, cut.ld, row, rows, column, std::min(n_, column + cut.ld) - column);
  };
  ParallelFor(tasks, 1, [&](int64_t b, int64_t e) {
    for (int64_t t = b; t < e; ++t) {
      Accumulator* acc =
          sums ? sums + t * size : Buffer<Accumulator>(ScratchSlot::kAccumulator, size * kBytes);
      if (acc == nullptr || !DeepTask(cut, t / cut.chunks, t % cut.chunks, acc))
        ok.store(false, std::memory_order_relaxed);
      else if (sums == nullptr)
        store(acc, t, 0, m_);
    }
  });
  if (!ok.load() || sums == nullptr) return ok.load();
  const int64_t grain = std::max<int64_t>(1, (32 << 10) / (cut.ld * cut.chunks));
  ParallelFor(cut.strips * m_, grain, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t strip = i / m_, row = i % m_;
      Accumulator* total = sums + strip * cut.chunks * size;
      for (int64_t c = 1; c < cut.chunks; ++c) {
        const Accumulator* more = total + c * size + row * cut.ld;
        Accumulator* to = total + row * cut.ld;
        for (int64_t j = 0; j < cut.ld; ++j) to[j] += more[j];
      }
      store(total, strip, row, 1);
    }
  });
  return true;
}

}  // namespace anycann
