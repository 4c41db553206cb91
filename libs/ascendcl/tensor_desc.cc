// aclTensorDesc: what a client says about a tensor of a legacy operator or an offline model.
#include <new>
#include <utility>

#include "acl/acl_base.h"
#include "base/dtype.h"
#include "base/error.h"
#include "ops/aclop/descriptors.h"

namespace {

using anycann::Error;
using anycann::RecordError;
using anycann::aclop::TensorDescription;

static_assert(static_cast<int>(anycann::DType::kFloat) == ACL_FLOAT);
static_assert(static_cast<int>(anycann::DType::kFloat16) == ACL_FLOAT16);
static_assert(static_cast<int>(anycann::DType::kInt8) == ACL_INT8);
static_assert(static_cast<int>(anycann::DType::kInt32) == ACL_INT32);
static_assert(static_cast<int>(anycann::DType::kUint8) == ACL_UINT8);
static_assert(static_cast<int>(anycann::DType::kInt16) == ACL_INT16);
static_assert(static_cast<int>(anycann::DType::kUint16) == ACL_UINT16);
static_assert(static_cast<int>(anycann::DType::kUint32) == ACL_UINT32);
static_assert(static_cast<int>(anycann::DType::kInt64) == ACL_INT64);
static_assert(static_cast<int>(anycann::DType::kUint64) == ACL_UINT64);
static_assert(static_cast<int>(anycann::DType::kDouble) == ACL_DOUBLE);
static_assert(static_cast<int>(anycann::DType::kBool) == ACL_BOOL);
static_assert(static_cast<int>(anycann::DType::kString) == ACL_STRING);
static_assert(static_cast<int>(anycann::DType::kComplex64) == ACL_COMPLEX64);
static_assert(static_cast<int>(anycann::DType::kComplex128) == ACL_COMPLEX128);
static_assert(static_cast<int>(anycann::DType::kBFloat16) == ACL_BF16);
static_assert(static_cast<int>(anycann::DType::kInt4) == ACL_INT4);
static_assert(static_cast<int>(anycann::DType::kComplex32) == ACL_COMPLEX32);

constexpr int64_t kUnknownRank = -2;  // as a tensor's only dim
constexpr int kMaxDims = 128;         // ACL_MAX_DIM_CNT

aclError Refuse(const char* function, const void* desc) {
  return RecordError(Error(anycann::kInvalidParam, "{}: desc {}", function,
                           desc == nullptr ? "is null" : "is no live aclTensorDesc"));
}

aclError CheckDims(const char* function, int count, const int64_t* dims) {
  if (count < 0 || count > kMaxDims) {
    return RecordError(
        Error(anycann::kInvalidParam, "{}: numDims is {}, it must be 0 to {}", function, count, kMaxDims));
  }
  if (count > 0 && dims == nullptr)
    return RecordError(Error(anycann::kInvalidParam, "{}: dims is null", function));
  for (int i = 0; i < count; ++i) {
    if (dims[i] < kUnknownRank) {
      return RecordError(Error(anycann::kInvalidParam,
                               "{}: dims[{}] is {}; negative dims are -1 (unknown) or -2 "
                               "(unknown rank)",
                               function, i, dims[i]));
    }
  }
  return 0;
}

// Changes a live description: `change` is void(TensorDescription&) and may run out of memory.
aclError Change(const char* function, aclTensorDesc* desc, auto&& change) {
  TensorDescription* description = anycann::aclop::Find(desc);
  if (description == nullptr) return Refuse(function, desc);
  try {
    change(*description);
    return 0;
  } catch (const std::bad_alloc&) {
    return RecordError(Error(anycann::kBadAlloc, "{}: out of memory", function));
  }
}

aclError SetDims(const char* function, aclTensorDesc* desc, int count, const int64_t* dims,
                 std::vector<int64_t> TensorDescription::*member) {
  if (const aclError code = CheckDims(function, count, dims)) return code;
  return Change(function, desc, [&](TensorDescription& d) { (d.*member).assign(dims, dims + count); });
}

aclError SetRanges(const char* function, aclTensorDesc* desc, size_t count, const int64_t (*ranges)[2],
                   TensorDescription::Ranges TensorDescription::*member) {
  if (count > kMaxDims || (count > 0 && ranges == nullptr)) {
    return RecordError(Error(anycann::kInvalidParam, "{}: {} ranges at {}", function, count,
                             static_cast<const void*>(ranges)));
  }
  return Change(function, desc, [&](TensorDescription& d) {
    TensorDescription::Ranges kept;
    for (size_t i = 0; i < count; ++i) kept.push_back({ranges[i][0], ranges[i][1]});
    d.*member = std::move(kept);
  });
}

// The number of elements; 0 when a dim is unknown or the product does not fit.
size_t Count(const TensorDescription& d) {
  size_t count = 1;
  for (int64_t dim : d.dims) {
    if (dim < 0 || __builtin_mul_overflow(count, static_cast<size_t>(dim), &count)) return 0;
  }
  return count;
}

}  // namespace

size_t aclDataTypeSize(aclDataType dataType) {
  switch (dataType) {
    case ACL_HIFLOAT8:
    case ACL_FLOAT8_E5M2:
    case ACL_FLOAT8_E4M3FN:
    case ACL_FLOAT8_E8M0: return 1;  // types of the interface that the engine has no arithmetic for
    default: return static_cast<size_t>(anycann::SizeOf(static_cast<anycann::DType>(dataType)));
  }
}

aclTensorDesc* aclCreateTensorDesc(aclDataType dataType, int numDims, const int64_t* dims, aclFormat format) {
  constexpr const char* kName = "aclCreateTensorDesc";
  if (CheckDims(kName, numDims, dims) != 0) return nullptr;
  aclTensorDesc* desc = anycann::aclop::MakeTensor();
  if (desc == nullptr) {
    RecordError(Error(anycann::kBadAlloc, "{}: out of memory", kName));
    return nullptr;
  }
  const aclError code = Change(kName, desc, [&](TensorDescription& d) {
    d.dtype = dataType;
    d.format = format;
    d.dims.assign(dims, dims + numDims);
  });
  if (code == 0) return desc;
  anycann::aclop::Destroy(desc);
  return nullptr;
}

void aclDestroyTensorDesc(const aclTensorDesc* desc) {
  if (desc != nullptr && !anycann::aclop::Destroy(desc)) Refuse("aclDestroyTensorDesc", desc);
}

aclDataType aclGetTensorDescType(const aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) Refuse("aclGetTensorDescType", desc);
  return d != nullptr ? static_cast<aclDataType>(d->dtype) : ACL_DT_UNDEFINED;
}

aclFormat aclGetTensorDescFormat(const aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) Refuse("aclGetTensorDescFormat", desc);
  return d != nullptr ? static_cast<aclFormat>(d->format) : ACL_FORMAT_UNDEFINED;
}

// Bytes of the tensor, without padding.
size_t aclGetTensorDescSize(const aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) {
    Refuse("aclGetTensorDescSize", desc);
    return 0;
  }
  size_t bytes;
  const size_t element = aclDataTypeSize(static_cast<aclDataType>(d->dtype));
  return __builtin_mul_overflow(Count(*d), element, &bytes) ? 0 : bytes;
}

size_t aclGetTensorDescElementCount(const aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) Refuse("aclGetTensorDescElementCount", desc);
  return d != nullptr ? Count(*d) : 0;
}

size_t aclGetTensorDescNumDims(const aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) {
    Refuse("aclGetTensorDescNumDims", desc);
    return 0;
  }
  return d->dims.size() == 1 && d->dims[0] == kUnknownRank ? ACL_UNKNOWN_RANK : d->dims.size();
}

aclError aclGetTensorDescDimV2(const aclTensorDesc* desc, size_t index, int64_t* dimSize) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) return Refuse("aclGetTensorDescDimV2", desc);
  if (dimSize == nullptr) {
    return RecordError(Error(anycann::kInvalidParam, "aclGetTensorDescDimV2: dimSize is null"));
  }
  if (index >= d->dims.size()) {
    return RecordError(Error(anycann::kInvalidParam,
                             "aclGetTensorDescDimV2: index is {}, the tensor has {} dims", index,
                             d->dims.size()));
  }
  *dimSize = d->dims[index];
  return 0;
}

int64_t aclGetTensorDescDim(const aclTensorDesc* desc, size_t index) {
  int64_t size = -1;
  return aclGetTensorDescDimV2(desc, index, &size) == 0 ? size : -1;
}

const char* aclGetTensorDescName(aclTensorDesc* desc) {
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) Refuse("aclGetTensorDescName", desc);
  return d != nullptr ? d->name.c_str() : nullptr;
}

void aclSetTensorDescName(aclTensorDesc* desc, const char* name) {
  Change("aclSetTensorDescName", desc, [&](TensorDescription& d) { d.name = name != nullptr ? name : ""; });
}

aclError aclSetTensorDynamicInput(aclTensorDesc* desc, const char* dynamicInputName) {
  return Change("aclSetTensorDynamicInput", desc, [&](TensorDescription& d) {
    d.dynamic_input = dynamicInputName != nullptr ? dynamicInputName : "";
  });
}

aclError aclSetTensorFormat(aclTensorDesc* desc, aclFormat format) {
  return Change("aclSetTensorFormat", desc, [&](TensorDescription& d) { d.storage_format = format; });
}

aclError aclSetTensorStorageFormat(aclTensorDesc* desc, aclFormat format) {
  return Change("aclSetTensorStorageFormat", desc, [&](TensorDescription& d) { d.storage_format = format; });
}

aclError aclSetTensorOriginFormat(aclTensorDesc* desc, aclFormat format) {
  return Change("aclSetTensorOriginFormat", desc, [&](TensorDescription& d) { d.origin_format = format; });
}

aclError aclSetTensorShape(aclTensorDesc* desc, int numDims, const int64_t* dims) {
  return SetDims("aclSetTensorShape", desc, numDims, dims, &TensorDescription::storage_dims);
}

aclError aclSetTensorStorageShape(aclTensorDesc* desc, int numDims, const int64_t* dims) {
  return SetDims("aclSetTensorStorageShape", desc, numDims, dims, &TensorDescription::storage_dims);
}

aclError aclSetTensorOriginShape(aclTensorDesc* desc, int numDims, const int64_t* dims) {
  return SetDims("aclSetTensorOriginShape", desc, numDims, dims, &TensorDescription::origin_dims);
}

aclError aclSetTensorShapeRange(aclTensorDesc* desc, size_t dimsCount, int64_t dimsRange[][2]) {
  return SetRanges("aclSetTensorShapeRange", desc, dimsCount, dimsRange, &TensorDescription::shape_range);
}

aclError aclSetTensorValueRange(aclTensorDesc* desc, size_t valueCount, int64_t valueRange[][2]) {
  return SetRanges("aclSetTensorValueRange", desc, valueCount, valueRange, &TensorDescription::value_range);
}

aclError aclGetTensorDescDimRange(const aclTensorDesc* desc, size_t index, size_t dimRangeNum,
                                  int64_t* dimRange) {
  constexpr const char* kName = "aclGetTensorDescDimRange";
  const TensorDescription* d = anycann::aclop::Find(desc);
  if (d == nullptr) return Refuse(kName, desc);
  if (dimRange == nullptr || dimRangeNum < 2) {
    return RecordError(Error(anycann::kInvalidParam, "{}: dimRange needs room for 2 values", kName));
  }
  if (index >= d->dims.size()) {
    return RecordError(Error(anycann::kInvalidParam, "{}: index is {}, the tensor has {} dims", kName, index,
                             d->dims.size()));
  }
  const int64_t dim = d->dims[index];
  dimRange[0] = index < d->shape_range.size() ? d->shape_range[index][0] : dim < 0 ? 0 : dim;
  dimRange[1] = index < d->shape_range.size() ? d->shape_range[index][1] : dim;
  return 0;
}

aclError aclSetTensorPlaceMent(aclTensorDesc* desc, aclMemType memType) {
  return Change("aclSetTensorPlaceMent", desc, [&](TensorDescription& d) { d.placement = memType; });
}

// Copies the constant; a null address with length 0 makes an empty constant.
aclError aclSetTensorConst(aclTensorDesc* desc, void* dataBuffer, size_t length) {
  if (dataBuffer == nullptr && length > 0) {
    return RecordError(
        Error(anycann::kInvalidParam, "aclSetTensorConst: dataBuffer is null, length is {}", length));
  }
  return Change("aclSetTensorConst", desc, [&](TensorDescription& d) {
    const auto* bytes = static_cast<const uint8_t*>(dataBuffer);
    d.constant.assign(bytes, bytes + length);
    d.is_constant = true;
  });
}
