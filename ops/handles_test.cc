// Handles: what is alive, what is refused, and what lists own.
#include "ops/handles.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/error.h"

namespace anycann {
namespace {

aclTensor* MakeTensor() {
  static float data[8];
  const int64_t dims[] = {2, 3};
  return handles::CreateTensor(dims, 2, DType::kFloat, nullptr, 1, 2, nullptr, 0, data);
}

TEST(Handles, TensorKeepsShapeStridesAndOffset) {
  aclTensor* t = MakeTensor();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->view.rank, 2);
  EXPECT_EQ(t->view.strides[0], 3);
  EXPECT_EQ(t->view.strides[1], 1);
  EXPECT_EQ(static_cast<char*>(t->view.data) - static_cast<char*>(t->base), 4);
  EXPECT_TRUE(handles::Destroy(t));
}

TEST(Handles, OffsetsOfInt4CountHalfBytes) {
  char data[8];
  const int64_t dims[] = {4};
  aclTensor* t = handles::CreateTensor(dims, 1, DType::kInt4, nullptr, 6, 2, nullptr, 0, data);
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(static_cast<char*>(t->view.data) - data, 3);
  EXPECT_TRUE(handles::Destroy(t));
  EXPECT_EQ(handles::CreateTensor(dims, 1, DType::kInt4, nullptr, 3, 2, nullptr, 0, data), nullptr);
}

TEST(Handles, DestroyedAndForeignHandlesAreRefused) {
  aclTensor* t = MakeTensor();
  EXPECT_TRUE(handles::Alive(t));
  EXPECT_TRUE(handles::Destroy(t));
  EXPECT_FALSE(handles::Alive(t));
  EXPECT_FALSE(handles::Destroy(t)) << "a second destroy must not succeed";
  double one = 1;
  aclScalar* s = handles::CreateScalar(&one, DType::kDouble);
  EXPECT_FALSE(handles::Alive(reinterpret_cast<aclTensor*>(s)));
  EXPECT_FALSE(handles::Alive(reinterpret_cast<aclTensor*>(0x1234)));
  EXPECT_FALSE(handles::Alive(reinterpret_cast<aclTensor*>(&one)));
  EXPECT_FALSE(handles::Alive(reinterpret_cast<aclTensor*>(reinterpret_cast<char*>(s) + 8)));
  EXPECT_TRUE(handles::Destroy(s));
}

TEST(Handles, BadTensorArgumentsSayWhat) {
  const int64_t nine[9] = {}, negative[] = {2, -3}, huge[] = {INT64_MAX / 2, 4};
  float data = 0;
  EXPECT_EQ(handles::CreateTensor(nine, 9, DType::kFloat, nullptr, 0, 2, nullptr, 0, &data), nullptr);
  EXPECT_NE(std::string(TakeLastError()).find("viewDimsNum is 9"), std::string::npos);
  EXPECT_EQ(handles::CreateTensor(negative, 2, DType::kFloat, nullptr, 0, 2, nullptr, 0, &data), nullptr);
  EXPECT_NE(std::string(TakeLastError()).find("viewDims[1] is -3"), std::string::npos);
  EXPECT_EQ(handles::CreateTensor(huge, 2, DType::kFloat, nullptr, 0, 2, nullptr, 0, &data), nullptr);
  EXPECT_NE(std::string(TakeLastError()).find("overflow"), std::string::npos);
  EXPECT_EQ(TakeLastError(), nullptr);
}

TEST(Handles, ListOwnsItsMembers) {
  aclTensor* members[] = {MakeTensor(), nullptr, MakeTensor()};
  aclTensorList* list = handles::CreateTensorList(members, 3);
  ASSERT_NE(list, nullptr);
  EXPECT_TRUE(handles::Destroy(list));
  EXPECT_FALSE(handles::Alive(members[0]));
  EXPECT_FALSE(handles::Alive(members[2]));
}

TEST(Handles, PlanKeepsADestroyedOutputReadable) {
  aclTensor* t = MakeTensor();
  {
    TensorRef ref(t);
    EXPECT_TRUE(handles::Destroy(t));
    const int64_t dims[] = {5};
    ref.SetShape(dims, 1);  // must not touch a slot that somebody else got
    aclTensor* other = MakeTensor();
    EXPECT_NE(other, t);
    EXPECT_TRUE(handles::Destroy(other));
  }
  EXPECT_FALSE(handles::Alive(t));
}

TEST(Handles, ThreadsCreateAndDestroy) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([] {
      for (int j = 0; j < 2000; ++j) {
        aclTensor* t = MakeTensor();
        ASSERT_TRUE(handles::Alive(t));
        ASSERT_TRUE(handles::Destroy(t));
      }
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace anycann
