// JPEG data to pixels, by libjpeg.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace anycann::aclop {

struct JpegSettings {
  int64_t channels;  // 1: grey, 3: red, green, blue
  int64_t ratio;     // the image is made smaller by this: 1, 2, 4, 8
  bool fancy_upscaling, fast;
  double acceptable;  // the part of the lines that must be whole; above 1: all data
};

// data: `size` bytes of a JPEG file, or of a string of GE's that holds one. Writes [height, width, channels].
// Errors name what libjpeg says, a size that is not the image's, and a missing libjpeg (it is loaded when
// first needed).
Status DecodeJpegTo(const JpegSettings& settings, const uint8_t* data, int64_t size, int64_t height,
                    int64_t width, uint8_t* pixels);

}  // namespace anycann::aclop
