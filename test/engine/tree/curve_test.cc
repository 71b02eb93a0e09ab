// Goal: the curve visits every cell of the grid once, always steps to a neighbour, and takes any value.
// Method: centres of a coarse grid's cells, whose order must be a Hilbert curve of few bits.
#include "tree/curve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <vector>

#include "tree/random_keys.h"

namespace xtree {
namespace {

struct Visited {
  uint64_t position;
  std::vector<int> cell;
};

// All cells of a grid of `side` cells in each dimension, in curve order.
std::vector<Visited> Walk(uint32_t dims, int side) {
  std::vector<double> lo(dims, 0.0), hi(dims, side);
  const HilbertCurve curve(dims, lo.data(), hi.data());
  std::vector<Visited> visits;
  std::vector<int> cell(dims, 0);
  for (bool more = true; more;) {
    std::vector<double> centre;
    for (int c : cell) centre.push_back(c + 0.5);
    visits.push_back(Visited{curve.Position(centre.data(), centre.data()), cell});
    more = false;
    for (uint32_t d = 0; d < dims && !more; ++d) {
      more = ++cell[d] < side;
      if (!more) cell[d] = 0;
    }
  }
  std::sort(visits.begin(), visits.end(),
            [](const Visited& a, const Visited& b) { return a.position < b.position; });
  return visits;
}

TEST(HilbertCurve, StepsFromNeighbourToNeighbour) {
  const struct { uint32_t dims; int side; } grids[] = {{1, 256}, {2, 64}, {3, 16}, {4, 8}, {8, 2}};
  for (const auto& grid : grids) {
    SCOPED_TRACE(grid.dims);
    const std::vector<Visited> visits = Walk(grid.dims, grid.side);
    for (size_t i = 1; i < visits.size(); ++i) {
      ASSERT_LT(visits[i - 1].position, visits[i].position);
      int distance = 0;
      for (uint32_t d = 0; d < grid.dims; ++d) {
        distance += std::abs(visits[i].cell[d] - visits[i - 1].cell[d]);
      }
      ASSERT_EQ(distance, 1);
    }
  }
}

TEST(HilbertCurve, KeepsPositionsWithinItsBits) {
  for (const KeySpec& spec : TestSpecs()) {
    std::vector<double> lo(spec.dims, -100.0), hi(spec.dims, 100.0);
    const HilbertCurve curve(spec.dims, lo.data(), hi.data());
    EXPECT_LE(curve.position_bits(), kCurveBits);
    RandomKeys random(spec, 21);
    random.nan = true;
    random.special_percent = 30;
    for (int i = 0; i < 1000; ++i) {
      const Key key = random.NextKey();
      ASSERT_EQ(curve.Position(key.lo, key.hi) >> curve.position_bits(), 0u);
    }
  }
}

TEST(HilbertCurve, GivesOnePositionToAllKeysOfAnEmptyExtent) {
  const double lo[] = {kInf, 3}, hi[] = {-kInf, 3};
  const HilbertCurve curve(2, lo, hi);
  std::set<uint64_t> positions;
  for (double x : {-5.0, 0.0, 3.0, 7e300, kInf}) {
    const double key[] = {x, 3};
    positions.insert(curve.Position(key, key));
  }
  EXPECT_EQ(positions.size(), 1u);
}

TEST(HilbertCurve, DoesNotOverflowOnHugeExtents) {
  const double lo[] = {-1.7e308, 0}, hi[] = {1.7e308, 1};
  const HilbertCurve curve(2, lo, hi);
  const double left[] = {-1.6e308, 0.1}, right[] = {1.6e308, 0.1};
  EXPECT_NE(curve.Position(left, left), curve.Position(right, right));
}

}  // namespace
}  // namespace xtree
