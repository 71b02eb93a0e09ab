// Goal: what is packed is read back to the bit, in the bytes it promises, and nothing else is taken for it.
// Method: keys of all dimensions with numbers of each kind, mixed; the bytes of the kinds that should be short.
#include "tree/packed_coords.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tree/random_keys.h"

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace xtree {
namespace {

class PackedCoords : public ::testing::Test {
 protected:
  // A number of `kind`: 0 whole, 1 with few digits, 2 exact in f32, 3 any bits at all, 4 from a list.
  double Draw(int kind) {
    static constexpr double kOdd[] = {0.0, -0.0, kInf, -kInf, 1e300, -1e-310, 5e-324, 0.1, 1.0 / 3,
                                      kDecimalMax, -kDecimalMax, kDecimalMax + 1.0, 2147483648.0,
                                      -2147483648.0, 3.5e38, 1e-46};
    const uint64_t r = random_();
    switch (kind) {
      case 0: return static_cast<int32_t>(r);
      case 1: return FromDecimal(static_cast<int32_t>(r % 3600000001 - 1800000000), 1e7);
      case 2: return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(r)));
      case 3: return std::bit_cast<double>(r);
      default: return kOdd[r % std::size(kOdd)];
    }
  }
  // The packing that was chosen, after having it read back.
  uint8_t RoundTrip(const Key& key, uint32_t dims, bool point) {
    std::byte bytes[kPackedBytesMax];
    uint8_t packing = 0xff;
    const uint32_t length = PackCoords(key.lo, key.hi, dims, point, bytes, &packing);
    EXPECT_EQ(length, PackedBytes(packing, dims, point));
    // Where nothing lies behind it.
    const std::vector<std::byte> exact(bytes, bytes + length);
    Key back;
    EXPECT_TRUE(UnpackCoords(exact.data(), length, packing, dims, point, back.lo, back.hi));
    const double* hi = point ? key.lo : key.hi;
    for (uint32_t d = 0; d < dims; ++d) {
      EXPECT_EQ(std::bit_cast<uint64_t>(back.lo[d]), std::bit_cast<uint64_t>(key.lo[d])) << d;
      EXPECT_EQ(std::bit_cast<uint64_t>(back.hi[d]), std::bit_cast<uint64_t>(hi[d])) << d;
    }
    return packing;
  }
  std::mt19937_64 random_{11};
};

TEST_F(PackedCoords, ComeBackToTheBit) {
  for (int i = 0; i < 200'000; ++i) {
    const uint32_t dims = 1 + random_() % (i % 4 == 0 ? kDimsMax : 3);
    const int kind = static_cast<int>(random_() % 6);  // 5: mixed.
    Key key;
    for (uint32_t d = 0; d < dims; ++d) {
      key.lo[d] = Draw(kind == 5 ? static_cast<int>(random_() % 5) : kind);
      key.hi[d] = Draw(kind == 5 ? static_cast<int>(random_() % 5) : kind);
    }
    RoundTrip(key, dims, random_() % 2 == 0);
    if (HasFailure()) FAIL() << "key " << i << " of " << dims << " dimensions, kind " << kind;
  }
}

TEST_F(PackedCoords, OfFewDigitsTakeHalfTheBytes) {
  const Key degrees{{-122.4194155, 37.7749295}, {179.9999999, -0.0000001}};
  EXPECT_EQ(RoundTrip(degrees, 2, false), kPackedDecimal + 7);
  EXPECT_EQ(RoundTrip(degrees, 2, true), kPackedDecimal + 7);
  const Key narrow{{0.1f, 16777216}, {-3.5f, kInf}};
  EXPECT_EQ(RoundTrip(narrow, 2, false), kPackedF32);
  const Key metres{{4321000.25, 2147483646}, {0.5, 7}};
  EXPECT_EQ(RoundTrip(metres, 1, true), kPackedDecimal + 2);
  EXPECT_EQ(RoundTrip(metres, 2, true), kPackedF64);
  // One number is enough.
  const Key mixed{{0.1, 0.2}, {0.3, std::nextafter(0.4, 1)}};
  EXPECT_EQ(RoundTrip(mixed, 2, true), kPackedDecimal + 9);
  EXPECT_EQ(RoundTrip(mixed, 2, false), kPackedF64);
  // Only the zero without a sign is an integer.
  const Key zeros{{-0.0, 0.1}, {0.0, 0.1}};
  EXPECT_EQ(RoundTrip(zeros, 2, true), kPackedF64);
  EXPECT_EQ(PackedBytes(kPackedDecimal, 2, false), 16u);
  EXPECT_EQ(PackedBytes(kPackedF64, 2, true), 16u);
}

#ifdef __SSE2__
// A library that was built with -ffast-math does this to the thread that loads it.
TEST_F(PackedCoords, ComeBackToTheBitWhereSubnormalNumbersAreTakenForZero) {
  const Key tiny{{1e-40f, 5e-324, 0.5}, {std::numeric_limits<float>::denorm_min(), 1, 1}};
  const unsigned before = _mm_getcsr();
  for (const bool flushed_too : {false, true}) {
    for (const uint32_t dims : {1u, 3u}) {
      std::byte bytes[kPackedBytesMax];
      uint8_t packing;
      Key back;
      if (flushed_too) _mm_setcsr(before | 0x8040);
      const uint32_t length = PackCoords(tiny.lo, tiny.hi, dims, false, bytes, &packing);
      _mm_setcsr(before | 0x8040);
      const bool read = UnpackCoords(bytes, length, packing, dims, false, back.lo, back.hi);
      _mm_setcsr(before);
      EXPECT_TRUE(read);
      EXPECT_EQ(std::memcmp(back.lo, tiny.lo, dims * sizeof(double)), 0);
      EXPECT_EQ(std::memcmp(back.hi, tiny.hi, dims * sizeof(double)), 0);
    }
  }
  const Key zeros{{0.0, -0.0, 0.5}, {0.0, -0.0, 1}};
  EXPECT_EQ(RoundTrip(zeros, 3, false), kPackedF32);
}
#endif

TEST_F(PackedCoords, OfOtherLengthsOrKindsAreRefused) {
  const std::byte bytes[kPackedBytesMax + 8] = {};
  Key key;
  for (int packing = 0; packing < 256; ++packing) {
    for (uint32_t length = 0; length <= sizeof(bytes); ++length) {
      const uint8_t kind = static_cast<uint8_t>(packing);
      EXPECT_EQ(UnpackCoords(bytes, length, kind, 3, false, key.lo, key.hi),
                packing <= kPackingMax && length == (packing == kPackedF64 ? 48u : 24u));
    }
  }
}

}  // namespace
}  // namespace xtree
