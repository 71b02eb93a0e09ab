// Where everything in a node is (src/README.md, "Nodes"), and the only code that writes it.
//
// A node is 2^order blocks. Each block is self-contained: header, group boxes, ids, coordinates, so
// that entry e of a node is slot e % block_capacity of block e / block_capacity, and blocks fill in
// order. Slots come in groups of `group_size` (16, or 8 or 4 for very long keys):
//
//   group boxes   f32 rounded outward: lo[d0] x G, hi[d0] x G, lo[d1] x G, ... for the G groups.
//   ids           leaf, per group: u32 x g (low parts), u16 x g (high parts) of 48-bit record ids.
//                 inner, per group: u64 x g NodeIds.
//   coordinates   per group: lo[d0] x g, hi[d0] x g, lo[d1] x g, ... (points have no hi). In leaves
//                 f64 or f32, as the key's own type, or i32 where all of a leaf's f64 keys are
//                 decimal (tree/decimal.h); the block's kind says which. f32 rounded outward in inner
//                 nodes. They begin on a cache line where there is room for that.
//
// Why in this order: what every visit reads, and all that is read of a leaf that lies within a
// window, is in the first of a block's two pages. A page not in the TLB costs as much as the rest.
//
// Threads: a version that readers can see changes in two ways only, Append and WidenChild, both under
//   the writer lock, shared or not. Each word is stored atomically, and no reader can be hurt by the
//   order:
//   Append:     group box first, then the entry's own words (nobody reads a slot at or above the
//               count), then the count with release order. A reader that took the old count may see
//               the wider group box, and looks at a group in vain. One writer at a time (LeafAppend).
//   WidenChild: group box first, then the child's box, float by float, outward only. A reader sees
//               for each float the old value or the new one, so at least the old box; only a reader
//               that began after the change was applied must see all of the new box, and it does.
//               Several writers at once leave what contains the boxes of all.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "object/node_id.h"
#include "segment/block.h"
#include "tree/decimal.h"
#include "tree/geometry.h"

namespace xtree {

inline constexpr uint32_t kGroupSizeMax = 16;
inline constexpr uint32_t kGroupsMax = 48;          // In a block: f32 points in one dimension.
inline constexpr uint32_t kNodeEntriesMin = 48;     // Base orders are chosen to hold at least these.
// The largest order that a node of base order has (f64 boxes in 32 dimensions).
inline constexpr uint32_t kBaseOrderMax = 2;

// Words of a published node are read and written through these.
template <class T>
inline T LoadRelaxed(const T* word) {
  return std::atomic_ref<T>(*const_cast<T*>(word)).load(std::memory_order_relaxed);
}
template <class T>
inline void StoreRelaxed(T* word, T value) {
  std::atomic_ref<T>(*word).store(value, std::memory_order_relaxed);
}
// The least, the greatest of what a word held and `value`, also if several threads do this at once.
// Return whether the word has changed. Nothing is a NaN.
inline bool LowerTo(float* word, float value) {
  std::atomic_ref<float> ref(*word);
  float seen = ref.load(std::memory_order_relaxed);
  while (value < seen) {
    if (ref.compare_exchange_weak(seen, value, std::memory_order_relaxed)) return true;
  }
  return false;
}
inline bool RaiseTo(float* word, float value) {
  std::atomic_ref<float> ref(*word);
  float seen = ref.load(std::memory_order_relaxed);
  while (value > seen) {
    if (ref.compare_exchange_weak(seen, value, std::memory_order_relaxed)) return true;
  }
  return false;
}

// The largest f32 <= x, the smallest f32 >= x: exact values are kept, 1e300 becomes FLT_MAX or
// +inf. NaN becomes the unbounded side. The conversion rounds to nearest, so the result is one float
// too far at most, and floats of one sign are in the order of their bits.
inline float RoundDown(double x) {
  if (x != x) return -std::numeric_limits<float>::infinity();
  const float f = static_cast<float>(x);
  if (static_cast<double>(f) <= x) return f;
  if (f == 0) return -std::numeric_limits<float>::denorm_min();
  return std::bit_cast<float>(std::bit_cast<int32_t>(f) + (f > 0 ? -1 : 1));
}
inline float RoundUp(double x) { return -RoundDown(-x); }

// A bounding rectangle as inner nodes store it. Only `dims` elements are meaningful.
struct Box32 {
  float lo[kDimsMax];
  float hi[kDimsMax];

  void Clear(uint32_t dims) {  // To the empty box, which any Extend replaces.
    for (uint32_t d = 0; d < dims; ++d) {
      lo[d] = std::numeric_limits<float>::infinity();
      hi[d] = -std::numeric_limits<float>::infinity();
    }
  }
  void Extend(uint32_t dims, const Box32& other) {
    for (uint32_t d = 0; d < dims; ++d) {
      lo[d] = lo[d] < other.lo[d] ? lo[d] : other.lo[d];
      hi[d] = hi[d] > other.hi[d] ? hi[d] : other.hi[d];
    }
  }
  bool Contains(uint32_t dims, const Box32& other) const {
    for (uint32_t d = 0; d < dims; ++d) {
      if (!(lo[d] <= other.lo[d] && hi[d] >= other.hi[d])) return false;
    }
    return true;
  }
  // The smallest box around a key; a NaN in a dimension leaves that dimension unbounded.
  static Box32 Around(uint32_t dims, const double* lo, const double* hi);
};

// Entries taken out of a node, or to be put into one. Inner entries hold their f32 values exactly.
class EntryList {
 public:
  explicit EntryList(uint32_t dims) : dims_(dims) {}
  uint32_t dims() const { return dims_; }
  uint32_t size() const { return static_cast<uint32_t>(ids_.size()); }
  const double* lo(uint32_t i) const { return &coords_[size_t{i} * 2 * dims_]; }
  const double* hi(uint32_t i) const { return lo(i) + dims_; }
  uint64_t id(uint32_t i) const { return ids_[i]; }
  void Clear() {
    coords_.clear();
    ids_.clear();
  }
  void Reserve(uint32_t entries) {
    coords_.reserve(size_t{entries} * 2 * dims_);
    ids_.reserve(entries);
  }
  void Add(const double* lo, const double* hi, uint64_t id) {
    coords_.insert(coords_.end(), lo, lo + dims_);
    coords_.insert(coords_.end(), hi, hi + dims_);
    ids_.push_back(id);
  }
  void Add(const Box32& box, uint64_t id) {
    coords_.insert(coords_.end(), box.lo, box.lo + dims_);
    coords_.insert(coords_.end(), box.hi, box.hi + dims_);
    ids_.push_back(id);
  }
  void Set(uint32_t i, const Box32& box, uint64_t id);
  // New entries are indeterminate until they are written through mutable_lo and SetId.
  void Resize(uint32_t entries) {
    coords_.resize(size_t{entries} * 2 * dims_);
    ids_.resize(entries);
  }
  double* mutable_lo(uint32_t i) { return &coords_[size_t{i} * 2 * dims_]; }
  void SetId(uint32_t i, uint64_t id) { ids_[i] = id; }

 private:
  uint32_t dims_;
  std::vector<double> coords_;  // lo x dims, hi x dims for each entry.
  std::vector<uint64_t> ids_;
};

enum class CoordFormat : uint8_t { kF32, kF64, kDecimal };

// Offsets and sizes for one KeySpec and kind of node.
struct NodeLayout {
  double unit;                // Decimal leaves: 10^scale; else 1.
  BlockKind kind;             // kInner, kLeaf, or a decimal leaf's.
  CoordFormat format;
  uint8_t dims;
  bool leaf;
  uint8_t corners;            // 1: points without hi; else 2.
  uint8_t coord_bytes;        // 4 or 8.
  uint8_t base_order;         // Extent order of a node that is not a supernode.
  uint8_t group_shift;
  uint32_t group_size;        // Entries in a group: 1 << group_shift.
  uint32_t groups;            // In a block.
  uint32_t block_capacity;    // Entries in a block.
  uint32_t group_coord_bytes;
  uint32_t group_id_bytes;
  uint32_t ids_offset;        // From the start of the block, as all offsets. The group boxes are
  uint32_t coords_offset;     // right behind the header.

  // All are constant for the life of the program, so their addresses tell them apart. REQUIRES: a
  // valid spec.
  static const NodeLayout& Inner(const KeySpec& spec);
  // A leaf that takes any key.
  static const NodeLayout& ExactLeaf(const KeySpec& spec);
  // Whether leaves may be decimal: f64 keys, and more entries in a block than otherwise. A full one
  // can always be divided in two exact ones.
  static bool HasDecimal(const KeySpec& spec);
  // REQUIRES: HasDecimal(spec), 0 <= scale <= kDecimalScaleMax.
  static const NodeLayout& DecimalLeaf(const KeySpec& spec, int scale);
  // The decimal layout that takes all keys of `list`: `preferred` if that does, else that of the largest
  // scale with room for them. The exact one if there is none.
  static const NodeLayout& LeafFor(const KeySpec& spec, const EntryList& list,
                                   const uint32_t* pick, uint32_t count,
                                   const NodeLayout& preferred);
  // That of a node, by its level and kind; of a leaf of a kind that does not exist, the exact one.
  static const NodeLayout& Of(const KeySpec& spec, const BlockHeader& node);
  // The bytes of header and group boxes that a leaf begins with, at the most.
  static uint32_t LeafHeadBytes(const KeySpec& spec);
  // Whether `kind` is one that a node of this level and tree can have.
  static bool IsKind(const KeySpec& spec, uint32_t level, BlockKind kind);
  bool decimal() const { return format == CoordFormat::kDecimal; }
  // Whether a key can be stored without loss. (`hi` is ignored for points.)
  bool Takes(const double* lo, const double* hi) const {
    return !decimal() ||
           (AreDecimal(lo, dims, unit) && (corners == 1 || AreDecimal(hi, dims, unit)));
  }
  // Calls f with a value of the type that coordinates are stored in.
  template <class F>
  decltype(auto) WithFormat(F f) const {
    if (format == CoordFormat::kF64) return f(double{});
    if (format == CoordFormat::kF32) return f(float{});
    return f(int32_t{});
  }
  double Decode(double x) const { return x; }
  double Decode(float x) const { return double{x}; }
  double Decode(int32_t k) const { return FromDecimal(k, unit); }

  // --- Sizes.
  uint32_t Capacity(uint32_t order) const { return block_capacity << order; }
  uint32_t base_capacity() const { return Capacity(base_order); }
  // Smallest order from base_order up whose capacity is at least `entries`; kOrderMax + 1 if none.
  uint32_t OrderFor(uint32_t entries) const;
  static uint32_t BlockCount(const BlockHeader* block) {
    return std::atomic_ref<uint32_t>(const_cast<BlockHeader*>(block)->count)
        .load(std::memory_order_acquire);
  }
  static const BlockHeader* Block(const BlockHeader* node, uint32_t i) {
    return reinterpret_cast<const BlockHeader*>(reinterpret_cast<const std::byte*>(node) +
                                                size_t{i} * kBlockBytes);
  }
  static BlockHeader* Block(BlockHeader* node, uint32_t i) {
    return const_cast<BlockHeader*>(Block(const_cast<const BlockHeader*>(node), i));
  }
  // Entries of the whole node.
  uint32_t Count(const BlockHeader* node) const;

  // --- Parts of a block.
  const std::byte* Coords(const BlockHeader* block, uint32_t group) const {
    return At(block, coords_offset + group * group_coord_bytes);
  }
  // lo of all groups in dimension d; hi follows `groups` floats later.
  const float* GroupLo(const BlockHeader* block, uint32_t d) const {
    return reinterpret_cast<const float*>(At(block, sizeof(BlockHeader))) + size_t{2} * d * groups;
  }
  const float* GroupHi(const BlockHeader* block, uint32_t d) const {
    return GroupLo(block, d) + groups;
  }
  // u32 x group_size, then u16 x group_size (leaf), or u64 x group_size (inner).
  const std::byte* GroupIds(const BlockHeader* block, uint32_t group) const {
    return At(block, ids_offset + group * group_id_bytes);
  }

  // --- One entry, by its number in the node.
  // Record id or NodeId value.
  uint64_t Id(const BlockHeader* node, uint32_t entry) const;
  NodeId Child(const BlockHeader* node, uint32_t entry) const { return NodeId{Id(node, entry)}; }
  // Writes dims doubles to each (hi may be null).
  void ReadKey(const BlockHeader* node, uint32_t entry, double* lo, double* hi) const;
  // Id and key of each of the leaf entries in `slots` of one block; keys (dims doubles each) where not
  // null.
  void ReadEntries(const BlockHeader* block, const uint16_t* slots, uint32_t count, uint64_t* ids,
                   double* lo, double* hi) const;
  // REQUIRES: an inner node.
  Box32 ChildBox(const BlockHeader* node, uint32_t entry) const;
  // Entry whose NodeId is `id`, or UINT32_MAX.
  uint32_t FindChild(const BlockHeader* node, NodeId id) const;
  // The box around all groups, as a parent should have it; the empty box for no entries.
  Box32 Bounds(const BlockHeader* node) const;
  // Appends all entries to `list`.
  void ReadAll(const BlockHeader* node, EntryList* list) const;

  // --- Changing. See "Threads" above: the first three are safe beside readers.
  // REQUIRES: Count(node) < Capacity(node->order). The box or key is in the layout's precision.
  void Append(BlockHeader* node, const double* lo, const double* hi, uint64_t id) const;
  void AppendChild(BlockHeader* node, const Box32& box, NodeId id) const;
  // Makes child `entry`'s box (and first its group's) contain `box`. Returns false if it did already.
  bool WidenChild(BlockHeader* node, uint32_t entry, const Box32& box) const;
  // Gives child `entry` another box, which may be smaller, and its group the one that fits.
  // REQUIRES: a version that is not visible yet.
  void ReplaceChild(BlockHeader* node, uint32_t entry, const Box32& box) const;

  // Fills a fresh node (headers initialised, counts zero, not yet visible) with the entries
  // list[pick[0..count)], or list[0..count) if `pick` is null. Unless `keep_order`, near entries are
  // put into one group, so that group boxes are tight; full groups come first.
  // REQUIRES: count <= Capacity(node->order).
  void Build(BlockHeader* node, const EntryList& list, const uint32_t* pick, uint32_t count,
             bool keep_order = false) const;

 private:
  static const std::byte* At(const BlockHeader* block, size_t offset) {
    return reinterpret_cast<const std::byte*>(block) + offset;
  }
  static std::byte* At(BlockHeader* block, size_t offset) {
    return reinterpret_cast<std::byte*>(block) + offset;
  }
  // REQUIRES: Takes a key with x.
  template <class T>
  T Encode(double x) const {
    if constexpr (std::is_same_v<T, int32_t>) {
      return RoundToDecimal(x, unit);
    } else {
      return static_cast<T>(x);
    }
  }
  template <class T>
  void WriteCoords(BlockHeader* block, uint32_t slot, const double* lo, const double* hi) const;
  void WriteId(BlockHeader* block, uint32_t slot, uint64_t id) const;
  // Writes entry `slot` of a block and its group box, without counting it.
  void WriteEntry(BlockHeader* block, uint32_t slot, const double* lo, const double* hi,
                  uint64_t id) const;
  void WidenGroup(BlockHeader* block, uint32_t group, const Box32& box, bool first) const;
  // The first `lanes` entries of a group: lo x dims, hi x dims for each.
  template <class T>
  void ReadGroup(const std::byte* coords, uint32_t lanes, double* out) const;
  template <class T>
  void BuildGroup(BlockHeader* block, uint32_t group, const EntryList& list,
                  const uint32_t* order, uint32_t lanes) const;
};

// Orders `order[0..count)` (indexes into `list`) so that consecutive runs of `group` entries are
// close together, as tree/kd_order.h arranges them.
void ArrangeGroups(const EntryList& list, uint32_t* order, uint32_t count, uint32_t group);

}  // namespace xtree
