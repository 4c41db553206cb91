// Rotated boxes at every instruction set: g++ 12.2 got the corners wrong for AVX-512 when a loop made them.
#include "ops/aclop/polygon.h"

#include <gtest/gtest.h>

namespace anycann::aclop {
namespace {

TEST(RotatedBox, OutlineHasTheBoxsCornersInOrder) {
  const Polygon p = RotatedBox{1, 2, 3, 4, 90}.Outline();
  const Point expected[] = {{3, 0.5}, {3, 3.5}, {-1, 3.5}, {-1, 0.5}};
  ASSERT_EQ(p.count, 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(p.corners[i].x, expected[i].x, 1e-12) << i;
    EXPECT_NEAR(p.corners[i].y, expected[i].y, 1e-12) << i;
  }
  EXPECT_NEAR(p.Area(), 12, 1e-12);
}

TEST(RotatedBox, SharedAreaOfASquareAndItselfTurned) {
  const RotatedBox square{0, 0, 2, 2, 0};
  EXPECT_NEAR(SharedArea(square, square), 4, 1e-12);
  EXPECT_NEAR(SharedArea(square, RotatedBox{0, 0, 2, 2, 45}), 8 * (std::sqrt(2.0) - 1), 1e-12);  // an octagon
  EXPECT_NEAR(SharedArea(square, RotatedBox{1, 1, 2, 2, 90}), 1, 1e-12);
  EXPECT_NEAR(SharedArea(square, RotatedBox{3, 0, 2, 2, 30}), 0, 1e-12);
}

}  // namespace
}  // namespace anycann::aclop
