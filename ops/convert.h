// Moves of elements between types and layouts: the loads and stores of every engine that works on blocks.
#pragma once

#include <cstdint>

#include "base/tensor_view.h"
#include "ops/elementwise/engine.h"
#include "ops/handles.h"

namespace anycann {

// dst[i] = cast(src[i]) for n contiguous elements. Casts as torch's CPU: to bool "is not zero", complex to
// real takes the real part, float to integer truncates. The ranges must not overlap unless dst == src and the
// types are equal.
void Convert(void* dst, DType dst_type, const void* src, DType src_type, int64_t n);

// Gathers n elements of `size` bytes, `stride` elements apart, into contiguous memory; and scatters them.
void PackStrided(void* dst, const void* src, int64_t stride, int64_t n, int64_t size);
void UnpackStrided(void* dst, int64_t stride, const void* src, int64_t n, int64_t size);

// Elementwise kernels that move elements of any type: out = in, and out = the element at the kernel's
// parameters.
ElementwiseKernel CopyKernel(DType t);
ElementwiseKernel FillKernel(DType t);

// Calls f(x) with an unsigned integer (or a pair) of `size` bytes: for moves that don't look at the value.
struct Bytes16 {
  uint64_t low, high;
};
template <class F>
void VisitBytes(int64_t size, F&& f) {
  switch (size) {
    case 1: f(uint8_t{}); break;
    case 2: f(uint16_t{}); break;
    case 4: f(uint32_t{}); break;
    case 8: f(uint64_t{}); break;
    case 16: f(Bytes16{}); break;
  }
}

// memcpy of whole cache lines past the caches (no read-for-ownership); heads and tails go the ordinary way. A
// fence makes the bytes visible to other threads: StreamFence at the end of a thread's part.
void StreamCopy(void* dst, const void* src, int64_t n);
void StreamFence();

// Copies src to dst (same shape), casting where the types differ, any strides, in parallel.
void CopyCast(const TensorView& dst, const TensorView& src);

// A scalar as the bytes of one element.
struct Element {
  alignas(16) unsigned char bytes[16];
};
Element ElementOf(const ScalarValue& value, DType dtype);

// The value of a tensor of one element: a count or a scale that the device holds.
double ReadDouble(const TensorView& v);
int64_t ReadInt64(const TensorView& v);

// Fills dst with the element at `value`, which has dst's type.
void Fill(const TensorView& dst, const void* value);

}  // namespace anycann
