// libopapi's doors that are no operators: how large a tensor is in a private format.
#include "aclnnop/aclnn_npu_format_cast.h"
#include "aclnnop/aclnn_trans_matmul_weight.h"
#include "base/error.h"
#include "ops/handles.h"
#include "ops/shape/private_format.h"

using anycann::DType;
using anycann::Error;
using anycann::RecordError;
namespace handles = anycann::handles;

namespace {

constexpr int kFractalNz = anycann::kFractalNz;

// FRACTAL_NZ for data of another type: its blocks have that type's length.
int NzFor(int64_t c0, int64_t own) {
  if (c0 == own) return kFractalNz;
  switch (c0) {
    case 16: return anycann::kFractalNzC0_16;
    case 32: return anycann::kFractalNzC0_32;
    case 2: return anycann::kFractalNzC0_2;
    case 4: return anycann::kFractalNzC0_4;
    default: return anycann::kFractalNzC0_8;
  }
}

anycann::Status WeightSize(const char* function, const aclIntArray* shape, DType dtype, uint64_t* size) {
  if (shape == nullptr || size == nullptr)
    return Error(anycann::kParamNullptr, "{}: {} is null", function,
                 shape ? "weightTensorSize" : "tensorShape");
  if (!handles::Alive(shape))
    return Error(anycann::kParamInvalid, "{}: tensorShape is not a live aclIntArray", function);
  if (shape->size < 2 || shape->size > 6)
    return Error(anycann::kParamInvalid, "{}: tensorShape has {} values, expected 2 to 6", function,
                 shape->size);
  if (dtype != DType::kFloat16 && dtype != DType::kBFloat16 && dtype != DType::kInt8 &&
      dtype != DType::kFloat)
    return Error(anycann::kParamInvalid,
                 "{}: dataType {} is not supported: float16, bfloat16, float32 or int8", function,
                 static_cast<int>(dtype));
  // Blocks of 16 by 16 elements, of 16 by 32 for int8.
  uint64_t elements = 1;
  for (uint64_t i = 0; i < shape->size; ++i) {
    const int64_t n = (*shape)[i];
    const int64_t block = i + 2 < shape->size ? 1 : i + 1 == shape->size && dtype == DType::kInt8 ? 32 : 16;
    if (n <= 0)
      return Error(anycann::kParamInvalid, "{}: tensorShape[{}] is {}, expected at least 1", function, i, n);
    if (n > INT64_MAX - block ||
        __builtin_mul_overflow(elements, static_cast<uint64_t>((n + block - 1) / block * block), &elements))
      return Error(anycann::kParamInvalid, "{}: tensorShape has too many elements", function);
  }
  *size = elements;
  return anycann::Status();
}

anycann::Status SizeAndFormat(const aclTensor* src, int format, int additional, int64_t** shape,
                              uint64_t* rank, int* actual) {
  constexpr const char* kName = "aclnnNpuFormatCastCalculateSizeAndFormat";
  if (src == nullptr || shape == nullptr || rank == nullptr || actual == nullptr)
    return Error(anycann::kParamNullptr, "{}: {} is null", kName,
                 !src     ? "srcTensor"
                 : !shape ? "dstShape"
                 : !rank  ? "dstShapeSize"
                          : "actualFormat");
  if (!handles::Alive(src))
    return Error(anycann::kParamInvalid, "{}: srcTensor is not a live aclTensor", kName);
  const anycann::TensorView& v = src->view;
  int result = format;
  if (format == kFractalNz && additional != -1) {
    const int64_t size = anycann::SizeOf(static_cast<DType>(additional)), own = anycann::SizeOf(v.dtype);
    if (size == 0 || own == 0)
      return Error(anycann::kParamInvalid, "{}: additionalDtype {} has no private format", kName, additional);
    result = NzFor(32 / size, 32 / own);
  }
  anycann::BlockedLayout layout;
  std::string why;
  const int64_t* dims = v.dims;
  if (anycann::IsPrivateFormat(format)) {
    if (!anycann::LayOut(result, v.dtype, v.dims, v.rank, &layout, &why))
      return Error(anycann::kParamInvalid, "{}: {}", kName, why);
    dims = layout.dims;
    *rank = static_cast<uint64_t>(layout.rank);
  } else {
    *rank = static_cast<uint64_t>(v.rank);
  }
  *shape = new (std::nothrow) int64_t[*rank > 0 ? *rank : 1];  // the client frees it with delete[]
  if (*shape == nullptr) return Error(anycann::kCreateExecutor, "{}: out of memory", kName);
  for (uint64_t i = 0; i < *rank; ++i) (*shape)[i] = dims[i];
  *actual = result;
  return anycann::Status();
}

}  // namespace

extern "C" {

aclnnStatus aclnnCalculateMatmulWeightSize(const aclIntArray* tensorShape, uint64_t* weightTensorSize) {
  return RecordError(
      WeightSize("aclnnCalculateMatmulWeightSize", tensorShape, DType::kFloat16, weightTensorSize));
}

aclnnStatus aclnnCalculateMatmulWeightSizeV2(const aclIntArray* tensorShape, aclDataType dataType,
                                             uint64_t* weightTensorSize) {
  return RecordError(WeightSize("aclnnCalculateMatmulWeightSizeV2", tensorShape, static_cast<DType>(dataType),
                                weightTensorSize));
}

aclnnStatus aclnnNpuFormatCastCalculateSizeAndFormat(const aclTensor* srcTensor, const int dstFormat,
                                                     int additionalDtype, int64_t** dstShape,
                                                     uint64_t* dstShapeSize, int* actualFormat) {
  return RecordError(
      SizeAndFormat(srcTensor, dstFormat, additionalDtype, dstShape, dstShapeSize, actualFormat));
}

}  // extern "C"
