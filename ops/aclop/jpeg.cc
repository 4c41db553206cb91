#include "ops/aclop/jpeg.h"

#include <dlfcn.h>
#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace anycann::aclop {
namespace {

// libjpeg is loaded by its name and kept to ourselves: clients bring other versions with names of the same
// functions.
struct Library {
  decltype(&jpeg_std_error) std_error = nullptr;
  decltype(&jpeg_CreateDecompress) create = nullptr;
  decltype(&jpeg_mem_src) mem_src = nullptr;
  decltype(&jpeg_read_header) read_header = nullptr;
  decltype(&jpeg_start_decompress) start = nullptr;
  decltype(&jpeg_read_scanlines) read_scanlines = nullptr;
  decltype(&jpeg_destroy_decompress) destroy = nullptr;
  bool loaded = false;

  Library() {
    void* handle = dlopen("libjpeg.so.62", RTLD_NOW | RTLD_LOCAL);
    const auto find = [&](const char* name, auto* function) {
      *function = handle == nullptr
                      ? nullptr
                      : reinterpret_cast<std::decay_t<decltype(*function)>>(dlsym(handle, name));
      return *function != nullptr;
    };
    loaded = find("jpeg_std_error", &std_error) && find("jpeg_CreateDecompress", &create) &&
             find("jpeg_mem_src", &mem_src) && find("jpeg_read_header", &read_header) &&
             find("jpeg_start_decompress", &start) && find("jpeg_read_scanlines", &read_scanlines) &&
             find("jpeg_destroy_decompress", &destroy);
  }
};

struct Decoder {
  jpeg_error_mgr errors;  // first: libjpeg hands out its address
  jpeg_decompress_struct info;
  std::jmp_buf leave;
  char sentence[JMSG_LENGTH_MAX];
  int64_t whole_lines;
  bool wrong_size;
};

void Leave(j_common_ptr info) {
  Decoder* d = reinterpret_cast<Decoder*>(info->err);
  d->errors.format_message(info, d->sentence);
  std::longjmp(d->leave, 1);
}

// False where libjpeg gave up. Nothing here has a destructor, since errors jump out of it.
bool Decode(const Library& lib, const JpegSettings& s, const uint8_t* data, int64_t size, int64_t height,
            int64_t width, uint8_t* pixels, Decoder* d) {
  if (setjmp(d->leave) != 0) return false;
  lib.create(&d->info, JPEG_LIB_VERSION, sizeof(d->info));
  lib.mem_src(&d->info, data, static_cast<unsigned long>(size));
  lib.read_header(&d->info, TRUE);
  d->info.out_color_space = s.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  d->info.scale_num = 1;
  d->info.scale_denom = static_cast<unsigned>(s.ratio);
  d->info.do_fancy_upsampling = s.fancy_upscaling ? TRUE : FALSE;
  d->info.dct_method = s.fast ? JDCT_IFAST : JDCT_ISLOW;
  lib.start(&d->info);
  if (d->info.output_height != height || d->info.output_width != width ||
      d->info.output_components != s.channels) {
    d->wrong_size = true;
    return true;
  }
  while (d->info.output_scanline < d->info.output_height) {
    JSAMPROW row = pixels + d->info.output_scanline * width * s.channels;
    lib.read_scanlines(&d->info, &row, 1);
    if (d->errors.num_warnings == 0) d->whole_lines = d->info.output_scanline;
  }
  return true;
}

}  // namespace

Status DecodeJpegTo(const JpegSettings& s, const uint8_t* data, int64_t size, int64_t height, int64_t width,
                    uint8_t* pixels) {
  static const Library library;
  if (!library.loaded)
    return Error(kInternalError,
                 "DecodeJpeg: libjpeg.so.62 can't be loaded: install Debian's package libjpeg62-turbo");
  // A string of GE's begins with where its bytes are and how many.
  int64_t head[2];
  constexpr int64_t kHead = sizeof head;
  if (size > kHead) {
    std::memcpy(head, data, sizeof head);
    if (head[0] == kHead && head[1] >= 0 && head[1] <= size - kHead) data += kHead, size = head[1];
  }
  Decoder d{};
  d.info.err = library.std_error(&d.errors);
  d.errors.error_exit = Leave;
  d.errors.output_message = [](j_common_ptr) {};
  const bool decoded = Decode(library, s, data, size, height, width, pixels, &d);
  const uint32_t found_height = d.info.output_height, found_width = d.info.output_width;
  library.destroy(&d.info);
  if (!decoded) return Error(kParamInvalid, "DecodeJpeg: contents of {} bytes: {}", size, d.sentence);
  if (d.wrong_size)
    return Error(kParamInvalid, "DecodeJpeg: image is {} x {}, but the data hold {} x {}", height, width,
                 found_height, found_width);
  const double whole = height > 0 ? static_cast<double>(d.whole_lines) / static_cast<double>(height) : 1;
  if (d.errors.num_warnings > 0 && whole < s.acceptable)
    return Error(kParamInvalid,
                 "DecodeJpeg: contents of {} bytes are damaged or cut off: {} of {} lines are whole, and "
                 "try_recover_truncated and acceptable_fraction don't allow that",
                 size, d.whole_lines, height);
  return Status();
}

}  // namespace anycann::aclop
