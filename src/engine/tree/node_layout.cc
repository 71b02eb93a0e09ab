#include "tree/node_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "tree/kd_order.h"

namespace xtree {

namespace {

constexpr float kInf32 = std::numeric_limits<float>::infinity();

// Kernels load whole vectors of 64 bytes, and rows of small groups are shorter.
constexpr uint32_t Overrun(const NodeLayout& l) {
  const uint32_t row_bytes = l.group_size * l.coord_bytes;
  return row_bytes < 64 ? 64 - row_bytes : 0;
}

constexpr NodeLayout MakeLayout(uint32_t dims, bool leaf, CoordFormat format, bool point,
                                uint32_t shift) {
  NodeLayout l{};
  l.unit = 1;
  l.kind = leaf ? BlockKind::kLeaf : BlockKind::kInner;
  l.format = format;
  l.dims = static_cast<uint8_t>(dims);
  l.leaf = leaf;
  l.corners = point ? 1 : 2;
  l.coord_bytes = format == CoordFormat::kF64 ? 8 : 4;
  l.group_shift = static_cast<uint8_t>(shift);
  l.group_size = 1u << shift;
  l.group_coord_bytes = dims * l.corners * l.coord_bytes << shift;
  l.group_id_bytes = (leaf ? 6u : 8u) << shift;
  const uint32_t group_bytes = l.group_coord_bytes + l.group_id_bytes +
                               dims * 2 * static_cast<uint32_t>(sizeof(float));
  l.groups = (kBlockPayloadBytes - Overrun(l)) / group_bytes;
  l.block_capacity = l.groups << shift;
  l.ids_offset = static_cast<uint32_t>(sizeof(BlockHeader)) +
                 l.groups * dims * 2 * static_cast<uint32_t>(sizeof(float));
  l.coords_offset = l.ids_offset + l.groups * l.group_id_bytes;
  const uint32_t aligned = (l.coords_offset + 63) / 64 * 64;
  if (aligned + l.groups * l.group_coord_bytes + Overrun(l) <= kBlockBytes) {
    l.coords_offset = aligned;
  }
  while (l.base_order < kOrderMax && l.block_capacity << l.base_order < kNodeEntriesMin) {
    ++l.base_order;
  }
  return l;
}

// The group size that wastes least of the block; the largest if several do.
constexpr NodeLayout BestLayout(uint32_t dims, bool leaf, CoordFormat format, bool point) {
  NodeLayout best = MakeLayout(dims, leaf, format, point, 2);
  for (uint32_t shift = 3; shift <= 4; ++shift) {
    const NodeLayout l = MakeLayout(dims, leaf, format, point, shift);
    if (l.block_capacity >= best.block_capacity) best = l;
  }
  return best;
}

struct LayoutTable {
  NodeLayout leaf[2][2][kDimsMax + 1];  // [f64][point][dims]
  NodeLayout decimal[2][kDimsMax + 1][kDecimalScaleMax + 1];  // [point][dims][scale]
  bool has_decimal[2][2][kDimsMax + 1];                       // [f64][point][dims]
  NodeLayout inner[kDimsMax + 1];
};

constexpr LayoutTable MakeTable() {
  LayoutTable t{};
  for (uint32_t dims = 1; dims <= kDimsMax; ++dims) {
    t.inner[dims] = BestLayout(dims, false, CoordFormat::kF32, false);
    for (uint32_t point = 0; point < 2; ++point) {
      t.leaf[0][point][dims] = BestLayout(dims, true, CoordFormat::kF32, point != 0);
      t.leaf[1][point][dims] = BestLayout(dims, true, CoordFormat::kF64, point != 0);
      const NodeLayout& exact = t.leaf[1][point][dims];
      const NodeLayout decimal = BestLayout(dims, true, CoordFormat::kDecimal, point != 0);
      t.has_decimal[1][point][dims] = decimal.base_order == exact.base_order &&
                                      decimal.block_capacity > exact.block_capacity &&
                                      decimal.block_capacity < 2 * exact.block_capacity;
      for (int scale = 0; scale <= kDecimalScaleMax; ++scale) {
        NodeLayout& l = t.decimal[point][dims][scale];
        l = decimal;
        l.unit = kPowersOfTen[scale];
        l.kind = DecimalLeafKind(scale);
      }
    }
  }
  return t;
}

constexpr LayoutTable kTable = MakeTable();

// What the formats promise, and what kernels rely on: loads of 64 bytes that begin inside the block's
// sections end inside the block, and a mask of 64 bits covers the groups.
constexpr bool IsSound(const NodeLayout& l) {
  return l.groups >= 1 && l.groups <= kGroupsMax && l.base_order <= kBaseOrderMax &&
         l.coords_offset + l.groups * l.group_coord_bytes + Overrun(l) <= kBlockBytes &&
         l.coords_offset + 64 <= kBlockBytes && l.ids_offset % 8 == 0 && l.coords_offset % 8 == 0;
}
constexpr bool AllSound() {
  for (uint32_t dims = 1; dims <= kDimsMax; ++dims) {
    if (!IsSound(kTable.inner[dims])) return false;
    for (uint32_t point = 0; point < 2; ++point) {
      if (!IsSound(kTable.leaf[0][point][dims]) || !IsSound(kTable.leaf[1][point][dims]) ||
          !IsSound(kTable.decimal[point][dims][0])) {
        return false;
      }
    }
  }
  return true;
}
static_assert(AllSound());
static_assert(IsDecimalLeaf(DecimalLeafKind(kDecimalScaleMax)) &&
              !IsDecimalLeaf(DecimalLeafKind(kDecimalScaleMax + 1)));
static_assert(kTable.decimal[0][2][0].block_capacity == 352);  // 2-D decimal boxes
static_assert(kTable.decimal[1][2][0].block_capacity == 528);  // 2-D decimal points
static_assert(kTable.leaf[1][0][2].block_capacity == 208);  // 2-D f64 boxes
static_assert(kTable.leaf[1][1][2].block_capacity == 352);  // 2-D f64 points
static_assert(kTable.inner[2].block_capacity == 320);

}  // namespace

Box32 Box32::Around(uint32_t dims, const double* lo, const double* hi) {
  Box32 box;
  for (uint32_t d = 0; d < dims; ++d) {
    const bool nan = std::isnan(lo[d]) || std::isnan(hi[d]);
    box.lo[d] = nan ? -kInf32 : RoundDown(lo[d]);
    box.hi[d] = nan ? kInf32 : RoundUp(hi[d]);
  }
  return box;
}

void EntryList::Set(uint32_t i, const Box32& box, uint64_t id) {
  std::copy(box.lo, box.lo + dims_, &coords_[size_t{i} * 2 * dims_]);
  std::copy(box.hi, box.hi + dims_, &coords_[size_t{i} * 2 * dims_ + dims_]);
  ids_[i] = id;
}

const NodeLayout& NodeLayout::Inner(const KeySpec& spec) {
  XT_ASSERT(spec.dims >= 1 && spec.dims <= kDimsMax);
  return kTable.inner[spec.dims];
}

const NodeLayout& NodeLayout::ExactLeaf(const KeySpec& spec) {
  XT_ASSERT(spec.dims >= 1 && spec.dims <= kDimsMax);
  return kTable.leaf[spec.coord == CoordType::kF64][spec.kind == KeyKind::kPoint][spec.dims];
}

bool NodeLayout::HasDecimal(const KeySpec& spec) {
  XT_ASSERT(spec.dims >= 1 && spec.dims <= kDimsMax);
  return kTable.has_decimal[spec.coord == CoordType::kF64][spec.kind == KeyKind::kPoint][spec.dims];
}

const NodeLayout& NodeLayout::DecimalLeaf(const KeySpec& spec, int scale) {
  XT_ASSERT(HasDecimal(spec) && scale >= 0 && scale <= kDecimalScaleMax);
  return kTable.decimal[spec.kind == KeyKind::kPoint][spec.dims][scale];
}

const NodeLayout& NodeLayout::LeafFor(const KeySpec& spec, const EntryList& list,
                                      const uint32_t* pick, uint32_t count,
                                      const NodeLayout& preferred) {
  const NodeLayout& exact = ExactLeaf(spec);
  if (!HasDecimal(spec)) return exact;
  const auto entry = [pick](uint32_t i) { return pick == nullptr ? i : pick[i]; };
  const auto takes_all = [&](const NodeLayout& layout) {
    for (uint32_t i = 0; i < count; ++i) {
      const double* lo = list.lo(entry(i));
      if (!layout.Takes(lo, lo + spec.dims)) return false;
    }
    return true;
  };
  if (preferred.decimal() && takes_all(preferred)) return preferred;
  double magnitude = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const double* lo = list.lo(entry(i));
    for (uint32_t d = 0; d < exact.corners * uint32_t{spec.dims}; ++d) {
      // Written so that NaN leaves no scale.
      const double here = std::fabs(lo[d]);
      magnitude = here <= magnitude ? magnitude : here;
      if (here != here) return exact;
    }
  }
  const int scale = DecimalScaleFor(magnitude);
  if (scale < 0) return exact;
  const NodeLayout& decimal = DecimalLeaf(spec, scale);
  return &decimal != &preferred && takes_all(decimal) ? decimal : exact;
}

const NodeLayout& NodeLayout::Of(const KeySpec& spec, const BlockHeader& node) {
  if (node.level > 0) return Inner(spec);
  if (!IsDecimalLeaf(node.kind) || XT_UNLIKELY(!HasDecimal(spec))) return ExactLeaf(spec);
  const int scale = static_cast<int>(node.kind) - static_cast<int>(BlockKind::kDecimalLeaf);
  return kTable.decimal[spec.kind == KeyKind::kPoint][spec.dims][scale];
}

uint32_t NodeLayout::LeafHeadBytes(const KeySpec& spec) {
  return HasDecimal(spec) ? DecimalLeaf(spec, 0).ids_offset : ExactLeaf(spec).ids_offset;
}

bool NodeLayout::IsKind(const KeySpec& spec, uint32_t level, BlockKind kind) {
  if (level > 0) return kind == BlockKind::kInner;
  return kind == BlockKind::kLeaf || (IsDecimalLeaf(kind) && HasDecimal(spec));
}

uint32_t NodeLayout::OrderFor(uint32_t entries) const {
  uint32_t order = base_order;
  while (order <= kOrderMax && Capacity(order) < entries) ++order;
  return order;
}

uint32_t NodeLayout::Count(const BlockHeader* node) const {
  uint32_t total = 0;
  for (uint32_t i = 0; i < 1u << node->order; ++i) {
    const uint32_t count = BlockCount(Block(node, i));
    total += count;
    if (count < block_capacity) break;
  }
  return total;
}

uint64_t NodeLayout::Id(const BlockHeader* node, uint32_t entry) const {
  const BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  const std::byte* ids = GroupIds(block, slot >> group_shift);
  const uint32_t lane = slot & (group_size - 1);
  if (!leaf) return LoadRelaxed(reinterpret_cast<const uint64_t*>(ids) + lane);
  const uint64_t low = LoadRelaxed(reinterpret_cast<const uint32_t*>(ids) + lane);
  const uint64_t high = LoadRelaxed(
      reinterpret_cast<const uint16_t*>(ids + group_size * sizeof(uint32_t)) + lane);
  return high << 32 | low;
}

void NodeLayout::ReadKey(const BlockHeader* node, uint32_t entry, double* lo, double* hi) const {
  const BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  const std::byte* coords = Coords(block, slot >> group_shift);
  const uint32_t lane = slot & (group_size - 1);
  WithFormat([&]<class T>(T) {
    const T* row = reinterpret_cast<const T*>(coords) + lane;
    for (uint32_t d = 0; d < dims; ++d, row += corners * group_size) {
      lo[d] = Decode(LoadRelaxed(row));
      if (hi != nullptr) hi[d] = corners == 2 ? Decode(LoadRelaxed(row + group_size)) : lo[d];
    }
  });
}

void NodeLayout::ReadEntries(const BlockHeader* block, const uint16_t* slots, uint32_t count,
                             uint64_t* ids, double* lo, double* hi) const {
  XT_ASSERT(leaf);
  // Row by row: the loops hold no branch, and the entries of a group lie side by side.
  const auto read = [&](uint32_t row, double* out) {
    WithFormat([&]<class T>(T) {
      const uint32_t shift = group_shift;
      const uint32_t lane_mask = group_size - 1;
      for (uint32_t i = 0; i < count; ++i, out += dims) {
        const T* coords = reinterpret_cast<const T*>(Coords(block, slots[i] >> shift));
        *out = Decode(LoadRelaxed(coords + (size_t{row} << shift) + (slots[i] & lane_mask)));
      }
    });
  };
  for (uint32_t d = 0; d < dims; ++d) {
    if (lo != nullptr) read(d * corners, lo + d);
    if (hi != nullptr) read(d * corners + corners - 1, hi + d);
  }
  for (uint32_t i = 0; i < count; ++i) {
    const std::byte* group = GroupIds(block, slots[i] >> group_shift);
    const uint32_t lane = slots[i] & (group_size - 1);
    const uint64_t low = LoadRelaxed(reinterpret_cast<const uint32_t*>(group) + lane);
    const uint64_t high =
        LoadRelaxed(reinterpret_cast<const uint16_t*>(group + group_size * sizeof(uint32_t)) + lane);
    ids[i] = high << 32 | low;
  }
}

Box32 NodeLayout::ChildBox(const BlockHeader* node, uint32_t entry) const {
  XT_ASSERT(!leaf);
  const BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  const float* row = reinterpret_cast<const float*>(Coords(block, slot >> group_shift)) +
                     (slot & (group_size - 1));
  Box32 box;
  for (uint32_t d = 0; d < dims; ++d, row += 2 * group_size) {
    box.lo[d] = LoadRelaxed(row);
    box.hi[d] = LoadRelaxed(row + group_size);
  }
  return box;
}

uint32_t NodeLayout::FindChild(const BlockHeader* node, NodeId id) const {
  const uint32_t count = Count(node);
  for (uint32_t e = 0; e < count; ++e) {
    if (Id(node, e) == id.value) return e;
  }
  return UINT32_MAX;
}

Box32 NodeLayout::Bounds(const BlockHeader* node) const {
  Box32 box;
  box.Clear(dims);
  for (uint32_t i = 0; i < 1u << node->order; ++i) {
    const BlockHeader* block = Block(node, i);
    const uint32_t used = (BlockCount(block) + group_size - 1) >> group_shift;
    for (uint32_t d = 0; d < dims; ++d) {
      const float* lo = GroupLo(block, d);
      for (uint32_t g = 0; g < used; ++g) {
        box.lo[d] = std::min(box.lo[d], LoadRelaxed(lo + g));
        box.hi[d] = std::max(box.hi[d], LoadRelaxed(lo + groups + g));
      }
    }
    if (used < groups) break;
  }
  return box;
}

template <class T>
void NodeLayout::ReadGroup(const std::byte* coords, uint32_t lanes, double* out) const {
  const T* row = reinterpret_cast<const T*>(coords);
  for (uint32_t d = 0; d < dims; ++d, row += corners * group_size) {
    const T* hi = corners == 2 ? row + group_size : row;
    for (uint32_t i = 0; i < lanes; ++i) {
      out[size_t{i} * 2 * dims + d] = Decode(LoadRelaxed(row + i));
      out[size_t{i} * 2 * dims + dims + d] = Decode(LoadRelaxed(hi + i));
    }
  }
}

void NodeLayout::ReadAll(const BlockHeader* node, EntryList* list) const {
  const uint32_t count = Count(node);
  const uint32_t before = list->size();
  list->Resize(before + count);
  for (uint32_t e = 0; e < count; e += group_size) {
    const std::byte* coords = Coords(Block(node, e / block_capacity),
                                     e % block_capacity >> group_shift);
    const uint32_t lanes = std::min(group_size, count - e);
    double* out = list->mutable_lo(before + e);
    WithFormat([&]<class T>(T) { ReadGroup<T>(coords, lanes, out); });
    for (uint32_t i = 0; i < lanes; ++i) list->SetId(before + e + i, Id(node, e + i));
  }
}

template <class T>
void NodeLayout::WriteCoords(BlockHeader* block, uint32_t slot, const double* lo,
                             const double* hi) const {
  T* row = reinterpret_cast<T*>(const_cast<std::byte*>(Coords(block, slot >> group_shift))) +
           (slot & (group_size - 1));
  for (uint32_t d = 0; d < dims; ++d) {
    StoreRelaxed(row, Encode<T>(lo[d]));
    row += group_size;
    if (corners == 2) {
      StoreRelaxed(row, Encode<T>(hi[d]));
      row += group_size;
    }
  }
}

void NodeLayout::WriteId(BlockHeader* block, uint32_t slot, uint64_t id) const {
  std::byte* ids = const_cast<std::byte*>(GroupIds(block, slot >> group_shift));
  const uint32_t lane = slot & (group_size - 1);
  if (!leaf) {
    StoreRelaxed(reinterpret_cast<uint64_t*>(ids) + lane, id);
    return;
  }
  XT_ASSERT(id <= kRecordIdMax);
  StoreRelaxed(reinterpret_cast<uint32_t*>(ids) + lane, static_cast<uint32_t>(id));
  StoreRelaxed(reinterpret_cast<uint16_t*>(ids + group_size * sizeof(uint32_t)) + lane,
               static_cast<uint16_t>(id >> 32));
}

void NodeLayout::WidenGroup(BlockHeader* block, uint32_t group, const Box32& box,
                            bool first) const {
  for (uint32_t d = 0; d < dims; ++d) {
    float* lo = const_cast<float*>(GroupLo(block, d)) + group;
    float* hi = lo + groups;
    if (first || box.lo[d] < LoadRelaxed(lo)) StoreRelaxed(lo, box.lo[d]);
    if (first || box.hi[d] > LoadRelaxed(hi)) StoreRelaxed(hi, box.hi[d]);
  }
}

void NodeLayout::WriteEntry(BlockHeader* block, uint32_t slot, const double* lo, const double* hi,
                            uint64_t id) const {
  const double* top = leaf && corners == 1 ? lo : hi;
  // The first entry of a group replaces the stale box of a group that nobody reads yet.
  WidenGroup(block, slot >> group_shift, Box32::Around(dims, lo, top),
             (slot & (group_size - 1)) == 0);
  WithFormat([&]<class T>(T) { WriteCoords<T>(block, slot, lo, top); });
  WriteId(block, slot, id);
}

void NodeLayout::Append(BlockHeader* node, const double* lo, const double* hi, uint64_t id) const {
  const uint32_t entry = Count(node);
  XT_ASSERT(entry < Capacity(node->order));
  BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  WriteEntry(block, slot, lo, hi, id);
  std::atomic_ref<uint32_t>(block->count).store(slot + 1, std::memory_order_release);
}

void NodeLayout::AppendChild(BlockHeader* node, const Box32& box, NodeId id) const {
  XT_ASSERT(!leaf && id.valid());
  double lo[kDimsMax], hi[kDimsMax];
  std::copy(box.lo, box.lo + dims, lo);
  std::copy(box.hi, box.hi + dims, hi);
  Append(node, lo, hi, id.value);
}

bool NodeLayout::WidenChild(BlockHeader* node, uint32_t entry, const Box32& box) const {
  XT_ASSERT(!leaf && entry < Count(node));
  BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  const uint32_t group = slot >> group_shift;
  for (uint32_t d = 0; d < dims; ++d) {
    float* lo = const_cast<float*>(GroupLo(block, d)) + group;
    LowerTo(lo, box.lo[d]);
    RaiseTo(lo + groups, box.hi[d]);
  }
  float* row = reinterpret_cast<float*>(const_cast<std::byte*>(Coords(block, group))) +
               (slot & (group_size - 1));
  bool changed = false;
  for (uint32_t d = 0; d < dims; ++d, row += 2 * group_size) {
    changed |= LowerTo(row, box.lo[d]);
    changed |= RaiseTo(row + group_size, box.hi[d]);
  }
  return changed;
}

void NodeLayout::ReplaceChild(BlockHeader* node, uint32_t entry, const Box32& box) const {
  const uint32_t count = Count(node);
  XT_ASSERT(!leaf && entry < count);
  BlockHeader* block = Block(node, entry / block_capacity);
  const uint32_t slot = entry % block_capacity;
  const uint32_t group = slot >> group_shift;
  const uint32_t lane = slot & (group_size - 1);
  float* row = reinterpret_cast<float*>(const_cast<std::byte*>(Coords(block, group)));
  for (uint32_t d = 0; d < dims; ++d, row += 2 * group_size) {
    row[lane] = box.lo[d];
    row[lane + group_size] = box.hi[d];
  }
  const uint32_t first = entry - lane;
  Box32 around;
  around.Clear(dims);
  for (uint32_t e = first; e < std::min(first + group_size, count); ++e) {
    around.Extend(dims, ChildBox(node, e));
  }
  WidenGroup(block, group, around, true);
}

// One group of a block from list[order[0..lanes)]: dimension by dimension, as it lies there.
template <class T>
void NodeLayout::BuildGroup(BlockHeader* block, uint32_t group, const EntryList& list,
                            const uint32_t* order, uint32_t lanes) const {
  T* row = reinterpret_cast<T*>(const_cast<std::byte*>(Coords(block, group)));
  const size_t top = leaf && corners == 1 ? 0 : dims;
  for (uint32_t d = 0; d < dims; ++d, row += corners * group_size) {
    double least = kInfinity;
    double most = -least;
    bool unordered = false;
    for (uint32_t i = 0; i < lanes; ++i) {
      const double* entry = list.lo(order[i]) + d;
      const double lo = entry[0];
      const double hi = entry[top];
      least = lo < least ? lo : least;
      most = hi > most ? hi : most;
      unordered |= (lo != lo) | (hi != hi);
      row[i] = Encode<T>(lo);
      if (corners == 2) row[group_size + i] = Encode<T>(hi);
    }
    float* box = const_cast<float*>(GroupLo(block, d)) + group;
    box[0] = unordered ? -kInf32 : RoundDown(least);
    box[groups] = unordered ? kInf32 : RoundUp(most);
  }
  for (uint32_t i = 0; i < lanes; ++i) WriteId(block, (group << group_shift) + i, list.id(order[i]));
}

void NodeLayout::Build(BlockHeader* node, const EntryList& list, const uint32_t* pick,
                       uint32_t count, bool keep_order) const {
  XT_ASSERT(count <= Capacity(node->order));
  XT_ASSERT(list.dims() == dims);
  std::vector<uint32_t> order(count);
  if (pick != nullptr) {
    std::copy(pick, pick + count, order.begin());
  } else {
    std::iota(order.begin(), order.end(), 0u);
  }
  if (!keep_order) ArrangeGroups(list, order.data(), count, group_size);
  for (uint32_t e = 0; e < count; e += group_size) {
    BlockHeader* block = Block(node, e / block_capacity);
    const uint32_t group = e % block_capacity >> group_shift;
    const uint32_t lanes = std::min(group_size, count - e);
    WithFormat([&]<class T>(T) { BuildGroup<T>(block, group, list, &order[e], lanes); });
  }
  for (uint32_t i = 0; i < 1u << node->order; ++i) {
    const uint32_t before = i * block_capacity;
    Block(node, i)->count = count > before ? std::min(count - before, block_capacity) : 0;
  }
}

void ArrangeGroups(const EntryList& list, uint32_t* order, uint32_t count, uint32_t group) {
  if (count <= group) return;
  const uint32_t dims = list.dims();
  std::vector<float> centres(size_t{count} * dims);
  for (uint32_t i = 0; i < count; ++i) {
    const double* lo = list.lo(order[i]);
    for (uint32_t d = 0; d < dims; ++d) centres[size_t{i} * dims + d] = CentreOf(lo[d], lo[dims + d]);
  }
  const uint32_t one_node = (count + group - 1) / group * group;
  std::vector<uint32_t> arranged = KdOrder(dims, centres.data(), NodeShares(count, one_node, group), 1);
  for (uint32_t& i : arranged) i = order[i];
  std::copy(arranged.begin(), arranged.end(), order);
}

}  // namespace xtree
