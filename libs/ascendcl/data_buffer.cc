// aclDataBuffer: an address and a size that a client hands to operators and models.
#include "acl/acl_base.h"
#include "base/error.h"
#include "ops/aclop/descriptors.h"

namespace {

using anycann::aclop::Buffer;

aclError Refuse(const char* function, const void* handle) {
  return anycann::RecordError(anycann::Error(anycann::kInvalidParam, "{}: dataBuffer {}", function,
                                             handle == nullptr ? "is null" : "is no live aclDataBuffer"));
}

}  // namespace

aclDataBuffer* aclCreateDataBuffer(void* data, size_t size) {
  aclDataBuffer* handle = anycann::aclop::MakeBuffer();
  if (handle == nullptr) {
    anycann::RecordError(anycann::Error(anycann::kBadAlloc, "aclCreateDataBuffer: out of memory"));
    return nullptr;
  }
  *anycann::aclop::Find(handle) = {data, size};
  return handle;
}

aclError aclDestroyDataBuffer(const aclDataBuffer* dataBuffer) {
  return anycann::aclop::Destroy(dataBuffer) ? 0 : Refuse("aclDestroyDataBuffer", dataBuffer);
}

aclError aclUpdateDataBuffer(aclDataBuffer* dataBuffer, void* data, size_t size) {
  Buffer* buffer = anycann::aclop::Find(dataBuffer);
  if (buffer == nullptr) return Refuse("aclUpdateDataBuffer", dataBuffer);
  *buffer = {data, size};
  return 0;
}

void* aclGetDataBufferAddr(const aclDataBuffer* dataBuffer) {
  const Buffer* buffer = anycann::aclop::Find(dataBuffer);
  if (buffer == nullptr) Refuse("aclGetDataBufferAddr", dataBuffer);
  return buffer != nullptr ? buffer->data : nullptr;
}

size_t aclGetDataBufferSizeV2(const aclDataBuffer* dataBuffer) {
  const Buffer* buffer = anycann::aclop::Find(dataBuffer);
  if (buffer == nullptr) Refuse("aclGetDataBufferSizeV2", dataBuffer);
  return buffer != nullptr ? buffer->size : 0;
}

uint32_t aclGetDataBufferSize(const aclDataBuffer* dataBuffer) {
  const Buffer* buffer = anycann::aclop::Find(dataBuffer);
  if (buffer == nullptr) Refuse("aclGetDataBufferSize", dataBuffer);
  return buffer != nullptr ? static_cast<uint32_t>(buffer->size)
                           : 0;  // the interface's type: V2 has all bits
}
