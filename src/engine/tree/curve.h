// Positions on a Hilbert curve, in 1 to 32 dimensions: near keys get near positions, mostly.
//
// Source: Hilbert, "Über die stetige Abbildung einer Linie auf ein Flächenstück", 1891; Skilling,
// "Programming the Hilbert curve", 2004 (any number of dimensions).
#pragma once

#include <cstdint>

#include "tree/geometry.h"

namespace xtree {

// The grid over a box of space that the curve walks. Positions have at most kCurveBits bits, so that
// a radix sort takes few passes.
inline constexpr uint32_t kCurveBits = 48;

class HilbertCurve {
 public:
  // `lo`, `hi`: the extent, `dims` each. Keys outside are clamped. An empty or infinite extent in a
  // dimension makes all keys equal in it.
  HilbertCurve(uint32_t dims, const double* lo, const double* hi);
  uint32_t position_bits() const { return bits_ * dims_; }

  // Position of the centre of a box. Any values: infinities and NaN go to an edge of the grid.
  uint64_t Position(const double* lo, const double* hi) const;

 private:
  uint32_t Cell(uint32_t d, double lo, double hi) const;

  uint32_t dims_;
  uint32_t bits_;               // For each dimension.
  double half_lo_[kDimsMax];    // Centres are halved sums, and so are these, lest they overflow.
  double scale_[kDimsMax];
};

}  // namespace xtree
