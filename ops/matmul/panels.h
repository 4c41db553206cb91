// Small products on panels that the caller packs and keeps: for engines that multiply many blocks of the same
// operands, such as attention. Everything here runs on the calling thread.
#pragma once

#include <algorithm>

#include "ops/matmul/pack.h"
#include "ops/matmul/tile.h"

namespace anycann {

inline constexpr int kPanelWidth = kTileVectors * FloatLanes::kLanes;  // columns of a right panel

constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Floats that `lines` rows (columns) of depth `k` take as left (right) panels.
constexpr int64_t LeftPanelFloats(int64_t lines, int64_t k) { return RoundUp(lines, kTileRows) * k; }
constexpr int64_t RightPanelFloats(int64_t lines, int64_t k) { return RoundUp(lines, kPanelWidth) * k; }

// Panels of kTileRows rows, `k` deep.
inline void PackLeftPanels(float* to, const Lines& src, int64_t lines, int64_t k) {
  for (int64_t i = 0; i < lines; i += kTileRows, to += kTileRows * k) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileRows, lines - i));
    Pack(to, rows, src.Skip(i), rows, k);
  }
}
// Panels of kPanelWidth columns, `k` deep; absent columns are zero.
inline void PackRightPanels(float* to, const Lines& src, int64_t lines, int64_t k) {
  for (int64_t i = 0; i < lines; i += kPanelWidth, to += kPanelWidth * k)
    Pack(to, kPanelWidth, src.Skip(i), static_cast<int>(std::min<int64_t>(kPanelWidth, lines - i)), k);
}

// c (m rows, stride ld, n columns rounded up to kPanelWidth) = or += left * right over `depth` units, the
// first of which is at `left` and `right`; panels lie left_depth and right_depth units apart.
inline void MultiplyPanels(const float* left, int64_t left_depth, int64_t m, const float* right,
                           int64_t right_depth, int64_t n, int64_t depth, float* c, int64_t ld, bool add) {
  for (int64_t i = 0; i < m; i += kTileRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileRows, m - i));
    const TileKernel<FloatLanes> kernel = FindTile<FloatLanes>(kTileVectors, rows);
    for (int64_t j = 0; j < n; j += kPanelWidth)
      kernel(depth, left + i * left_depth, right + j * right_depth, c + i * ld + j, ld, add);
  }
}

}  // namespace anycann
