// What an Ascend 910B1 reports about itself: clients size their grids and buffers with these figures.
#pragma once

#include <cstdint>

namespace anycann::device_facts {

inline constexpr uint32_t kCubeCores = 24, kVectorCores = 48;
inline constexpr int64_t kL2Bytes = int64_t{192} << 20;
inline constexpr int64_t kUnifiedBufferBytes = int64_t{192} << 10;  // of one vector core

}  // namespace anycann::device_facts
