// The known answers of Random123's test vectors, and the order of words in a group.
#include "ops/random/philox.h"

#include <gtest/gtest.h>

#include <array>

namespace anycann {
namespace {

using Words = std::array<uint32_t, 4>;

Words Block(const Words& counter, uint32_t key0, uint32_t key1) {
  using Lanes = Philox::Lanes;
  Lanes x[4];
  for (int i = 0; i < 4; ++i) x[i] = Lanes::All(counter[static_cast<size_t>(i)]);
  Philox::Rounds(key0, key1, &x[0], &x[1], &x[2], &x[3]);
  Words result;
  for (int i = 0; i < 4; ++i) {
    uint32_t lanes[Lanes::kWidth];
    x[i].Store(lanes);
    for (const uint32_t lane : lanes) EXPECT_EQ(lane, lanes[0]);
    result[static_cast<size_t>(i)] = lanes[0];
  }
  return result;
}

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Block({0, 0, 0, 0}, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Block({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, GroupsAreBlocksInOrder) {
  const Philox philox{0x0123456789abcdef, 0xfedcba9876543210};
  uint32_t words[Philox::kGroup];
  philox.Group(3, 1, words);
  for (uint32_t lane = 0; lane < 16; ++lane) {
    const Words expected = Block({3 * 16 + lane, 0x80000000, 0x76543210, 0xfedcba98}, 0x89abcdef, 0x01234567);
    for (uint32_t w = 0; w < 4; ++w) EXPECT_EQ(words[w * 16 + lane], expected[w]);
  }
}

}  // namespace
}  // namespace anycann
