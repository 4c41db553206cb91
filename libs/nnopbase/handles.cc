// libnnopbase's doors for aclnn's handles: create, destroy, query.
#include "ops/handles.h"

#include <new>

#include "aclnn/acl_meta.h"
#include "base/error.h"
#include "ops/element_bytes.h"

using anycann::DType;
using anycann::Error;
using anycann::RecordError;
namespace handles = anycann::handles;

namespace {

// Every query checks its handle and result pointers in the same words.
template <class H>
anycann::Status CheckQuery(const char* function, const H* handle,
                           std::initializer_list<const void*> results) {
  if (handle == nullptr) return Error(anycann::kParamNullptr, "{}: the handle is null", function);
  if (!handles::Alive(handle))
    return Error(anycann::kParamInvalid, "{}: {} is not a live {}", function,
                 static_cast<const void*>(handle), anycann::HandleTraits<H>::kName);
  for (const void* r : results)
    if (r == nullptr) return Error(anycann::kParamNullptr, "{}: a result pointer is null", function);
  return anycann::Status();
}

template <class H>
aclnnStatus DestroyHandle(const char* function, const H* handle) {
  if (handle == nullptr) return 0;  // as free(NULL)
  if (handles::Destroy(handle)) return 0;
  return RecordError(Error(anycann::kParamInvalid,
                           "{}: {} is not a live {}: destroyed before, or another kind of handle", function,
                           static_cast<const void*>(handle), anycann::HandleTraits<H>::kName));
}

// The caller delete[]s the result (aclnn/conventions.md).
aclnnStatus CopyOut(const int64_t* values, int64_t count, int64_t** out, uint64_t* out_count) {
  auto* copy = new (std::nothrow) int64_t[static_cast<size_t>(count > 0 ? count : 1)];
  if (copy == nullptr) return RecordError(Error(anycann::kInner, "no memory for {} dimensions", count));
  for (int64_t i = 0; i < count; ++i) copy[i] = values[i];
  *out = copy;
  *out_count = static_cast<uint64_t>(count);
  return 0;
}

template <class H>
aclnnStatus GetSize(const char* function, const H* handle, uint64_t* size) {
  if (auto s = CheckQuery(function, handle, {size}); !s.ok()) return RecordError(s);
  *size = handle->size;
  return 0;
}

}  // namespace

extern "C" {

aclTensor* aclCreateTensor(const int64_t* viewDims, uint64_t viewDimsNum, aclDataType dataType,
                           const int64_t* stride, int64_t offset, aclFormat format,
                           const int64_t* storageDims, uint64_t storageDimsNum, void* tensorData) {
  return handles::CreateTensor(viewDims, viewDimsNum, static_cast<DType>(dataType), stride, offset, format,
                               storageDims, storageDimsNum, tensorData);
}
aclnnStatus aclInitTensor(aclTensor* tensor, const int64_t* viewDims, uint64_t viewDimsNum,
                          aclDataType dataType, const int64_t* stride, int64_t offset, aclFormat format,
                          const int64_t* storageDims, uint64_t storageDimsNum, void* tensorDataAddr) {
  if (auto s = CheckQuery("aclInitTensor", tensor, {}); !s.ok()) return RecordError(s);
  return RecordError(handles::InitTensor(tensor, viewDims, viewDimsNum, static_cast<DType>(dataType), stride,
                                         offset, format, storageDims, storageDimsNum, tensorDataAddr));
}
aclScalar* aclCreateScalar(void* value, aclDataType dataType) {
  return handles::CreateScalar(value, static_cast<DType>(dataType));
}
aclIntArray* aclCreateIntArray(const int64_t* value, uint64_t size) {
  return handles::CreateIntArray(value, size);
}
aclFloatArray* aclCreateFloatArray(const float* value, uint64_t size) {
  return handles::CreateFloatArray(value, size);
}
aclBoolArray* aclCreateBoolArray(const bool* value, uint64_t size) {
  return handles::CreateBoolArray(value, size);
}
aclTensorList* aclCreateTensorList(const aclTensor* const* value, uint64_t size) {
  return handles::CreateTensorList(value, size);
}
aclScalarList* aclCreateScalarList(const aclScalar* const* value, uint64_t size) {
  return handles::CreateScalarList(value, size);
}

aclnnStatus aclDestroyTensor(const aclTensor* tensor) { return DestroyHandle("aclDestroyTensor", tensor); }
aclnnStatus aclDestroyScalar(const aclScalar* scalar) { return DestroyHandle("aclDestroyScalar", scalar); }
aclnnStatus aclDestroyIntArray(const aclIntArray* array) {
  return DestroyHandle("aclDestroyIntArray", array);
}
aclnnStatus aclDestroyFloatArray(const aclFloatArray* array) {
  return DestroyHandle("aclDestroyFloatArray", array);
}
aclnnStatus aclDestroyBoolArray(const aclBoolArray* array) {
  return DestroyHandle("aclDestroyBoolArray", array);
}
aclnnStatus aclDestroyTensorList(const aclTensorList* array) {
  return DestroyHandle("aclDestroyTensorList", array);
}
aclnnStatus aclDestroyScalarList(const aclScalarList* array) {
  return DestroyHandle("aclDestroyScalarList", array);
}

aclnnStatus aclGetViewShape(const aclTensor* tensor, int64_t** viewDims, uint64_t* viewDimsNum) {
  if (auto s = CheckQuery("aclGetViewShape", tensor, {viewDims, viewDimsNum}); !s.ok()) return RecordError(s);
  return CopyOut(tensor->view.dims, tensor->view.rank, viewDims, viewDimsNum);
}
aclnnStatus aclGetStorageShape(const aclTensor* tensor, int64_t** storageDims, uint64_t* storageDimsNum) {
  if (auto s = CheckQuery("aclGetStorageShape", tensor, {storageDims, storageDimsNum}); !s.ok())
    return RecordError(s);
  return CopyOut(tensor->storage_dims, tensor->storage_rank, storageDims, storageDimsNum);
}
aclnnStatus aclGetViewStrides(const aclTensor* tensor, int64_t** stridesValue, uint64_t* stridesNum) {
  if (auto s = CheckQuery("aclGetViewStrides", tensor, {stridesValue, stridesNum}); !s.ok())
    return RecordError(s);
  return CopyOut(tensor->view.strides, tensor->view.rank, stridesValue, stridesNum);
}
aclnnStatus aclGetViewOffset(const aclTensor* tensor, int64_t* offset) {
  if (auto s = CheckQuery("aclGetViewOffset", tensor, {offset}); !s.ok()) return RecordError(s);
  *offset = tensor->offset;
  return 0;
}
aclnnStatus aclGetFormat(const aclTensor* tensor, aclFormat* format) {
  if (auto s = CheckQuery("aclGetFormat", tensor, {format}); !s.ok()) return RecordError(s);
  *format = static_cast<aclFormat>(tensor->view.format);
  return 0;
}
aclnnStatus aclGetDataType(const aclTensor* tensor, aclDataType* dataType) {
  if (auto s = CheckQuery("aclGetDataType", tensor, {dataType}); !s.ok()) return RecordError(s);
  *dataType = static_cast<aclDataType>(tensor->view.dtype);
  return 0;
}
aclnnStatus aclGetIntArraySize(const aclIntArray* array, uint64_t* size) {
  return GetSize("aclGetIntArraySize", array, size);
}
aclnnStatus aclGetFloatArraySize(const aclFloatArray* array, uint64_t* size) {
  return GetSize("aclGetFloatArraySize", array, size);
}
aclnnStatus aclGetBoolArraySize(const aclBoolArray* array, uint64_t* size) {
  return GetSize("aclGetBoolArraySize", array, size);
}
aclnnStatus aclGetTensorListSize(const aclTensorList* tensorList, uint64_t* size) {
  return GetSize("aclGetTensorListSize", tensorList, size);
}
aclnnStatus aclGetScalarListSize(const aclScalarList* scalarList, uint64_t* size) {
  return GetSize("aclGetScalarListSize", scalarList, size);
}
aclnnStatus aclSetRawTensorAddr(aclTensor* tensor, void* addr) {
  if (auto s = CheckQuery("aclSetRawTensorAddr", tensor, {}); !s.ok()) return RecordError(s);
  tensor->base = addr;
  tensor->view.data =
      addr == nullptr ? nullptr
                      : static_cast<char*>(addr) + anycann::BytesBefore(tensor->view.dtype, tensor->offset);
  return 0;
}
aclnnStatus aclGetRawTensorAddr(const aclTensor* tensor, void** addr) {
  if (auto s = CheckQuery("aclGetRawTensorAddr", tensor, {addr}); !s.ok()) return RecordError(s);
  *addr = tensor->base;
  return 0;
}

}  // extern "C"
