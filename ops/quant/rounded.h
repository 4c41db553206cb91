// A value as a device keeps it that works in half precision.
#pragma once

#include "base/dtype.h"

namespace anycann {

inline float Rounded(DType type, float v) {
  return type == DType::kFloat16    ? static_cast<float>(Half(v))
         : type == DType::kBFloat16 ? static_cast<float>(BFloat16(v))
                                    : v;
}

}  // namespace anycann
