// Copies of more than one piece, and fills with words.
#include <cstring>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "libs/ascendcl/door.h"
#include "runtime/memory.h"

using namespace anycann;

namespace {

struct Rectangle {
  char* to;
  const char* from;
  size_t to_pitch, from_pitch, width, height;
};

// Rows are copied in pieces of about this many bytes per core.
constexpr int64_t kGrainBytes = 256 << 10;

Status CopyRectangle(const Rectangle& r) {
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / static_cast<int64_t>(r.width));
  ParallelFor(static_cast<int64_t>(r.height), grain, [&](int64_t begin, int64_t end) {
    for (auto y = static_cast<size_t>(begin); y < static_cast<size_t>(end); ++y)
      std::memcpy(r.to + y * r.to_pitch, r.from + y * r.from_pitch, r.width);
  });
  return Status();
}

Status Check(const char* function, void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
             size_t height, Rectangle* r) {
  if (width > dpitch || width > spitch)
    return Error(kInvalidParam, "{}: width is {} bytes, more than a pitch (dpitch {}, spitch {})", function,
                 width, dpitch, spitch);
  if (height > std::numeric_limits<size_t>::max() / 2 / std::max(dpitch, spitch))
    return Error(kInvalidParam, "{}: height {} times pitch {} is too large", function, height,
                 std::max(dpitch, spitch));
  RETURN_IF_ERROR(memory::CheckRange(function, "dst", dst, (height - 1) * dpitch + width));
  RETURN_IF_ERROR(memory::CheckRange(function, "src", src, (height - 1) * spitch + width));
  *r = {static_cast<char*>(dst), static_cast<const char*>(src), dpitch, spitch, width, height};
  return Status();
}

ThreadPool* CurrentPool() {
  Context* c = Context::Current();
  return c != nullptr ? c->device()->pool() : nullptr;
}

struct Batch {
  void** to;
  size_t* room;
  void** from;
  size_t* sizes;
  size_t count;
};

Status CheckBatch(const char* function, const Batch& b, size_t* fail_index) {
  if (b.to == nullptr || b.room == nullptr || b.from == nullptr || b.sizes == nullptr)
    return Error(kInvalidParam, "{}: dsts, destMaxs, srcs or sizes is null", function);
  for (size_t i = 0; i < b.count; ++i) {
    Status status = b.sizes[i] > b.room[i]
                        ? Error(kInvalidParam, "{}: sizes[{}] is {} but destMaxs[{}] is {}", function, i,
                                b.sizes[i], i, b.room[i])
                        : memory::CheckRange(function, "dsts", b.to[i], b.sizes[i]);
    if (status.ok()) status = memory::CheckRange(function, "srcs", b.from[i], b.sizes[i]);
    if (status.ok()) continue;
    if (fail_index != nullptr) *fail_index = i;
    return status;
  }
  return Status();
}

aclError CopyBatch(const char* function, const Batch& b, size_t* fail_index) {
  return Door(function, [&] {
    RETURN_IF_ERROR(CheckBatch(function, b, fail_index));
    const ThreadPool::Scope scope(CurrentPool());
    for (size_t i = 0; i < b.count; ++i) RETURN_IF_ERROR(memory::Copy(b.to[i], b.from[i], b.sizes[i]));
    return Status();
  });
}

aclError CopyBatchOn(const char* function, const Batch& b, size_t* fail_index, aclrtStream stream) {
  return OnStream(function, stream, [&](Stream* s) {
    RETURN_IF_ERROR(CheckBatch(function, b, fail_index));
    for (size_t i = 0; i < b.count; ++i)
      RETURN_IF_ERROR(memory::CopyOn(s, function, b.to[i], b.from[i], b.sizes[i]));
    return Status();
  });
}

Status CheckWords(const char* function, void* ptr, size_t memSize, size_t n) {
  if (n > memSize / 4)
    return Error(kInvalidParam, "{}: N is {} words but memSize is {} bytes", function, n, memSize);
  return memory::CheckRange(function, "ptr", ptr, n * 4);
}

void FillWords(void* ptr, uint32_t value, size_t n) {
  ParallelFor(static_cast<int64_t>(n), kGrainBytes / 4, [&](int64_t begin, int64_t end) {
    auto* p = static_cast<uint32_t*>(ptr);
    for (int64_t i = begin; i < end; ++i) p[i] = value;
  });
}

// What aclrtSetMemcpyDesc makes and aclrtMemcpyAsyncWithDesc takes, in the client's memory.
struct CopyDescriptor {
  uint64_t magic;
  void* to;
  const void* from;
  size_t size;
};
constexpr uint64_t kCopyMagic = 0x616e7963616e6e63;

}  // namespace

aclError aclrtMemcpy2d(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height,
                       aclrtMemcpyKind) {
  if (width == 0 || height == 0) return 0;
  return Door(__func__, [&] {
    Rectangle r;
    RETURN_IF_ERROR(Check("aclrtMemcpy2d", dst, dpitch, src, spitch, width, height, &r));
    const ThreadPool::Scope scope(CurrentPool());
    return CopyRectangle(r);
  });
}

aclError aclrtMemcpy2dAsync(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
                            size_t height, aclrtMemcpyKind, aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    if (width == 0 || height == 0) return Status();
    Rectangle r;
    RETURN_IF_ERROR(Check("aclrtMemcpy2dAsync", dst, dpitch, src, spitch, width, height, &r));
    Plan* plan = Plan::Create("aclrtMemcpy2dAsync", PlanKind::kCopy);
    if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtMemcpy2dAsync: out of memory");
    plan->implementation = "memcpy by rows";
    plan->cost.bytes = 2 * static_cast<double>(width) * static_cast<double>(height);
    plan->SetKernel([r](const Run&) { return CopyRectangle(r); });
    return s->Submit(plan);
  });
}

aclError aclrtMemcpyBatch(void** dsts, size_t* destMaxs, void** srcs, size_t* sizes, size_t numBatches,
                          aclrtMemcpyBatchAttr*, size_t*, size_t, size_t* failIndex) {
  return CopyBatch(__func__, {dsts, destMaxs, srcs, sizes, numBatches}, failIndex);
}
aclError aclrtMemcpyBatchV2(void** dsts, size_t* destMaxs, void** srcs, size_t* sizes, size_t numBatches,
                            aclrtMemcpyBatchAttr*, size_t*, size_t) {
  return CopyBatch(__func__, {dsts, destMaxs, srcs, sizes, numBatches}, nullptr);
}
aclError aclrtMemcpyBatchAsync(void** dsts, size_t* destMaxs, void** srcs, size_t* sizes, size_t numBatches,
                               aclrtMemcpyBatchAttr*, size_t*, size_t, size_t* failIndex,
                               aclrtStream stream) {
  return CopyBatchOn(__func__, {dsts, destMaxs, srcs, sizes, numBatches}, failIndex, stream);
}
aclError aclrtMemcpyBatchAsyncV2(void** dsts, size_t* destMaxs, void** srcs, size_t* sizes, size_t numBatches,
                                 aclrtMemcpyBatchAttr*, size_t*, size_t, aclrtStream stream) {
  return CopyBatchOn(__func__, {dsts, destMaxs, srcs, sizes, numBatches}, nullptr, stream);
}

aclError aclrtMemcpyAsyncWithOffset(void** dst, size_t destMax, size_t dstDataOffset, const void** src,
                                    size_t count, size_t srcDataOffset, aclrtMemcpyKind, aclrtStream stream) {
  ANYCANN_NOT_NULL(dst);
  ANYCANN_NOT_NULL(src);
  return OnStream(__func__, stream, [&](Stream* s) {
    if (dstDataOffset > destMax || count > destMax - dstDataOffset)
      return Error(kInvalidParam, "aclrtMemcpyAsyncWithOffset: {} bytes at offset {} leave destMax, {} bytes",
                   count, dstDataOffset, destMax);
    Plan* plan = Plan::Create("aclrtMemcpyAsyncWithOffset", PlanKind::kCopy);
    if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtMemcpyAsyncWithOffset: out of memory");
    plan->cost.bytes = 2 * static_cast<double>(count);
    // The addresses are read when the stream gets there: they may be results of earlier operations.
    plan->SetKernel([=](const Run&) {
      char* to = static_cast<char*>(*dst) + dstDataOffset;
      const char* from = static_cast<const char*>(*src) + srcDataOffset;
      RETURN_IF_ERROR(memory::CheckRange("aclrtMemcpyAsyncWithOffset", "*dst", to, count));
      RETURN_IF_ERROR(memory::CheckRange("aclrtMemcpyAsyncWithOffset", "*src", from, count));
      return memory::Copy(to, from, count);
    });
    return s->Submit(plan);
  });
}

aclError aclrtGetMemcpyDescSize(aclrtMemcpyKind, size_t* descSize) {
  ANYCANN_NOT_NULL(descSize);
  *descSize = sizeof(CopyDescriptor);
  return 0;
}

aclError aclrtSetMemcpyDesc(void* desc, aclrtMemcpyKind, void* srcAddr, void* dstAddr, size_t count, void*) {
  ANYCANN_NOT_NULL(desc);
  ANYCANN_NOT_NULL(srcAddr);
  ANYCANN_NOT_NULL(dstAddr);
  const CopyDescriptor d{kCopyMagic, dstAddr, srcAddr, count};
  std::memcpy(desc, &d, sizeof(d));
  return 0;
}

aclError aclrtMemcpyAsyncWithDesc(void* desc, aclrtMemcpyKind, aclrtStream stream) {
  ANYCANN_NOT_NULL(desc);
  return OnStream(__func__, stream, [&](Stream* s) {
    CopyDescriptor d;
    std::memcpy(&d, desc, sizeof(d));
    if (d.magic != kCopyMagic)
      return Error(kInvalidParam, "aclrtMemcpyAsyncWithDesc: desc was not made by aclrtSetMemcpyDesc");
    RETURN_IF_ERROR(memory::CheckRange("aclrtMemcpyAsyncWithDesc", "dst", d.to, d.size));
    RETURN_IF_ERROR(memory::CheckRange("aclrtMemcpyAsyncWithDesc", "src", d.from, d.size));
    return memory::CopyOn(s, "aclrtMemcpyAsyncWithDesc", d.to, d.from, d.size);
  });
}

aclError aclrtMemsetD32(void* ptr, size_t memSize, uint32_t value, size_t N) {
  if (N == 0) return 0;
  return Door(__func__, [&] {
    RETURN_IF_ERROR(CheckWords("aclrtMemsetD32", ptr, memSize, N));
    const ThreadPool::Scope scope(CurrentPool());
    FillWords(ptr, value, N);
    return Status();
  });
}

aclError aclrtMemsetD32Async(void* ptr, size_t memSize, uint32_t value, size_t N, aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    if (N == 0) return Status();
    RETURN_IF_ERROR(CheckWords("aclrtMemsetD32Async", ptr, memSize, N));
    Plan* plan = Plan::Create("aclrtMemsetD32Async", PlanKind::kCopy);
    if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtMemsetD32Async: out of memory");
    plan->cost.bytes = 4 * static_cast<double>(N);
    plan->SetKernel([ptr, value, N](const Run&) {
      FillWords(ptr, value, N);
      return Status();
    });
    return s->Submit(plan);
  });
}

// A prefetch into a cache that the processor manages by itself: checked, then done.
aclError aclrtCmoAsync(void* src, size_t size, aclrtCmoType, aclrtStream stream) {
  return OnStream(__func__, stream,
                  [&](Stream*) { return memory::CheckRange("aclrtCmoAsync", "src", src, size); });
}
