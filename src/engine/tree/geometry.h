// Keys, predicates and rectangles in 1 to 32 dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/macros.h"

namespace xtree {

inline constexpr uint32_t kDimsMax = 32;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Stored in superblocks. DO NOT REORDER.
enum class CoordType : uint8_t { kF64 = 0, kF32 = 1 };
enum class KeyKind : uint8_t { kBox = 0, kPoint = 1 };

// What one tree's keys look like.
struct KeySpec {
  uint8_t dims;        // 1..kDimsMax.
  CoordType coord;     // Precision in leaves. Inner nodes always use f32 rounded outward.
  KeyKind kind;        // Points are stored without a second corner.
};

// A key as the callers pass it: always doubles; f32 trees require values that are exact in f32.
// A point has lo == hi. A coordinate may be infinite or NaN; a box with lo > hi is invalid except
// through NaN. For bounding purposes a NaN coordinate counts as [-inf, +inf] in its dimension.
struct Key {
  double lo[kDimsMax];
  double hi[kDimsMax];
};

// Copies `dims` numbers, which need no alignment in `to`. Of a plain loop or copy, compilers make a string
// instruction, whose start takes as long as copying dozens of numbers one by one.
inline void CopyCoords(void* to, const double* from, uint32_t dims) {
  auto* out = static_cast<std::byte*>(to);
  for (uint32_t d = 0; d < dims; ++d) {
    std::memcpy(out + d * sizeof(double), from + d, sizeof(double));
    __asm__("");
  }
}

// 48-bit record ids (the host: block << 16 | offset).
inline constexpr uint64_t kRecordIdMax = (uint64_t{1} << 48) - 1;

// A key with a NaN coordinate is unordered: no bounds describe it. IndexDetails keeps such rows
// beside the NULL ones, so that queries over the main tree are exact without looking at NaNs.
inline bool IsUnordered(const KeySpec& spec, const double* lo, const double* hi) {
  for (uint32_t d = 0; d < spec.dims; ++d) {
    if (lo[d] != lo[d] || (spec.kind == KeyKind::kBox && hi[d] != hi[d])) return true;
  }
  return false;
}

// A row's key in the tree of NULL and unordered rows; the sign tells the two apart, so that a
// window of one dimension finds either kind.
inline double NullTreeKey(uint64_t record_id, bool unordered) {
  const double id = static_cast<double>(record_id);  // Exact: 48 bits.
  return unordered ? -1.0 - id : id;
}

// A window query: a key matches iff for every dimension d
//   lo_min[d] <= key.lo[d] <= lo_max[d]  and  hi_min[d] <= key.hi[d] <= hi_max[d].
// Every position operator of the host is such a conjunction; tolerances and strictness are folded
// into the bounds exactly by whoever builds it (am/xtopclass.c), with nextafter. An impossible bound
// (min > max, or NaN) matches nothing.
struct Predicate {
  double lo_min[kDimsMax];
  double lo_max[kDimsMax];
  double hi_min[kDimsMax];
  double hi_max[kDimsMax];
  // Whether a NaN key coordinate passes its comparisons (the caller rechecks) or fails them.
  bool nan_matches;

  // Everything, NaN included.
  static Predicate All() {
    Predicate p;
    for (uint32_t d = 0; d < kDimsMax; ++d) {
      p.lo_min[d] = p.hi_min[d] = -kInfinity;
      p.lo_max[d] = p.hi_max[d] = kInfinity;
    }
    p.nan_matches = true;
    return p;
  }
};

}  // namespace xtree
