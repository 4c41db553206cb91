#include "ops/matmul/tile.h"

namespace anycann {

template <>
TileKernel<IntegerLanes<uint32_t>> FindTile<IntegerLanes<uint32_t>>(int vectors, int rows) {
  static constexpr auto table =
      MakeTiles<IntegerLanes<uint32_t>>(std::make_integer_sequence<int, kTileRows>());
  return table.kernels[vectors - 1][rows - 1];
}
template <>
TileKernel<IntegerLanes<uint64_t>> FindTile<IntegerLanes<uint64_t>>(int vectors, int rows) {
  static constexpr auto table =
      MakeTiles<IntegerLanes<uint64_t>>(std::make_integer_sequence<int, kTileRows>());
  return table.kernels[vectors - 1][rows - 1];
}

}  // namespace anycann
