// The driver of the packed product, for one arithmetic:
//   Lanes            registers (tile.h)
//   kColumns         real columns per column of the problem (2: complex)
//   kAccumulator     what C's accumulators are, seen by the epilogue
//   Units(k)         depth of the panels
//   PackLeft/Right   see pack.h
#pragma once

#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/matmul/epilogue.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/packed.h"
#include "ops/matmul/tile.h"

namespace anycann {

template <class P>
class PackedEngine {
  using L = typename P::Lanes;
  using Element = typename L::Element;
  using Accumulator = typename L::Accumulator;
  static constexpr int kWidth = kTileVectors * L::kLanes;     // real columns of a right panel
  static constexpr int kPanelColumns = kWidth / P::kColumns;  // columns of the problem in it
  static constexpr int64_t kDepth = 1536 / sizeof(Element);   // units between two visits of the accumulators
  static constexpr int64_t kBlockLeft = 12,
                           kBlockRight = 8;   // panels of a block: both sides fit the L2 cache
  static constexpr double kSerialWork = 1e6;  // multiply-adds below which nothing is split
  static constexpr int64_t kStrips = 16;      // wanted, so that uneven cores even out
  static constexpr int64_t kStripBytes = int64_t{1} << 20;
  static constexpr int64_t kSharedBytes = int64_t{64} << 20;

 public:
  explicit PackedEngine(const GemmArgs& g)
      : g_(g),
        units_(P::Units(g.k)),
        work_(static_cast<double>(g.m) * static_cast<double>(g.n * P::kColumns) * units_) {
    left_panels_ = (g.m + kTileRows - 1) / kTileRows;
    height_ = (g.m + left_panels_ - 1) / left_panels_;  // evenly high panels: 16 rows are 8 + 8, not 14 + 2
    left_panels_ = (g.m + height_ - 1) / height_;
    right_panels_ = (g.n + kPanelColumns - 1) / kPanelColumns;
  }

  bool Run() {
    const int64_t items = g_.batches();
    if (items > 1 && work_ < 32 * kSerialWork) {
      std::atomic<bool> ok{true};
      const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / (work_ + 1)));
      ParallelFor(items, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          if (!RunSerial(ItemAt(i))) ok.store(false, std::memory_order_relaxed);
      });
      return ok.load();
    }
    for (int64_t i = 0; i < items; ++i)
      if (!RunItem(ItemAt(i))) return false;
    return true;
  }

 private:
  struct Item {
    Lines left, right;
    Epilogue epilogue;
    bool direct;  // accumulators are out itself
  };

  Item ItemAt(int64_t index) const {
    int64_t a = 0, b = 0, out = 0, addend = 0;
    for (int d = g_.batch_rank - 1; d >= 0; --d) {
      const int64_t i = index % g_.batch[d];
      index /= g_.batch[d];
      a += i * g_.a.batch[d];
      b += i * g_.b.batch[d];
      out += i * g_.out.batch[d];
      addend += i * g_.addend.batch[d];
    }
    Item item;
    item.left = {g_.a.bytes() + a * SizeOf(g_.a.dtype), g_.a.dtype, g_.a.row, g_.a.column};
    item.right = {g_.b.bytes() + b * SizeOf(g_.b.dtype), g_.b.dtype, g_.b.column, g_.b.row};
    item.epilogue =
        MakeEpilogue(g_, P::kAccumulator, g_.out.bytes() + out * SizeOf(g_.out.dtype),
                     g_.addend.data ? g_.addend.bytes() + addend * SizeOf(g_.addend.dtype) : nullptr);
    item.direct = g_.out.dtype == P::kAccumulator && g_.out.column == 1 && !item.epilogue.addend &&
                  !item.epilogue.scaled;
    return item;
  }

  int64_t LeftBytes(int64_t panels) const {
    return panels * height_ * units_ * static_cast<int64_t>(sizeof(Element));
  }
  int64_t RightBytes(int64_t panels) const {
    return panels * kWidth * units_ * static_cast<int64_t>(sizeof(Element));
  }
  int Rows(int64_t panel) const { return static_cast<int>(std::min(height_, g_.m - panel * height_)); }
  int Columns(int64_t panel) const {
    return static_cast<int>(std::min<int64_t>(kPanelColumns, g_.n - panel * kPanelColumns));
  }
  int Vectors(int64_t panel) const { return Columns(panel) * P::kColumns > L::kLanes ? 2 : 1; }

  void PackLeft(Element* to, const Item& item, int64_t begin, int64_t end) const {
    for (int64_t p = begin; p < end; ++p, to += height_ * units_)
      P::PackLeft(to, Rows(p), item.left.Skip(p * height_), Rows(p), g_.k);
  }
  void PackRight(Element* to, const Item& item, int64_t begin, int64_t end) const {
    for (int64_t q = begin; q < end; ++q, to += kWidth * units_)
      P::PackRight(to, Vectors(q) * L::kLanes, item.right.Skip(q * kPanelColumns), Columns(q), g_.k);
  }

  static Element* Buffer(ScratchSlot slot, int64_t bytes) {
    return static_cast<Element*>(Scratch(slot, static_cast<size_t>(bytes)));
  }

  bool RunSerial(const Item& item) const {
    Element* left = Buffer(ScratchSlot::kLeft, LeftBytes(left_panels_));
    Element* right = Buffer(ScratchSlot::kRight, RightBytes(right_panels_));
    if (left == nullptr || right == nullptr) return false;
    PackLeft(left, item, 0, left_panels_);
    PackRight(right, item, 0, right_panels_);
    return Blocks(item, left, 0, left_panels_, right, 0, right_panels_);
  }

  bool RunItem(const Item& item) const {
    if (work_ < kSerialWork) return RunSerial(item);
    // The smaller operand is shared, in pieces that bound its memory.
    const bool share_left = g_.m <= g_.n;
    const int64_t panels = share_left ? left_panels_ : right_panels_;
    const int64_t panel_bytes = share_left ? LeftBytes(1) : RightBytes(1);
    const int64_t piece = std::clamp<int64_t>(kSharedBytes / std::max<int64_t>(1, panel_bytes), 1, panels);
    for (int64_t begin = 0; begin < panels; begin += piece)
      if (!RunShared(item, share_left, begin, std::min(panels, begin + piece))) return false;
    return true;
  }

  bool RunShared(const Item& item, bool share_left, int64_t begin, int64_t end) const {
    const int64_t panel_bytes = share_left ? LeftBytes(1) : RightBytes(1);
    Element* shared = Buffer(ScratchSlot::kShared, panel_bytes * (end - begin));
    if (shared == nullptr) return false;
    const int64_t pack_grain = std::max<int64_t>(1, (64 << 10) / std::max<int64_t>(1, panel_bytes));
    ParallelFor(end - begin, pack_grain, [&](int64_t b, int64_t e) {
      Element* to = shared + b * panel_bytes / static_cast<int64_t>(sizeof(Element));
      if (share_left)
        PackLeft(to, item, begin + b, begin + e);
      else
        PackRight(to, item, begin + b, begin + e);
    });
    const int64_t panels = share_left ? right_panels_ : left_panels_;
    const int64_t strip_bytes = share_left ? RightBytes(1) : LeftBytes(1);
    const int64_t most = std::max<int64_t>(1, kStripBytes / std::max<int64_t>(1, strip_bytes));
    const int64_t least =
        std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / 2 * static_cast<double>(panels) / work_));
    const int64_t strip = std::min(most, std::max(least, (panels + kStrips - 1) / kStrips));
    std::atomic<bool> ok{true};
    ParallelFor((panels + strip - 1) / strip, 1, [&](int64_t b, int64_t e) {
      for (int64_t s = b; s < e; ++s) {
        const int64_t first = s * strip, last = std::min(panels, first + strip);
        Element* own =
            Buffer(share_left ? ScratchSlot::kRight : ScratchSlot::kLeft, strip_bytes * (last - first));
        bool done = own != nullptr;
        if (done && share_left) {
          PackRight(own, item, first, last);
          done = Blocks(item, shared, begin, end, own, first, last);
        } else if (done) {
          PackLeft(own, item, first, last);
          done = Blocks(item, own, first, last, shared, begin, end);
        }
        if (!done) ok.store(false, std::memory_order_relaxed);
      }
    });
    return ok.load();
  }

  // C of left panels [p0, p1) and right panels [q0, q1), both packed, block by block.
  bool Blocks(const Item& item, const Element* left, int64_t p0, int64_t p1, const Element* right, int64_t q0,
              int64_t q1) const {
    Accumulator* acc = nullptr;
    if (!item.direct) {
      acc = static_cast<Accumulator*>(Scratch(
          ScratchSlot::kAccumulator, kBlockLeft * kTileRows * kBlockRight * kWidth * sizeof(Accumulator)));
      if (acc == nullptr) return false;
    }
    for (int64_t p = p0; p < p1; p += kBlockLeft) {
      for (int64_t q = q0; q < q1; q += kBlockRight) {
        const int64_t pe = std::min(p1, p + kBlockLeft), qe = std::min(q1, q + kBlockRight);
        const Element* l = left + (p - p0) * height_ * units_;
        const Element* r = right + (q - q0) * kWidth * units_;
        Block(item, l, p, pe, r, q, qe, acc);
        if (acc == nullptr) continue;
        const int64_t row = p * height_, column = q * kPanelColumns;
        item.epilogue.Store(acc, kBlockRight * kPanelColumns, row, std::min(g_.m, pe * height_) - row, column,
                            std::min(g_.n, qe * kPanelColumns) - column);
      }
    }
    return true;
  }

  void Block(const Item& item, const Element* left, int64_t p0, int64_t p1, const Element* right, int64_t q0,
             int64_t q1, Accumulator* acc) const {
    const int64_t pieces = std::max<int64_t>(1, (units_ + kDepth - 1) / kDepth);
    const int64_t depth = (units_ + pieces - 1) / pieces;
    for (int64_t u = 0; u < units_; u += depth) {
      const int64_t d = std::min(depth, units_ - u);
      for (int64_t p = p0; p < p1; ++p) {
        const int rows = Rows(p);
        const Element* a = left + (p - p0) * height_ * units_ + u * rows;
        for (int64_t q = q0; q < q1; ++q) {
          const int vectors = Vectors(q);
          const Element* b = right + (q - q0) * kWidth * units_ + u * vectors * L::kLanes;
          const TileKernel<L> kernel = kTiles<L>.kernels[vectors - 1][rows - 1];
          if (acc != nullptr) {
            constexpr int64_t ld = kBlockRight * kWidth;
            kernel(d, a, b, acc + (p - p0) * height_ * ld + (q - q0) * kWidth, ld, u > 0);
          } else {
            DirectTile(item, kernel, d, a, b, p, q, u > 0);
          }
        }
      }
    }
  }

  // A tile whose accumulators are out's own memory; one that reaches over out's edge goes through a buffer.
  void DirectTile(const Item& item, TileKernel<L> kernel, int64_t depth, const Element* a, const Element* b,
                  int64_t p, int64_t q, bool add) const {
    const int64_t ld = item.epilogue.out_row * P::kColumns;
    Accumulator* to = reinterpret_cast<Accumulator*>(item.epilogue.out) + p * height_ * ld + q * kWidth;
    const int columns = Columns(q) * P::kColumns;
    if (columns == Vectors(q) * L::kLanes) return kernel(depth, a, b, to, ld, add);
    alignas(64) Accumulator edge[kTileRows * kWidth];
    kernel(depth, a, b, edge, kWidth, false);
    const int rows = Rows(p);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j)
        to[i * ld + j] = add ? to[i * ld + j] + edge[i * kWidth + j] : edge[i * kWidth + j];
  }

  const GemmArgs& g_;
  const int64_t units_;
  const double work_;  // multiply-adds of one item, in units
  int64_t left_panels_, height_, right_panels_;
};

}  // namespace anycann
