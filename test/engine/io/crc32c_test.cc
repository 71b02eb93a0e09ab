// Goal: Crc32c is CRC-32C whatever the length and alignment, on the hardware path and the portable
// one.
// Method: the vectors of RFC 3720, B.4, and of the CRC catalogue; a bit-at-a-time reference; both
// paths against it over lengths around every stripe boundary and all alignments.
#include "io/crc32c.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace xtree {
namespace {

using Function = uint32_t (*)(uint32_t, const void*, size_t);
constexpr Function kBoth[] = {Crc32c, Crc32cPortable};

uint32_t BitByBit(uint32_t seed, const unsigned char* data, size_t length) {
  uint32_t crc = ~seed;
  for (size_t i = 0; i < length; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

std::vector<unsigned char> Noise(size_t length) {
  std::vector<unsigned char> noise(length);
  uint32_t state = 1;
  for (unsigned char& byte : noise) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<unsigned char>(state >> 24);
  }
  return noise;
}

TEST(Crc32cTest, MatchesThePublishedVectors) {
  unsigned char rising[32];
  unsigned char falling[32];
  for (int i = 0; i < 32; ++i) {
    rising[i] = static_cast<unsigned char>(i);
    falling[i] = static_cast<unsigned char>(31 - i);
  }
  const std::vector<unsigned char> zeros(32, 0);
  const std::vector<unsigned char> ones(32, 0xff);
  const unsigned char read_command[48] = {
      0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
      0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0};
  for (const Function crc : kBoth) {
    EXPECT_EQ(crc(0, "", 0), 0u);
    EXPECT_EQ(crc(0, "123456789", 9), 0xe3069283u);
    EXPECT_EQ(crc(0, zeros.data(), 32), 0x8a9136aau);
    EXPECT_EQ(crc(0, ones.data(), 32), 0x62a8ab43u);
    EXPECT_EQ(crc(0, rising, 32), 0x46dd794eu);
    EXPECT_EQ(crc(0, falling, 32), 0x113fdb5cu);
    EXPECT_EQ(crc(0, read_command, 48), 0xd9963a56u);
  }
}

TEST(Crc32cTest, BothPathsMatchTheReferenceAroundEveryStripe) {
  const std::vector<unsigned char> noise = Noise(9'000);
  std::vector<size_t> lengths;
  for (size_t length = 0; length < 80; ++length) lengths.push_back(length);
  for (const size_t edge : {504u, 1'008u, 3'072u, 3'576u, 6'144u, 8'192u}) {
    for (size_t length = edge - 9; length <= edge + 9; ++length) lengths.push_back(length);
  }
  for (const size_t length : lengths) {
    for (size_t offset = 0; offset < 8; ++offset) {
      const unsigned char* data = noise.data() + offset;
      const uint32_t expected = BitByBit(0x1234, data, length);
      ASSERT_EQ(Crc32c(0x1234, data, length), expected) << length << " at " << offset;
      ASSERT_EQ(Crc32cPortable(0x1234, data, length), expected) << length << " at " << offset;
    }
  }
}

TEST(Crc32cTest, ExtendingInPiecesEqualsOneCall) {
  const std::vector<unsigned char> noise = Noise(8'192);
  for (const Function crc : kBoth) {
    const uint32_t whole = crc(0, noise.data(), noise.size());
    for (size_t cut = 0; cut <= noise.size(); cut += 61) {
      const uint32_t first = crc(0, noise.data(), cut);
      ASSERT_EQ(crc(first, noise.data() + cut, noise.size() - cut), whole) << cut;
    }
  }
}

TEST(Crc32cTest, EverySingleBitFlipOfABlockIsNoticed) {
  std::vector<unsigned char> noise = Noise(8'192);
  const uint32_t whole = Crc32c(0, noise.data(), noise.size());
  for (size_t bit = 0; bit < noise.size() * 8; bit += 7) {
    noise[bit / 8] = static_cast<unsigned char>(noise[bit / 8] ^ 1u << (bit % 8));
    ASSERT_NE(Crc32c(0, noise.data(), noise.size()), whole) << bit;
    noise[bit / 8] = static_cast<unsigned char>(noise[bit / 8] ^ 1u << (bit % 8));
  }
}

}  // namespace
}  // namespace xtree
