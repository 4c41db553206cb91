// Maximum pooling over planes, forward and backward.
//
// The place of a maximum is kept as an index into the input's plane, or as the number of the window's tap
// (one or two bytes instead of four or eight: a quarter of the traffic between forward and backward). Ties go
// to the first element, NaN counts as the largest, as in torch.
#pragma once

#include "base/status.h"
#include "ops/pooling/geometry.h"

namespace anycann {

enum class PoolPlace : uint8_t { kNone, kIndex32, kIndex64, kTap8, kTap16 };
constexpr int64_t SizeOf(PoolPlace p) {
  switch (p) {
    case PoolPlace::kNone: return 0;
    case PoolPlace::kIndex32: return 4;
    case PoolPlace::kIndex64: return 8;
    case PoolPlace::kTap8: return 1;
    case PoolPlace::kTap16: return 2;
  }
  return 0;
}

// T is float, double or int64_t: the type in which the values are compared. `places`: dense memory of planes
// * out_plane entries, unless kNone.
template <class T>
Status RunMaxPool(const char* op, const PoolGeometry& g, PoolPlace place, const TensorView& in,
                  const TensorView& out, void* places);
template <class T>
Status RunMaxPoolBackward(const char* op, const PoolGeometry& g, PoolPlace place, const TensorView& dout,
                          const void* places, const TensorView& din);

}  // namespace anycann
