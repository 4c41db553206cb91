// Descriptors of legacy operators and models: what is set is given back, and dead or foreign handles are
// refused.
#include "ops/aclop/descriptors.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "acl/acl.h"
#include "base/error.h"

namespace {

std::string LastError() {
  const char* message = anycann::TakeLastError();
  return message != nullptr ? message : "";
}

TEST(TensorDesc, GivesBackWhatWasSet) {
  const int64_t dims[] = {2, 3, 4};
  aclTensorDesc* desc = aclCreateTensorDesc(ACL_FLOAT16, 3, dims, ACL_FORMAT_ND);
  ASSERT_NE(desc, nullptr);
  EXPECT_EQ(aclGetTensorDescType(desc), ACL_FLOAT16);
  EXPECT_EQ(aclGetTensorDescFormat(desc), ACL_FORMAT_ND);
  EXPECT_EQ(aclGetTensorDescNumDims(desc), 3u);
  EXPECT_EQ(aclGetTensorDescElementCount(desc), 24u);
  EXPECT_EQ(aclGetTensorDescSize(desc), 48u);
  int64_t dim = 0;
  EXPECT_EQ(aclGetTensorDescDimV2(desc, 2, &dim), 0);
  EXPECT_EQ(dim, 4);
  EXPECT_EQ(aclGetTensorDescDimV2(desc, 3, &dim), ACL_ERROR_INVALID_PARAM);
  EXPECT_NE(LastError().find("index is 3, the tensor has 3 dims"), std::string::npos);
  aclSetTensorDescName(desc, "x1");
  EXPECT_STREQ(aclGetTensorDescName(desc), "x1");
  float constant[] = {1, 2};
  EXPECT_EQ(aclSetTensorConst(desc, constant, sizeof constant), 0);
  constant[0] = 9;  // the constant was copied
  const auto* description = anycann::aclop::Find(desc);
  ASSERT_TRUE(description->is_constant);
  EXPECT_EQ(*reinterpret_cast<const float*>(description->constant.data()), 1);
  aclDestroyTensorDesc(desc);
}

TEST(TensorDesc, UnknownShapes) {
  const int64_t unknown_dim[] = {-1, 3}, unknown_rank[] = {-2}, bad[] = {-3};
  aclTensorDesc* desc = aclCreateTensorDesc(ACL_FLOAT, 2, unknown_dim, ACL_FORMAT_ND);
  EXPECT_EQ(aclGetTensorDescSize(desc), 0u);
  int64_t ranges[][2] = {{1, 8}, {3, 3}}, range[2];
  EXPECT_EQ(aclSetTensorShapeRange(desc, 2, ranges), 0);
  EXPECT_EQ(aclGetTensorDescDimRange(desc, 0, 2, range), 0);
  EXPECT_EQ(range[1], 8);
  aclDestroyTensorDesc(desc);
  desc = aclCreateTensorDesc(ACL_FLOAT, 1, unknown_rank, ACL_FORMAT_ND);
  EXPECT_EQ(aclGetTensorDescNumDims(desc), ACL_UNKNOWN_RANK);
  aclDestroyTensorDesc(desc);
  EXPECT_EQ(aclCreateTensorDesc(ACL_FLOAT, 1, bad, ACL_FORMAT_ND), nullptr);
  EXPECT_EQ(aclCreateTensorDesc(ACL_FLOAT, -1, bad, ACL_FORMAT_ND), nullptr);
  EXPECT_EQ(aclCreateTensorDesc(ACL_FLOAT, 1, nullptr, ACL_FORMAT_ND), nullptr);
  EXPECT_NE(LastError().find("dims is null"), std::string::npos);
}

TEST(TensorDesc, HugeShapesDoNotOverflow) {
  const int64_t dims[] = {std::numeric_limits<int64_t>::max(), 4};
  aclTensorDesc* desc = aclCreateTensorDesc(ACL_DOUBLE, 2, dims, ACL_FORMAT_ND);
  EXPECT_EQ(aclGetTensorDescElementCount(desc), 0u);
  EXPECT_EQ(aclGetTensorDescSize(desc), 0u);
  aclDestroyTensorDesc(desc);
}

TEST(TensorDesc, DeadAndForeignHandlesAreRefused) {
  aclTensorDesc* desc = aclCreateTensorDesc(ACL_FLOAT, 0, nullptr, ACL_FORMAT_ND);
  EXPECT_EQ(aclGetTensorDescSize(desc), 4u);  // 0-d
  aclDestroyTensorDesc(desc);
  EXPECT_EQ(aclSetTensorFormat(desc, ACL_FORMAT_NCHW), ACL_ERROR_INVALID_PARAM);
  aclDestroyTensorDesc(desc);
  EXPECT_NE(LastError().find("no live aclTensorDesc"), std::string::npos);
  int stray = 0;
  EXPECT_EQ(aclSetTensorShape(reinterpret_cast<aclTensorDesc*>(&stray), 0, nullptr), ACL_ERROR_INVALID_PARAM);
  aclDataBuffer* buffer = aclCreateDataBuffer(&stray, 4);
  EXPECT_EQ(aclGetTensorDescType(reinterpret_cast<aclTensorDesc*>(buffer)), ACL_DT_UNDEFINED);
  EXPECT_EQ(aclDestroyDataBuffer(buffer), 0);
  EXPECT_EQ(aclDestroyDataBuffer(buffer), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclDestroyDataBuffer(nullptr), ACL_ERROR_INVALID_PARAM);
}

TEST(DataBuffer, Updates) {
  char memory[8];
  aclDataBuffer* buffer = aclCreateDataBuffer(nullptr, 0);
  EXPECT_EQ(aclUpdateDataBuffer(buffer, memory, size_t{1} << 33), 0);
  EXPECT_EQ(aclGetDataBufferAddr(buffer), memory);
  EXPECT_EQ(aclGetDataBufferSizeV2(buffer), size_t{1} << 33);
  EXPECT_EQ(aclDestroyDataBuffer(buffer), 0);
}

TEST(OperatorAttributes, KeepsCopies) {
  aclopAttr* attr = aclopCreateAttr();
  int64_t values[] = {1, 2, 3};
  EXPECT_EQ(aclopSetAttrListInt(attr, "axes", 3, values), 0);
  values[0] = 7;
  const int64_t* lists[] = {values, values + 1};
  const int sizes[] = {1, 2};
  EXPECT_EQ(aclopSetAttrListListInt(attr, "pads", 2, sizes, lists), 0);
  EXPECT_EQ(aclopSetAttrBool(attr, "keep_dims", 1), 0);
  EXPECT_EQ(aclopSetAttrString(attr, "mode", "none"), 0);
  const auto& kept = anycann::aclop::Find(attr)->values;
  EXPECT_EQ(std::get<std::vector<int64_t>>(kept.at("axes")), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(std::get<std::vector<std::vector<int64_t>>>(kept.at("pads")),
            (std::vector<std::vector<int64_t>>{{7}, {2, 3}}));
  EXPECT_TRUE(std::get<bool>(kept.at("keep_dims")));
  EXPECT_EQ(std::get<std::string>(kept.at("mode")), "none");
  EXPECT_EQ(aclopSetAttrListInt(attr, "axes", -1, values), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclopSetAttrListFloat(attr, "axes", 2, nullptr), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclopSetAttrString(attr, nullptr, "x"), ACL_ERROR_INVALID_PARAM);
  aclopDestroyAttr(attr);
  EXPECT_EQ(aclopSetAttrInt(attr, "n", 1), ACL_ERROR_INVALID_PARAM);
  EXPECT_NE(LastError().find("attr is no live aclopAttr"), std::string::npos);
}

TEST(DataType, Sizes) {
  EXPECT_EQ(aclDataTypeSize(ACL_BF16), 2u);
  EXPECT_EQ(aclDataTypeSize(ACL_COMPLEX128), 16u);
  EXPECT_EQ(aclDataTypeSize(ACL_STRING), 0u);
  EXPECT_EQ(aclDataTypeSize(static_cast<aclDataType>(999)), 0u);
}

}  // namespace
