// Compares many entries of a node at once, for scans: AVX-512, AVX2 and portable, chosen at run time.
//
// Window queries are compiled to a short list of one-sided tests, so that a side without a bound
// costs nothing. A test on an f32 value is exact although bounds are f64: x <= b holds for an f32 x
// exactly if x <= RoundDown(b).
//
// Threads: the kernels only read, beside the writer's in-place changes (tree/node_layout.h). The
//   portable path reads each word as an atomic; the vector paths use plain loads, whose lanes are
//   each read whole on every CPU that has them, so each lane is an old value or a new one, and
//   either is right. A TSan build has the portable path only.
#pragma once

#include <cstdint>

#include "segment/block.h"
#include "tree/geometry.h"
#include "tree/node_layout.h"

namespace xtree {

// `row` <= or >= bound; row numbers are those of a group's coordinates (leaf) or 2 * d (+ 1 for hi).
struct BoundTest {
  uint32_t row;
  float bound32;   // Equivalent for f32 rows,
  int32_t bound_k; // for decimal rows (WindowQuery::PrepareFor).
  double bound;
};

// A Predicate prepared for one tree. About 4 KB, of which only the used parts are ever touched.
struct WindowQuery {
  bool empty;            // Matches nothing.
  bool nan_matches;
  uint32_t upper_count;  // Dimensions with an upper bound: a box must have lo <= it to hold matches,
  uint32_t lower_count;  // and hi <= it for all its keys to match; lower bounds likewise.
  uint32_t le_count;     // Tests on leaf rows.
  uint32_t ge_count;
  BoundTest upper[kDimsMax];  // row: 2 * d.
  BoundTest lower[kDimsMax];
  BoundTest le[2 * kDimsMax];
  BoundTest ge[2 * kDimsMax];

  double unit;           // What the tests' bound_k are for; 0: for nothing yet.

  bool unbounded() const { return upper_count + lower_count + le_count + ge_count == 0; }
  void Prepare(const KeySpec& spec, const Predicate& predicate);
  // REQUIRED before a kernel compares entries of a leaf with this layout: sets bound_k.
  void PrepareFor(const NodeLayout& leaf) {
    if (leaf.decimal() && leaf.unit != unit) PrepareDecimal(leaf.unit);
  }
  void PrepareDecimal(double decimal_unit);
};

// A point whose neighbours are wanted.
struct NearestQuery {
  uint32_t dims;
  bool points;               // The tree's keys are points.
  bool finite;               // All coordinates are.
  double p[kDimsMax];
  float down[kDimsMax];      // RoundDown(p), RoundUp(p).
  float up[kDimsMax];
  void Prepare(const KeySpec& spec, const double* point);
};

// The distance that NearestScan returns; all kernels agree with it to the bit.
double KeyDistance(const NearestQuery& query, const double* lo, const double* hi);

struct Kernels {
  const char* name;
  // Entries [0, count) of a leaf block that match: their record ids, or their slots. May write up to
  // `count` rounded up to a group elements. Returns how many match.
  uint32_t (*leaf_ids)(const NodeLayout& layout, const BlockHeader* block, uint32_t count,
                       const WindowQuery& query, uint64_t* ids);
  uint32_t (*leaf_slots)(const NodeLayout& layout, const BlockHeader* block, uint32_t count,
                         const WindowQuery& query, uint16_t* slots);
  // Children whose boxes may hold matches; same rule for the output.
  uint32_t (*children)(const NodeLayout& layout, const BlockHeader* block, uint32_t count,
                       const WindowQuery& query, uint64_t* ids);
  // Groups of the block whose boxes may hold matches (bit g), and within one group the entries that
  // match (leaf) or may hold matches (inner), counting all lanes as used.
  uint64_t (*match_groups)(const NodeLayout& layout, const BlockHeader* block, uint32_t count,
                           const WindowQuery& query);
  uint32_t (*match_entries)(const NodeLayout& layout, const BlockHeader* block, uint32_t group,
                            const WindowQuery& query);
  // Lower bounds of the distance to anything in each group (writes 64), or in each child of a group
  // (writes 16); never above the true distance.
  void (*group_distances)(const NodeLayout& layout, const BlockHeader* block, uint32_t count,
                          const NearestQuery& query, float* distances);
  void (*child_distances)(const NodeLayout& layout, const BlockHeader* block, uint32_t group,
                          const NearestQuery& query, float* distances);
  // KeyDistance for each lane of a leaf group (writes 16).
  void (*leaf_distances)(const NodeLayout& layout, const BlockHeader* block, uint32_t group,
                         const NearestQuery& query, double* distances);
};

// The fastest set this CPU runs. Constant for the life of the process.
const Kernels& ActiveKernels();
// For tests: the i-th set that this CPU runs, slowest first; null when there are no more.
const Kernels* KernelSet(uint32_t i);

}  // namespace xtree
