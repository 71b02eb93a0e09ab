#include "tree/compaction.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace xtree {

namespace {

// Least and greatest of some values. A NaN bounds nothing, so it makes both sides infinite.
template <class T>
struct Range {
  T lo = std::is_integral_v<T> ? std::numeric_limits<T>::max()
                               : std::numeric_limits<T>::infinity();
  T hi = std::is_integral_v<T> ? std::numeric_limits<T>::min()
                               : -std::numeric_limits<T>::infinity();
  bool nan = false;

  void Add(T value) {
    lo = value < lo ? value : lo;
    hi = value > hi ? value : hi;
    nan |= value != value;
  }
  float Low(const NodeLayout& layout) const {
    return nan ? -std::numeric_limits<float>::infinity() : RoundDown(layout.Decode(lo));
  }
  float High(const NodeLayout& layout) const {
    return nan ? std::numeric_limits<float>::infinity() : RoundUp(layout.Decode(hi));
  }
};

template <class T>
const T* Row(const NodeLayout& layout, const BlockHeader* block, uint32_t group) {
  return reinterpret_cast<const T*>(layout.Coords(block, group));
}

// Where the words of up to one group's entries are to be read: coordinates of the first row, ids.
template <class T>
struct Sources {
  const T* coords[kGroupSizeMax];
  const uint32_t* low[kGroupSizeMax];
  const uint16_t* high[kGroupSizeMax];
  uint32_t count = 0;
};

// Writes one group of `to`: coordinates, ids and the group's box.
template <class T>
void WriteGroup(const NodeLayout& layout, const Sources<T>& from, BlockHeader* to,
                uint32_t group) {
  T* row = const_cast<T*>(Row<T>(layout, to, group));
  float* box = const_cast<float*>(layout.GroupLo(to, 0)) + group;
  size_t offset = 0;
  for (uint32_t d = 0; d < layout.dims; ++d, box += 2 * layout.groups) {
    Range<T> lo;
    for (uint32_t i = 0; i < from.count; ++i) {
      row[offset + i] = from.coords[i][offset];
      lo.Add(row[offset + i]);
    }
    offset += layout.group_size;
    if (layout.corners == 1) {
      box[0] = lo.Low(layout);
      box[layout.groups] = lo.High(layout);
      continue;
    }
    Range<T> hi;
    for (uint32_t i = 0; i < from.count; ++i) {
      row[offset + i] = from.coords[i][offset];
      hi.Add(row[offset + i]);
    }
    offset += layout.group_size;
    // A NaN in either corner leaves the dimension unbounded.
    lo.nan |= hi.nan;
    hi.nan = lo.nan;
    box[0] = lo.Low(layout);
    box[layout.groups] = hi.High(layout);
  }
  auto* low = const_cast<std::byte*>(layout.GroupIds(to, group));
  auto* high = low + layout.group_size * sizeof(uint32_t);
  for (uint32_t i = 0; i < from.count; ++i) {
    reinterpret_cast<uint32_t*>(low)[i] = *from.low[i];
    reinterpret_cast<uint16_t*>(high)[i] = *from.high[i];
  }
}

template <class T>
void Copy(const NodeLayout& layout, const BlockHeader* from, const LeafEntries& removed,
          BlockHeader* to) {
  const uint32_t count = layout.Count(from);
  uint32_t kept = 0;
  Sources<T> sources;
  const auto flush = [&] {
    const uint32_t first = kept - sources.count;
    WriteGroup(layout, sources, NodeLayout::Block(to, first / layout.block_capacity),
               first % layout.block_capacity >> layout.group_shift);
    sources.count = 0;
  };
  for (uint32_t e = 0; e < count; e += layout.group_size) {
    const BlockHeader* block = NodeLayout::Block(from, e / layout.block_capacity);
    const uint32_t group = e % layout.block_capacity >> layout.group_shift;
    const T* coords = Row<T>(layout, block, group);
    const std::byte* ids = layout.GroupIds(block, group);
    const auto* low = reinterpret_cast<const uint32_t*>(ids);
    const auto* high = reinterpret_cast<const uint16_t*>(low + layout.group_size);
    const uint32_t lanes = std::min(layout.group_size, count - e);
    for (uint32_t lane = 0; lane < lanes; ++lane) {
      if (removed[e + lane]) continue;
      sources.coords[sources.count] = coords + lane;
      sources.low[sources.count] = low + lane;
      sources.high[sources.count] = high + lane;
      ++kept;
      if (++sources.count == layout.group_size) flush();
    }
  }
  if (sources.count != 0) flush();
  for (uint32_t i = 0; i < 1u << to->order; ++i) {
    const uint32_t before = i * layout.block_capacity;
    NodeLayout::Block(to, i)->count =
        kept > before ? std::min(kept - before, layout.block_capacity) : 0;
  }
}

void ExtendByGroup(const NodeLayout& layout, const BlockHeader* block, uint32_t group, Box32* box) {
  for (uint32_t d = 0; d < layout.dims; ++d) {
    box->lo[d] = std::min(box->lo[d], layout.GroupLo(block, d)[group]);
    box->hi[d] = std::max(box->hi[d], layout.GroupHi(block, d)[group]);
  }
}

bool ContainsGroup(const NodeLayout& layout, const BlockHeader* block, uint32_t group,
                   const Box32& box) {
  for (uint32_t d = 0; d < layout.dims; ++d) {
    if (layout.GroupLo(block, d)[group] < box.lo[d]) return false;
    if (layout.GroupHi(block, d)[group] > box.hi[d]) return false;
  }
  return true;
}

// By those of the group's entries (the leaf's `first` and up) that are not removed, row by row.
template <class T>
void ExtendByEntries(const NodeLayout& layout, const BlockHeader* block, uint32_t group,
                     const LeafEntries& removed, uint32_t first, uint32_t lanes, Box32* box) {
  uint32_t kept[kGroupSizeMax];
  uint32_t count = 0;
  for (uint32_t i = 0; i < lanes; ++i) {
    kept[count] = i;
    count += !removed[first + i];
  }
  if (count == 0) return;
  const T* row = Row<T>(layout, block, group);
  const auto range = [&] {
    Range<T> values;
    for (uint32_t i = 0; i < count; ++i) values.Add(row[kept[i]]);
    row += layout.group_size;
    return values;
  };
  for (uint32_t d = 0; d < layout.dims; ++d) {
    Range<T> lo = range();
    Range<T> hi = layout.corners == 1 ? lo : range();
    // A NaN in either corner leaves the dimension unbounded.
    lo.nan |= hi.nan;
    hi.nan = lo.nan;
    box->lo[d] = std::min(box->lo[d], lo.Low(layout));
    box->hi[d] = std::max(box->hi[d], hi.High(layout));
  }
}

}  // namespace

Box32 BoundsWithout(const NodeLayout& layout, const BlockHeader* leaf,
                    const LeafEntries& removed) {
  const uint32_t count = layout.Count(leaf);
  Box32 bounds;
  bounds.Clear(layout.dims);
  // Groups that stay whole first: the boxes of many others lie within theirs, whatever is removed.
  for (const bool want_whole : {true, false}) {
    for (uint32_t e = 0; e < count; e += layout.group_size) {
      const uint32_t lanes = std::min(layout.group_size, count - e);
      bool whole = true;
      for (uint32_t i = 0; i < lanes; ++i) whole &= !removed[e + i];
      if (whole != want_whole) continue;
      const BlockHeader* block = NodeLayout::Block(leaf, e / layout.block_capacity);
      const uint32_t group = e % layout.block_capacity >> layout.group_shift;
      if (whole) {
        ExtendByGroup(layout, block, group, &bounds);
      } else if (!ContainsGroup(layout, block, group, bounds)) {
        layout.WithFormat([&]<class T>(T) {
          ExtendByEntries<T>(layout, block, group, removed, e, lanes, &bounds);
        });
      }
    }
  }
  return bounds;
}

void CopyWithout(const NodeLayout& layout, const BlockHeader* from, const LeafEntries& removed,
                 BlockHeader* to) {
  XT_ASSERT(layout.leaf);
  XT_ASSERT(layout.Count(from) <= removed.count() + layout.Capacity(to->order));
  layout.WithFormat([&]<class T>(T) { Copy<T>(layout, from, removed, to); });
}

}  // namespace xtree
