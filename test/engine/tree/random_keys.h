// Random keys and predicates for differential tests, with the values that break comparisons mixed in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tree/geometry.h"
#include "tree/node_layout.h"

namespace xtree {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr KeySpec kBoxes2{2, CoordType::kF64, KeyKind::kBox};
inline constexpr KeySpec kPoints2{2, CoordType::kF64, KeyKind::kPoint};

// All shapes of keys that the tests go through.
inline std::vector<KeySpec> TestSpecs() {
  std::vector<KeySpec> specs;
  for (uint8_t dims : {1, 2, 3, 5, 8, 16, 32}) {
    for (CoordType coord : {CoordType::kF64, CoordType::kF32}) {
      for (KeyKind kind : {KeyKind::kBox, KeyKind::kPoint}) {
        specs.push_back(KeySpec{dims, coord, kind});
      }
    }
  }
  return specs;
}

inline std::string SpecName(const KeySpec& spec) {
  return std::to_string(spec.dims) + "-D " + (spec.coord == CoordType::kF64 ? "f64" : "f32") +
         (spec.kind == KeyKind::kBox ? " boxes" : " points");
}

// All layouts of leaves that the tests go through.
struct TestLeaf {
  KeySpec spec;
  const NodeLayout* layout;
  int scale;  // -1: an exact leaf.
};
inline std::vector<TestLeaf> TestLeaves() {
  std::vector<TestLeaf> leaves;
  for (const KeySpec& spec : TestSpecs()) {
    leaves.push_back(TestLeaf{spec, &NodeLayout::ExactLeaf(spec), -1});
    if (!NodeLayout::HasDecimal(spec)) continue;
    for (const int scale : {0, 3, kDecimalScaleMax}) {
      leaves.push_back(TestLeaf{spec, &NodeLayout::DecimalLeaf(spec, scale), scale});
    }
  }
  return leaves;
}
inline std::string LeafName(const TestLeaf& leaf) {
  if (leaf.scale < 0) return SpecName(leaf.spec);
  return SpecName(leaf.spec) + " in decimals of scale " + std::to_string(leaf.scale);
}

class RandomKeys {
 public:
  RandomKeys(const KeySpec& spec, uint64_t seed) : spec_(spec), random_(seed) {}
  // Keys for such a leaf.
  RandomKeys(const TestLeaf& leaf, uint64_t seed)
      : scale(leaf.scale), spec_(leaf.spec), random_(seed) {}
  // Keys are decimal in this scale, if it is not -1,
  int scale = -1;
  // but for one in so many, if that is not 0.
  uint64_t keys_per_odd = 0;
  // How many of a hundred coordinates are special values; NaN only if wanted.
  int special_percent = 5;
  bool nan = false;

  uint64_t Below(uint64_t n) { return random_() % n; }
  double Uniform(double lo, double hi) {
    return std::uniform_real_distribution<double>(lo, hi)(random_);
  }
  double Coordinate() { return scale < 0 ? AnyCoordinate() : DecimalCoordinate(); }
  double AnyCoordinate() {
    double x = Below(4) == 0 ? std::floor(Uniform(-8, 8)) : Uniform(-100, 100);
    if (static_cast<int>(Below(100)) < special_percent) {
      const double specials[] = {0.0, -0.0, kInf, -kInf, 1e300, -1e300, 1e-310, -1e-310,
                                 3.5e38, -3.5e38, 16777217, kNan};
      x = specials[Below(nan ? 12 : 11)];
    }
    return spec_.coord == CoordType::kF32 ? static_cast<double>(static_cast<float>(x)) : x;
  }
  // The decimal nearest to x.
  double Snap(double x) const {
    const double unit = kPowersOfTen[scale];
    constexpr double kMax = kDecimalMax;
    return FromDecimal(static_cast<int32_t>(std::clamp(std::round(x * unit), -kMax, kMax)), unit);
  }
  double DecimalCoordinate() {
    if (static_cast<int>(Below(100)) < special_percent) {
      const double specials[] = {0, 1e12, -1e12, 1, -1};
      return Snap(specials[Below(5)]);
    }
    const double range = std::min(100.0, kDecimalMax / kPowersOfTen[scale]);
    return Snap(Below(4) == 0 ? std::floor(Uniform(-8, 8)) : Uniform(-range, range));
  }
  double Bound() { return scale >= 0 && Below(2) == 0 ? AnyCoordinate() : Coordinate(); }
  Key NextKey() {
    Key key;
    if (scale >= 0 && keys_per_odd != 0 && Below(keys_per_odd) == 0) {
      const int decimals = std::exchange(scale, -1);
      key = NextKey();
      scale = decimals;
      return key;
    }
    for (uint32_t d = 0; d < spec_.dims; ++d) {
      key.lo[d] = Coordinate();
      key.hi[d] = key.lo[d];
      if (spec_.kind == KeyKind::kPoint) continue;
      switch (Below(4)) {
        case 0: break;  // Degenerate.
        case 1: key.hi[d] = Coordinate(); break;
        default: key.hi[d] = key.lo[d] + Uniform(0, 5);
      }
      if (scale >= 0) key.hi[d] = Snap(key.hi[d]);
      if (spec_.coord == CoordType::kF32) key.hi[d] = static_cast<float>(key.hi[d]);
      if (key.lo[d] > key.hi[d]) std::swap(key.lo[d], key.hi[d]);
    }
    return key;
  }
  // Windows of any shape: overlap, containment, half spaces, single sides, everything, nothing.
  Predicate NextPredicate() {
    Predicate p = Predicate::All();
    p.nan_matches = Below(2) != 0;
    const uint64_t shape = Below(6);
    for (uint32_t d = 0; d < spec_.dims; ++d) {
      double a = Bound(), b = Bound();
      if (shape < 4) b = a + Uniform(0, spec_.dims > 3 ? 200 : 60);
      if (a > b) std::swap(a, b);
      if (spec_.dims > 3 && Below(3) != 0) continue;  // Lest nothing match.
      if (shape == 0 || shape == 1) p.lo_max[d] = b, p.hi_min[d] = a;  // Overlap.
      if (shape == 2) p.lo_min[d] = a, p.hi_max[d] = b;                // Within.
      if (shape == 3) p.lo_max[d] = a, p.hi_min[d] = a;                // Contains a point.
      if (shape == 4) (Below(2) ? p.lo_max : p.hi_min)[d] = a;
      if (shape == 5) {
        double* const sides[] = {p.lo_min, p.lo_max, p.hi_min, p.hi_max};
        sides[Below(4)][d] = a;
        sides[Below(4)][d] = b;
      }
    }
    return p;
  }

 private:
  const KeySpec spec_;
  std::mt19937_64 random_;
};

// The contract of Predicate in so many words. A side without a bound compares nothing.
inline bool Matches(const KeySpec& spec, const Predicate& p, const Key& key) {
  for (uint32_t d = 0; d < spec.dims; ++d) {
    if (!(p.lo_min[d] <= p.lo_max[d] && p.hi_min[d] <= p.hi_max[d])) return false;
  }
  const auto at_most = [&p](double x, double bound) {
    if (bound == kInf) return true;
    return std::isnan(x) ? p.nan_matches : x <= bound;
  };
  const auto at_least = [&p](double x, double bound) {
    if (bound == -kInf) return true;
    return std::isnan(x) ? p.nan_matches : x >= bound;
  };
  for (uint32_t d = 0; d < spec.dims; ++d) {
    if (!at_least(key.lo[d], p.lo_min[d]) || !at_most(key.lo[d], p.lo_max[d]) ||
        !at_least(key.hi[d], p.hi_min[d]) || !at_most(key.hi[d], p.hi_max[d])) {
      return false;
    }
  }
  return true;
}

// A node in memory of its own, as a store would hand it out.
class HeapNode {
 public:
  HeapNode(const NodeLayout& layout, uint32_t order)
      : layout_(layout),
        memory_(static_cast<std::byte*>(
            std::aligned_alloc(kBlockBytes, size_t{kBlockBytes} << order))) {
    std::memset(memory_, 0x5a, size_t{kBlockBytes} << order);  // Stale bytes, as in reused extents.
    for (uint32_t i = 0; i < 1u << order; ++i) {
      BlockHeader* block = NodeLayout::Block(node(), i);
      *block = BlockHeader{};
      block->kind = layout.kind;
      block->level = layout.leaf ? 0 : 1;
      block->order = static_cast<uint8_t>(order);
      block->extent_index = static_cast<uint8_t>(i);
    }
  }
  ~HeapNode() { std::free(memory_); }
  HeapNode(const HeapNode&) = delete;
  const NodeLayout& layout() const { return layout_; }
  BlockHeader* node() { return reinterpret_cast<BlockHeader*>(memory_); }

 private:
  const NodeLayout& layout_;
  std::byte* memory_;
};

}  // namespace xtree
