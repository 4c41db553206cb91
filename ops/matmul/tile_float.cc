#include "ops/matmul/tile.h"

namespace anycann {

template <>
TileKernel<FloatLanes> FindTile<FloatLanes>(int vectors, int rows) {
  static constexpr auto table = MakeTiles<FloatLanes>(std::make_integer_sequence<int, kTileRows>());
  return table.kernels[vectors - 1][rows - 1];
}
template <>
TileKernel<DoubleLanes> FindTile<DoubleLanes>(int vectors, int rows) {
  static constexpr auto table = MakeTiles<DoubleLanes>(std::make_integer_sequence<int, kTileRows>());
  return table.kernels[vectors - 1][rows - 1];
}

}  // namespace anycann
