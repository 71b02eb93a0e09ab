// Goal: what is taken for decimal is read back to the bit, and integers compare as their numbers do.
// Method: against what strtod makes of the digits, and against plain comparisons around every bound.
#include "tree/decimal.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

namespace xtree {
namespace {

bool SameBits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

// The number with these digits, as text is read.
double FromText(int32_t k, int scale) {
  char text[32];
  std::snprintf(text, sizeof(text), "%de-%d", k, scale);
  return std::strtod(text, nullptr);
}

class Decimal : public ::testing::TestWithParam<int> {
 protected:
  // Of all magnitudes, and the ends of the range.
  int32_t NextInteger() {
    const uint64_t r = random_();
    if (r % 50 == 0) return kDecimalMax - static_cast<int32_t>(r >> 60);
    if (r % 50 == 1) return -kDecimalMax + static_cast<int32_t>(r >> 60);
    return static_cast<int32_t>(random_()) >> (r >> 59);
  }
  const int scale = GetParam();
  const double unit = kPowersOfTen[scale];
  std::mt19937_64 random_{7};
};

INSTANTIATE_TEST_SUITE_P(Scales, Decimal, ::testing::Range(0, kDecimalScaleMax + 1));

TEST_P(Decimal, IsWhatTextOfSoManyDigitsGives) {
  for (int i = 0; i < 100'000; ++i) {
    const int32_t k = std::clamp(NextInteger(), -kDecimalMax, kDecimalMax);
    ASSERT_TRUE(SameBits(FromDecimal(k, unit), FromText(k, scale)));
    int32_t back;
    ASSERT_TRUE(ToDecimal(FromText(k, scale), unit, &back));
    ASSERT_EQ(back, k);
  }
}

TEST_P(Decimal, IsNothingElse) {
  int32_t k;
  const double inf = std::numeric_limits<double>::infinity();
  for (const double x : {-0.0, inf, -inf, std::numeric_limits<double>::quiet_NaN(), 1e300, -1e300,
                         1e-310, (kDecimalMax + 1.0) / unit, -(kDecimalMax + 1.0) / unit}) {
    ASSERT_FALSE(ToDecimal(x, unit, &k)) << x;
  }
  for (int i = 0; i < 100'000; ++i) {
    const double x = FromDecimal(std::clamp(NextInteger(), -kDecimalMax, kDecimalMax), unit);
    ASSERT_FALSE(ToDecimal(std::nextafter(x, inf), unit, &k)) << x;
    ASSERT_FALSE(ToDecimal(std::nextafter(x, -inf), unit, &k)) << x;
  }
}

TEST_P(Decimal, IsSoInLargerScalesWithRoom) {
  for (int i = 0; i < 100'000; ++i) {
    const double x = FromDecimal(std::clamp(NextInteger(), -kDecimalMax, kDecimalMax), unit);
    const int largest = DecimalScaleFor(std::fabs(x));
    ASSERT_GE(largest, scale);
    for (int s = scale; s <= largest; ++s) ASSERT_TRUE(AreDecimal(&x, 1, kPowersOfTen[s])) << x;
  }
}

TEST_P(Decimal, BoundsDivideTheIntegersAsTheNumbers) {
  const double inf = std::numeric_limits<double>::infinity();
  const auto expect_divides = [&](double bound) {
    const int32_t most = DecimalAtMost(bound, unit);
    const int32_t least = DecimalAtLeast(bound, unit);
    // The integers beside either answer, and the ends.
    for (const int64_t base : {int64_t{most}, int64_t{least}, int64_t{0}, int64_t{kDecimalMax},
                               -int64_t{kDecimalMax}}) {
      for (int64_t k = base - 2; k <= base + 2; ++k) {
        if (std::abs(k) > kDecimalMax) continue;
        const double x = FromDecimal(static_cast<int32_t>(k), unit);
        ASSERT_EQ(k <= most, x <= bound) << k << " against " << bound;
        ASSERT_EQ(k >= least, x >= bound) << k << " against " << bound;
      }
    }
  };
  for (const double bound : {0.0, -0.0, inf, -inf, 1e300, -1e300, 1e-310, -1e-310,
                             kDecimalMax / unit, -kDecimalMax / unit, (kDecimalMax + 0.5) / unit,
                             -(kDecimalMax + 0.5) / unit}) {
    expect_divides(bound);
  }
  std::uniform_real_distribution<double> anywhere(-1.1 * kDecimalMax / unit,
                                                  1.1 * kDecimalMax / unit);
  for (int i = 0; i < 20'000; ++i) {
    const double x = FromDecimal(std::clamp(NextInteger(), -kDecimalMax, kDecimalMax), unit);
    expect_divides(x);
    expect_divides(std::nextafter(x, inf));
    expect_divides(std::nextafter(x, -inf));
    expect_divides(anywhere(random_));
  }
}

TEST(DecimalScale, IsTheLargestWithRoom) {
  EXPECT_EQ(DecimalScaleFor(0), 9);
  EXPECT_EQ(DecimalScaleFor(2.1), 9);
  EXPECT_EQ(DecimalScaleFor(2.2), 8);
  EXPECT_EQ(DecimalScaleFor(180), 7);
  EXPECT_EQ(DecimalScaleFor(kDecimalMax), 0);
  EXPECT_EQ(DecimalScaleFor(kDecimalMax + 1.0), -1);
  EXPECT_EQ(DecimalScaleFor(std::numeric_limits<double>::infinity()), -1);
  EXPECT_EQ(DecimalScaleFor(std::numeric_limits<double>::quiet_NaN()), -1);
  for (const double magnitude : {0.0, 2.1, 2.2, 180.0, double{kDecimalMax}, kDecimalMax + 1.0,
                                 std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (int scale = -1; scale <= kDecimalScaleMax; ++scale) {
      EXPECT_EQ(IsDecimalScaleFor(magnitude, scale), scale == DecimalScaleFor(magnitude)) << magnitude << " " << scale;
    }
  }
}

}  // namespace
}  // namespace xtree
