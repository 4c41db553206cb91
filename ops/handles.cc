#include "ops/handles.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "ops/element_bytes.h"

namespace anycann {
namespace {

template <class T>
T* NewHandle() {
  T* h = SlotPool<T>::Take();
  if (h == nullptr) {
    SetLastError(fmt::format("EZ9999: no memory for another {}", HandleTraits<T>::kName));
    return nullptr;
  }
  h->references.store(1, std::memory_order_relaxed);
  return h;
}

template <class T>
void Publish(T* h) {
  h->kind.store(HandleTraits<T>::kKind, std::memory_order_release);
}

// Ends a handle's life for clients. False when it was not alive: of two racing destroys one wins.
template <class T>
bool EndLife(const T* handle) {
  if (!SlotPool<T>::Owns(handle)) return false;
  HandleKind expected = HandleTraits<T>::kKind;
  return const_cast<T*>(handle)->kind.compare_exchange_strong(expected, HandleKind::kFree,
                                                              std::memory_order_acq_rel);
}

template <class H, class T>
H* CreateArray(const T* values, uint64_t size) {
  if (size > 0 && values == nullptr) {
    SetLastError(fmt::format("EZ1001: {}: values is null but size is {}", HandleTraits<H>::kName, size));
    return nullptr;
  }
  H* h = NewHandle<H>();
  if (h == nullptr) return nullptr;
  h->values = h->inline_values;
  if (size > H::kInline) {
    h->values = size > SIZE_MAX / sizeof(T) ? nullptr
                                            : static_cast<decltype(h->values)>(std::malloc(size * sizeof(T)));
    if (h->values == nullptr) {
      SetLastError(fmt::format("EZ9999: no memory for {} with {} elements", HandleTraits<H>::kName, size));
      SlotPool<H>::Give(h);
      return nullptr;
    }
  }
  if (size > 0) std::memcpy(static_cast<void*>(h->values), values, size * sizeof(T));
  h->size = size;
  Publish(h);
  return h;
}

template <class H>
bool DestroyArray(const H* handle) {
  if (!EndLife(handle)) return false;
  H* h = const_cast<H*>(handle);
  if constexpr (std::is_pointer_v<std::remove_reference_t<decltype(*h->values)>>) {
    for (uint64_t i = 0; i < h->size; ++i) handles::Destroy(h->values[i]);
  }
  if (h->values != h->inline_values) std::free(h->values);
  SlotPool<H>::Give(h);
  return true;
}

// Loads the client's value of type T.
template <class T>
T Load(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

Status CheckTensorArguments(const int64_t* dims, uint64_t rank, DType dtype, const int64_t* strides,
                            const int64_t* storage_dims, uint64_t storage_rank) {
  if (rank > kMaxRank)
    return Error(kParamInvalid, "aclCreateTensor: viewDimsNum is {}, at most {} is supported", rank,
                 kMaxRank);
  if (rank > 0 && dims == nullptr)
    return Error(kParamNullptr, "aclCreateTensor: viewDims is null but viewDimsNum is {}", rank);
  if (storage_rank > kMaxRank)
    return Error(kParamInvalid, "aclCreateTensor: storageDimsNum is {}, at most {} is supported",
                 storage_rank, kMaxRank);
  if (storage_rank > 0 && storage_dims == nullptr)
    return Error(kParamNullptr, "aclCreateTensor: storageDims is null but storageDimsNum is {}",
                 storage_rank);
  if (SizeOf(dtype) == 0 && dtype != DType::kInt4)
    return Error(kParamInvalid, "aclCreateTensor: dataType {} is not supported", static_cast<int32_t>(dtype));
  // The span of addresses, in elements, must fit: no later computation of an address can then overflow.
  int64_t extent = 0, count = 1, contiguous = 1;
  bool empty = false;
  for (uint64_t i = rank; i-- > 0;) {
    if (dims[i] < 0)
      return Error(kParamInvalid, "aclCreateTensor: viewDims[{}] is {}, must not be negative", i, dims[i]);
    if (dims[i] == 0) empty = true;
  }
  constexpr int64_t kLimit = INT64_MAX / 64;
  for (uint64_t i = rank; i-- > 0 && !empty;) {
    const int64_t stride = strides ? strides[i] : contiguous;
    int64_t step;
    if (__builtin_mul_overflow(stride, dims[i] - 1, &step) ||
        __builtin_add_overflow(extent, step < 0 ? -step : step, &extent) ||
        __builtin_mul_overflow(count, dims[i], &count) || extent > kLimit || count > kLimit)
      return Error(kParamInvalid,
                   "aclCreateTensor: viewDims {} with these strides overflow the address range",
                   ShapeString(dims, static_cast<int>(rank)));
    contiguous = count;
  }
  return Status();
}

}  // namespace

namespace handles {

Status InitTensor(aclTensor* t, const int64_t* dims, uint64_t rank, DType dtype, const int64_t* strides,
                  int64_t offset, int32_t format, const int64_t* storage_dims, uint64_t storage_rank,
                  void* data) {
  RETURN_IF_ERROR(CheckTensorArguments(dims, rank, dtype, strides, storage_dims, storage_rank));
  if (offset < 0 || offset > INT64_MAX / 64)
    return Error(kParamInvalid,
                 "aclCreateTensor: offset is {}, must be between 0 and the size of the storage", offset);
  TensorView& v = t->view;
  v.dtype = dtype;
  v.rank = static_cast<int32_t>(rank);
  v.format = format;
  if (dtype == DType::kInt4 && offset % 2 != 0)
    return Error(kParamInvalid,
                 "aclCreateTensor: offset is {}, expected an even number: int4 has two elements in a byte",
                 offset);
  v.data = data == nullptr ? nullptr : static_cast<char*>(data) + BytesBefore(dtype, offset);
  int64_t contiguous = 1;
  for (uint64_t i = rank; i-- > 0;) {
    v.dims[i] = dims[i];
    v.strides[i] = strides ? strides[i] : contiguous;
    contiguous *= dims[i];
  }
  t->base = data;
  t->offset = offset;
  t->storage_rank = static_cast<int32_t>(storage_rank);
  for (uint64_t i = 0; i < storage_rank; ++i) t->storage_dims[i] = storage_dims[i];
  return Status();
}

aclTensor* CreateTensor(const int64_t* dims, uint64_t rank, DType dtype, const int64_t* strides,
                        int64_t offset, int32_t format, const int64_t* storage_dims, uint64_t storage_rank,
                        void* data) {
  aclTensor* t = NewHandle<aclTensor>();
  if (t == nullptr) return nullptr;
  const Status status =
      InitTensor(t, dims, rank, dtype, strides, offset, format, storage_dims, storage_rank, data);
  if (!status.ok()) {
    RecordError(status);
    Release(t);
    return nullptr;
  }
  Publish(t);
  return t;
}

aclScalar* CreateScalar(const void* value, DType dtype) {
  if (value == nullptr) {
    SetLastError("EZ1001: aclCreateScalar: value is null");
    return nullptr;
  }
  ScalarValue v;
  v.dtype = dtype;
  bool known = true;
  switch (dtype) {
    case DType::kFloat: v.d = Load<float>(value); break;
    case DType::kDouble: v.d = Load<double>(value); break;
    case DType::kFloat16: v.d = static_cast<float>(Load<Half>(value)); break;
    case DType::kBFloat16: v.d = static_cast<float>(Load<BFloat16>(value)); break;
    case DType::kInt8: v.i = Load<int8_t>(value); break;
    case DType::kInt16: v.i = Load<int16_t>(value); break;
    case DType::kInt32: v.i = Load<int32_t>(value); break;
    case DType::kInt64: v.i = Load<int64_t>(value); break;
    case DType::kUint8: v.i = Load<uint8_t>(value); break;
    case DType::kUint16: v.i = Load<uint16_t>(value); break;
    case DType::kUint32: v.i = Load<uint32_t>(value); break;
    case DType::kUint64: v.i = static_cast<int64_t>(Load<uint64_t>(value)); break;
    case DType::kBool: v.i = Load<uint8_t>(value) != 0; break;
    case DType::kComplex64:
      v.c[0] = Load<Complex64>(value).real(), v.c[1] = Load<Complex64>(value).imag();
      break;
    case DType::kComplex128:
      v.c[0] = Load<Complex128>(value).real(), v.c[1] = Load<Complex128>(value).imag();
      break;
    default: known = false;
  }
  if (!known) {
    SetLastError(
        fmt::format("EZ1001: aclCreateScalar: dataType {} is not supported", static_cast<int32_t>(dtype)));
    return nullptr;
  }
  aclScalar* s = NewHandle<aclScalar>();
  if (s == nullptr) return nullptr;
  s->value = v;
  Publish(s);
  return s;
}

aclIntArray* CreateIntArray(const int64_t* v, uint64_t n) { return CreateArray<aclIntArray>(v, n); }
aclFloatArray* CreateFloatArray(const float* v, uint64_t n) { return CreateArray<aclFloatArray>(v, n); }
aclBoolArray* CreateBoolArray(const bool* v, uint64_t n) { return CreateArray<aclBoolArray>(v, n); }
aclTensorList* CreateTensorList(const aclTensor* const* v, uint64_t n) {
  return CreateArray<aclTensorList>(v, n);
}
aclScalarList* CreateScalarList(const aclScalar* const* v, uint64_t n) {
  return CreateArray<aclScalarList>(v, n);
}

aclOpExecutor* CreateExecutor(const char* op) {
  aclOpExecutor* e = NewHandle<aclOpExecutor>();
  if (e == nullptr) return nullptr;
  e->op = op;
  e->plan = nullptr;
  e->repeatable = false;
  e->inputs = e->outputs = 0;
  Publish(e);
  return e;
}

void Release(const aclTensor* handle) {
  auto* t = const_cast<aclTensor*>(handle);
  if (t->references.fetch_sub(1, std::memory_order_acq_rel) == 1) SlotPool<aclTensor>::Give(t);
}

bool Destroy(const aclTensor* h) {
  if (!EndLife(h)) return false;
  Release(h);
  return true;
}
bool Destroy(const aclScalar* h) {
  if (!EndLife(h)) return false;
  SlotPool<aclScalar>::Give(const_cast<aclScalar*>(h));
  return true;
}
bool Destroy(const aclIntArray* h) { return DestroyArray(h); }
bool Destroy(const aclFloatArray* h) { return DestroyArray(h); }
bool Destroy(const aclBoolArray* h) { return DestroyArray(h); }
bool Destroy(const aclTensorList* h) { return DestroyArray(h); }
bool Destroy(const aclScalarList* h) { return DestroyArray(h); }
bool Destroy(const aclOpExecutor* handle) {
  if (!EndLife(handle)) return false;
  auto* e = const_cast<aclOpExecutor*>(handle);
  if (e->plan) e->plan->Unref();
  e->plan = nullptr;
  SlotPool<aclOpExecutor>::Give(e);
  return true;
}

bool Alive(const aclTensor* h) { return IsAlive(h); }
bool Alive(const aclScalar* h) { return IsAlive(h); }
bool Alive(const aclIntArray* h) { return IsAlive(h); }
bool Alive(const aclFloatArray* h) { return IsAlive(h); }
bool Alive(const aclBoolArray* h) { return IsAlive(h); }
bool Alive(const aclTensorList* h) { return IsAlive(h); }
bool Alive(const aclScalarList* h) { return IsAlive(h); }
bool Alive(const aclOpExecutor* h) { return IsAlive(h); }

}  // namespace handles
}  // namespace anycann
