// Numbers of 4 bits in memory: two in a byte, the lower bits first; eight in an int32.
#pragma once

#include <cstdint>

namespace anycann {

inline void UnpackInt4(const void* from, int64_t n, int8_t* to) {
  const int8_t* bytes = static_cast<const int8_t*>(from);
  for (int64_t i = 0; i < n / 2; ++i) {
    const int byte = bytes[i];
    to[2 * i] = static_cast<int8_t>(static_cast<int8_t>(byte << 4) >> 4);
    to[2 * i + 1] = static_cast<int8_t>(byte >> 4);
  }
  if (n % 2 != 0) to[n - 1] = static_cast<int8_t>(static_cast<int8_t>(bytes[n / 2] << 4) >> 4);
}

// T holds integers of -8 to 7. An odd n leaves the upper half of the last byte zero.
template <class T>
void PackInt4(const T* from, int64_t n, void* to) {
  uint8_t* bytes = static_cast<uint8_t*>(to);
  for (int64_t i = 0; i < n / 2; ++i)
    bytes[i] = static_cast<uint8_t>((static_cast<int>(from[2 * i]) & 15) |
                                    (static_cast<int>(from[2 * i + 1]) & 15) << 4);
  if (n % 2 != 0) bytes[n / 2] = static_cast<uint8_t>(static_cast<int>(from[n - 1]) & 15);
}

}  // namespace anycann
