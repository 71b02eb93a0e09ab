#include "tree/curve.h"

#include <cmath>

namespace xtree {

namespace {

// Two dimensions, four bits of each at a time. A state says how the curve lies in the present
// square: bit 0 swaps the axes, bit 1 reverses both.
struct PlaneTable {
  // [state][x nibble << 4 | y nibble]: position byte, next state << 8.
  uint16_t step[4][256];
};

constexpr PlaneTable MakePlaneTable() {
  PlaneTable t{};
  for (uint32_t state = 0; state < 4; ++state) {
    for (uint32_t xy = 0; xy < 256; ++xy) {
      uint32_t swap = state & 1, reverse = state >> 1, position = 0;
      for (int bit = 3; bit >= 0; --bit) {
        const uint32_t a = (xy >> (4 + bit) & 1) ^ reverse;
        const uint32_t b = (xy >> bit & 1) ^ reverse;
        const uint32_t x = swap ? b : a;
        const uint32_t y = swap ? a : b;
        // The four quarters are walked as a U: (0,0), (0,1), (1,1), (1,0). The first and the last
        // are turned so that their ends meet their neighbours.
        position = position << 2 | ((3 * x) ^ y);
        if (y == 0) {
          swap ^= 1;
          reverse ^= x;
        }
      }
      t.step[state][xy] = static_cast<uint16_t>(position | (reverse << 1 | swap) << 8);
    }
  }
  return t;
}
constexpr PlaneTable kPlane = MakePlaneTable();

uint64_t PlanePosition(uint32_t bits, uint32_t x, uint32_t y) {
  uint64_t position = 0;
  uint32_t state = 0;
  for (int shift = static_cast<int>(bits) - 4; shift >= 0; shift -= 4) {
    const uint32_t step = kPlane.step[state][(x >> shift & 15) << 4 | (y >> shift & 15)];
    position = position << 8 | (step & 255);
    state = step >> 8;
  }
  return position;
}

// Any number of dimensions, by Skilling's method: undo the curve's turns from the coarsest bit down,
// Gray-encode across the axes, then deal the bits out, coarsest first.
uint64_t SpacePosition(uint32_t dims, uint32_t bits, uint32_t* x) {
  for (uint32_t q = 1u << (bits - 1); q > 1; q >>= 1) {
    const uint32_t below = q - 1;
    for (uint32_t d = 0; d < dims; ++d) {
      if (x[d] & q) {
        x[0] ^= below;
      } else {
        const uint32_t t = (x[0] ^ x[d]) & below;
        x[0] ^= t;
        x[d] ^= t;
      }
    }
  }
  for (uint32_t d = 1; d < dims; ++d) x[d] ^= x[d - 1];
  uint32_t turn = 0;
  for (uint32_t q = 1u << (bits - 1); q > 1; q >>= 1) {
    if (x[dims - 1] & q) turn ^= q - 1;
  }
  uint64_t position = 0;
  for (uint32_t bit = bits; bit-- > 0;) {
    for (uint32_t d = 0; d < dims; ++d) position = position << 1 | ((x[d] ^ turn) >> bit & 1);
  }
  return position;
}

}  // namespace

HilbertCurve::HilbertCurve(uint32_t dims, const double* lo, const double* hi) : dims_(dims) {
  // One dimension needs no curve, so it may be as fine as a cell number can be.
  bits_ = dims == 1 ? 32 : kCurveBits / dims;
  for (uint32_t d = 0; d < dims; ++d) {
    half_lo_[d] = lo[d] / 2;
    const double half_extent = hi[d] / 2 - half_lo_[d];
    const double cells = static_cast<double>(uint64_t{1} << bits_);
    scale_[d] = half_extent > 0 && std::isfinite(half_extent) ? cells / half_extent / 2 : 0;
    if (!std::isfinite(scale_[d])) scale_[d] = 0;
  }
}

uint32_t HilbertCurve::Cell(uint32_t d, double lo, double hi) const {
  // (lo + hi) / 2 - bound, in halves.
  const double cell = (lo / 2 - half_lo_[d] + (hi / 2 - half_lo_[d])) * scale_[d];
  const auto last = static_cast<uint32_t>((uint64_t{1} << bits_) - 1);
  if (!(cell > 0)) return 0;
  return cell >= last ? last : static_cast<uint32_t>(cell);
}

uint64_t HilbertCurve::Position(const double* lo, const double* hi) const {
  if (dims_ == 1) return Cell(0, lo[0], hi[0]);
  if (dims_ == 2) return PlanePosition(bits_, Cell(0, lo[0], hi[0]), Cell(1, lo[1], hi[1]));
  uint32_t x[kDimsMax];
  for (uint32_t d = 0; d < dims_; ++d) x[d] = Cell(d, lo[d], hi[d]);
  return SpacePosition(dims_, bits_, x);
}

}  // namespace xtree
