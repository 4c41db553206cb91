// The objects behind aclnn's opaque handles: aclTensor, aclScalar, arrays, lists, aclOpExecutor.
//
// They live in slot pools, so a handle that a client passes is checked for life and kind before anything else
// is read from it, and a freed one is refused. Reference-counted: an operator whose output shape depends on
// data holds its output handle until its Plan has run.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

#include "base/export.h"
#include "base/slot_pool.h"
#include "base/tensor_view.h"
#include "runtime/plan.h"

namespace anycann {

enum class HandleKind : uint32_t {
  kFree = 0,
  kTensor = 0x7e450001,
  kScalar,
  kIntArray,
  kFloatArray,
  kBoolArray,
  kTensorList,
  kScalarList,
  kExecutor,
};

struct Handle {
  std::atomic<HandleKind> kind;
  std::atomic<int32_t> references;
};

// A complex scalar or any smaller one, as it was given.
struct ScalarValue {
  DType dtype = DType::kUndefined;
  union {
    double d;
    int64_t i;  // integers and bool
    double c[2];
  };
  ScalarValue() : c{0, 0} {}

  bool IsComplex() const { return anycann::IsComplex(dtype); }
  double ToDouble() const { return IsFloating(dtype) ? d : IsComplex() ? c[0] : static_cast<double>(i); }
  int64_t ToInt64() const {
    return IsFloating(dtype) ? static_cast<int64_t>(d) : IsComplex() ? static_cast<int64_t>(c[0]) : i;
  }
  bool ToBool() const { return IsFloating(dtype) ? d != 0 : IsComplex() ? c[0] != 0 || c[1] != 0 : i != 0; }
  std::complex<double> ToComplex() const {
    return IsComplex() ? std::complex<double>(c[0], c[1]) : ToDouble();
  }
  // As the C++ type of a compute type: float, double, an integer, bool, complex.
  template <class T>
  T To() const {
    if constexpr (std::is_same_v<T, bool>)
      return ToBool();
    else if constexpr (std::is_same_v<T, Complex64> || std::is_same_v<T, Complex128>)
      return static_cast<T>(ToComplex());
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(ToInt64());
    else
      return static_cast<T>(ToDouble());
  }
};

}  // namespace anycann

struct aclTensor : anycann::Handle {
  aclTensor* next_free;
  anycann::TensorView view;
  void* base;      // the data address as given; view.data = base + offset * element size
  int64_t offset;  // in elements
  int32_t storage_rank;
  int64_t storage_dims[anycann::kMaxRank];
};

struct aclScalar : anycann::Handle {
  aclScalar* next_free;
  anycann::ScalarValue value;
};

namespace anycann {
// Values of an array handle: a copy of the client's, in memory that the handle owns.
template <class Self, class T>
struct ArrayHandle : Handle {
  Self* next_free;
  T* values;
  uint64_t size;
  static constexpr uint64_t kInline = 8;
  T inline_values[kInline];

  const T* begin() const { return values; }
  const T* end() const { return values + size; }
  T operator[](uint64_t i) const { return values[i]; }
};
}  // namespace anycann

struct aclIntArray : anycann::ArrayHandle<aclIntArray, int64_t> {};
struct aclFloatArray : anycann::ArrayHandle<aclFloatArray, float> {};
struct aclBoolArray : anycann::ArrayHandle<aclBoolArray, bool> {};
// A list owns one reference of each member: destroying the list destroys them.
struct aclTensorList : anycann::ArrayHandle<aclTensorList, aclTensor*> {};
struct aclScalarList : anycann::ArrayHandle<aclScalarList, aclScalar*> {};

// What phase one hands to phase two: the Plan, and which handle each parameter was (for address updates).
struct aclOpExecutor : anycann::Handle {
  static constexpr int kInlineSources = 12;
  aclOpExecutor* next_free;
  const char* op;
  anycann::Plan* plan;  // nullptr: nothing to do (empty tensors)
  bool repeatable;
  // Tensors in parameter order, list members one by one, absent ones as nullptr. Members past kInlineSources
  // are counted, not kept: their addresses can't be updated.
  int inputs, outputs;
  const void* input_sources[kInlineSources];
  const void* output_sources[kInlineSources];
};

namespace anycann {

template <class T>
struct HandleTraits;
template <>
struct HandleTraits<aclTensor> {
  static constexpr HandleKind kKind = HandleKind::kTensor;
  static constexpr const char* kName = "aclTensor";
};
template <>
struct HandleTraits<aclScalar> {
  static constexpr HandleKind kKind = HandleKind::kScalar;
  static constexpr const char* kName = "aclScalar";
};
template <>
struct HandleTraits<aclIntArray> {
  static constexpr HandleKind kKind = HandleKind::kIntArray;
  static constexpr const char* kName = "aclIntArray";
};
template <>
struct HandleTraits<aclFloatArray> {
  static constexpr HandleKind kKind = HandleKind::kFloatArray;
  static constexpr const char* kName = "aclFloatArray";
};
template <>
struct HandleTraits<aclBoolArray> {
  static constexpr HandleKind kKind = HandleKind::kBoolArray;
  static constexpr const char* kName = "aclBoolArray";
};
template <>
struct HandleTraits<aclTensorList> {
  static constexpr HandleKind kKind = HandleKind::kTensorList;
  static constexpr const char* kName = "aclTensorList";
};
template <>
struct HandleTraits<aclScalarList> {
  static constexpr HandleKind kKind = HandleKind::kScalarList;
  static constexpr const char* kName = "aclScalarList";
};
template <>
struct HandleTraits<aclOpExecutor> {
  static constexpr HandleKind kKind = HandleKind::kExecutor;
  static constexpr const char* kName = "aclOpExecutor";
};

// True when `h` is a live handle of kind T; safe for any pointer.
template <class T>
bool IsAlive(const T* h) {
  return SlotPool<T>::Owns(h) && h->kind.load(std::memory_order_acquire) == HandleTraits<T>::kKind;
}

// The functions behind libnnopbase's aclCreate*/aclDestroy*. Create* return nullptr when memory is exhausted
// or the arguments are bad, with the sentence recorded as the thread's last error. Destroy is false for what
// is not alive.
namespace handles {
ANYCANN_API aclTensor* CreateTensor(const int64_t* dims, uint64_t rank, DType dtype, const int64_t* strides,
                                    int64_t offset, int32_t format, const int64_t* storage_dims,
                                    uint64_t storage_rank, void* data);
// Sets an existing tensor anew (aclInitTensor); the error names the argument.
ANYCANN_API Status InitTensor(aclTensor* t, const int64_t* dims, uint64_t rank, DType dtype,
                              const int64_t* strides, int64_t offset, int32_t format,
                              const int64_t* storage_dims, uint64_t storage_rank, void* data);
ANYCANN_API aclScalar* CreateScalar(const void* value, DType dtype);
ANYCANN_API aclIntArray* CreateIntArray(const int64_t* values, uint64_t size);
ANYCANN_API aclFloatArray* CreateFloatArray(const float* values, uint64_t size);
ANYCANN_API aclBoolArray* CreateBoolArray(const bool* values, uint64_t size);
ANYCANN_API aclTensorList* CreateTensorList(const aclTensor* const* values, uint64_t size);
ANYCANN_API aclScalarList* CreateScalarList(const aclScalar* const* values, uint64_t size);
ANYCANN_API aclOpExecutor* CreateExecutor(const char* op);

ANYCANN_API bool Destroy(const aclTensor* h);
ANYCANN_API bool Destroy(const aclScalar* h);
ANYCANN_API bool Destroy(const aclIntArray* h);
ANYCANN_API bool Destroy(const aclFloatArray* h);
ANYCANN_API bool Destroy(const aclBoolArray* h);
ANYCANN_API bool Destroy(const aclTensorList* h);
ANYCANN_API bool Destroy(const aclScalarList* h);
ANYCANN_API bool Destroy(const aclOpExecutor* h);
void Release(const aclTensor* h);  // drops a reference that a Plan held

// IsAlive across the library boundary (the pools are the engine's).
ANYCANN_API bool Alive(const aclTensor* h);
ANYCANN_API bool Alive(const aclScalar* h);
ANYCANN_API bool Alive(const aclIntArray* h);
ANYCANN_API bool Alive(const aclFloatArray* h);
ANYCANN_API bool Alive(const aclBoolArray* h);
ANYCANN_API bool Alive(const aclTensorList* h);
ANYCANN_API bool Alive(const aclScalarList* h);
ANYCANN_API bool Alive(const aclOpExecutor* h);
}  // namespace handles

// Holds a reference to a tensor handle from a kernel, to set the shape that the data decided.
class TensorRef {
 public:
  explicit TensorRef(const aclTensor* t) : t_(const_cast<aclTensor*>(t)) {
    t_->references.fetch_add(1, std::memory_order_relaxed);
  }
  TensorRef(const TensorRef& o) : TensorRef(o.t_) {}
  TensorRef& operator=(const TensorRef&) = delete;
  ~TensorRef() { handles::Release(t_); }
  // Contiguous dims; the client reads them with aclGetViewShape after it synchronised.
  void SetShape(const int64_t* dims, int rank) const {
    t_->view = TensorView::Contiguous(t_->view.data, t_->view.dtype, dims, rank);
  }

 private:
  aclTensor* t_;
};

}  // namespace anycann
