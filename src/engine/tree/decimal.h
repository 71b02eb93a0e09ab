// Decimal coordinates: an f64 that is k / 10^e, rounded to the nearest f64, can be kept as the 32-bit
// integer k. So are most coordinates that people or files write down: 7 digits after the point are a
// centimetre on the Earth. Whether a number is one is decided to the bit, so what is read back is what
// was stored; -0, NaN, infinities and numbers with more digits are none.
//
// Two integers of one scale compare as their numbers do: they differ by at least 1 in 2^31, and f64
// tells that apart. A number that is decimal in one scale is so in each larger one that has room for
// it, since both quotients are the same number, rounded once.
//
// Source: the idea of ALP (Afroozeh, Kuffo, Boncz, "ALP: Adaptive Lossless floating-Point Compression",
// SIGMOD 2023), here with integers of one width, so that they are compared where they lie.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace xtree {

inline constexpr int kDecimalScaleMax = 9;
// Below and above it is room for bounds that no number meets.
inline constexpr int32_t kDecimalMax = INT32_MAX - 1;
inline constexpr double kPowersOfTen[kDecimalScaleMax + 1] = {1,   1e1, 1e2, 1e3, 1e4,
                                                              1e5, 1e6, 1e7, 1e8, 1e9};

// `unit` is 10^scale in all of these.
inline double FromDecimal(int32_t k, double unit) { return k / unit; }

// The integer for a decimal `x`.
inline int32_t RoundToDecimal(double x, double unit) {
  // Adding this leaves no bits for a fraction, so the sum is rounded to the nearest integer, as long as
  // the processor rounds so.
  constexpr double kRounding = 0x1.8p52;
  return static_cast<int32_t>(x * unit + kRounding - kRounding);
}

// The integer for `x`, in *k, if x is decimal, which is returned.
inline bool ToDecimal(double x, double unit, int32_t* k) {
  const bool fits = std::fabs(x * unit) < kDecimalMax + 0.5;  // False for NaN.
  *k = RoundToDecimal(fits ? x : 0, unit);
  return fits & (std::bit_cast<uint64_t>(FromDecimal(*k, unit)) == std::bit_cast<uint64_t>(x));
}

inline bool AreDecimal(const double* x, uint32_t count, double unit) {
  bool all = true;
  int32_t k;
  for (uint32_t i = 0; i < count; ++i) all &= ToDecimal(x[i], unit, &k);
  return all;
}

// The largest scale with room for numbers of this magnitude, or -1.
inline int DecimalScaleFor(double magnitude) {
  int scale = kDecimalScaleMax;
  while (scale >= 0 && !(magnitude * kPowersOfTen[scale] < kDecimalMax + 0.5)) --scale;
  return scale;
}

// Whether that is `scale`, one that it may be.
inline bool IsDecimalScaleFor(double magnitude, int scale) {
  constexpr double kBelow = kDecimalMax + 0.5;
  return (scale < 0 || magnitude * kPowersOfTen[scale] < kBelow) &&
         (scale == kDecimalScaleMax || !(magnitude * kPowersOfTen[scale + 1] < kBelow));
}

// The integer b for which k <= b exactly if FromDecimal(k) <= bound, k >= b exactly if it is >=, for
// all k from -kDecimalMax to kDecimalMax. REQUIRES: `bound` is not NaN.
inline int32_t DecimalAtMost(double bound, double unit) {
  constexpr double kMax = kDecimalMax;
  const double scaled = std::clamp(bound * unit, -kMax - 1, kMax);
  int64_t k = static_cast<int64_t>(scaled);
  if (static_cast<double>(k) > scaled) --k;  // Rounded down, without a call of the C library.
  // The product was rounded: at most one step off.
  if (k < kDecimalMax && static_cast<double>(k + 1) / unit <= bound) ++k;
  if (k >= -int64_t{kDecimalMax} && static_cast<double>(k) / unit > bound) --k;
  return static_cast<int32_t>(k);
}
inline int32_t DecimalAtLeast(double bound, double unit) { return -DecimalAtMost(-bound, unit); }

}  // namespace xtree
