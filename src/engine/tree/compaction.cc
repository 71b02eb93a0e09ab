#include "tree/compaction.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#if defined(__x86_64__)
#define XT_X86 1
#include <immintrin.h>
#else
#define XT_X86 0
#endif

namespace xtree {

namespace {

// Least and greatest of some values. A NaN bounds nothing, so it makes both sides infinite.
template <class T>
struct ValueRange {
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
    ValueRange<T> lo;
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
    ValueRange<T> hi;
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

void SetCounts(const NodeLayout& layout, uint32_t entries, BlockHeader* to) {
  for (uint32_t i = 0; i < 1u << to->order; ++i) {
    const uint32_t before = i * layout.block_capacity;
    NodeLayout::Block(to, i)->count =
        entries > before ? std::min(entries - before, layout.block_capacity) : 0;
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
  SetCounts(layout, kept, to);
}

#if XT_X86
// --- The same with AVX2, for groups of 16 (all but those of keys that are very long).
#define XT_AVX2 __attribute__((target("avx2,popcnt")))
#define XT_AVX2_INLINE inline __attribute__((always_inline, target("avx2,popcnt")))

// For each byte the numbers of its bits that are set, in the lowest bytes of a word.
struct BitNumbers {
  uint64_t of[256];
  constexpr BitNumbers() : of{} {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      for (uint32_t bit = 0, n = 0; bit < 8; ++bit) {
        if (byte >> bit & 1) of[byte] |= uint64_t{bit} << (8 * n++);
      }
    }
  }
};
constexpr BitNumbers kBitNumbers;

// Which of a group's lanes stay, as permutations of words need it.
struct KeptLanes {
  XT_AVX2_INLINE explicit KeptLanes(uint32_t mask)
      : first_count(static_cast<uint32_t>(__builtin_popcount(mask & 0xff))),
        count(static_cast<uint32_t>(__builtin_popcount(mask))) {
    const __m128i numbers[2] = {
        _mm_cvtsi64_si128(static_cast<int64_t>(kBitNumbers.of[mask & 0xff])),
        _mm_cvtsi64_si128(static_cast<int64_t>(kBitNumbers.of[mask >> 8]))};
    for (uint32_t h = 0; h < 2; ++h) {
      words[h] = _mm256_cvtepu8_epi32(numbers[h]);
      const __m128i twice = _mm_add_epi8(numbers[h], numbers[h]);
      halves[h] = _mm_unpacklo_epi8(twice, _mm_add_epi8(twice, _mm_set1_epi8(1)));
    }
    for (uint32_t q = 0; q < 4; ++q) {
      const uint32_t nibble = mask >> (4 * q) & 15;
      const __m128i numbers4 = _mm_cvtsi64_si128(static_cast<int64_t>(kBitNumbers.of[nibble]));
      const __m256i twice = _mm256_cvtepu8_epi64(_mm_add_epi8(numbers4, numbers4));
      doubles[q] = _mm256_or_si256(
          twice, _mm256_slli_epi64(_mm256_add_epi64(twice, _mm256_set1_epi64x(1)), 32));
      quarter_count[q] = static_cast<uint32_t>(__builtin_popcount(nibble));
    }
  }
  __m256i words[2];    // For 32-bit words, eight lanes each.
  __m128i halves[2];   // For 16-bit words.
  __m256i doubles[4];  // For 64-bit words, four lanes each.
  uint32_t quarter_count[4];
  uint32_t first_count;  // Of the first eight lanes.
  uint32_t count;
};

constexpr uint32_t kLanes16 = 16;
// Lanes of a row that waits for a group to be full: what is left over, a group, and what a store of a
// vector writes beyond that.
constexpr uint32_t kWaitingLanes = 40;

XT_AVX2_INLINE __m256i LoadVector(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
XT_AVX2_INLINE void StoreVector(void* to, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), v);
}

// Puts the lanes of a row that stay at `to`.
template <class T>
XT_AVX2_INLINE void Squeeze(const T* row, const KeptLanes& kept, T* to) {
  if constexpr (sizeof(T) == 8) {
    for (uint32_t q = 0; q < 4; ++q) {
      StoreVector(to, _mm256_permutevar8x32_epi32(LoadVector(row + 4 * q), kept.doubles[q]));
      to += kept.quarter_count[q];
    }
  } else if constexpr (sizeof(T) == 4) {
    StoreVector(to, _mm256_permutevar8x32_epi32(LoadVector(row), kept.words[0]));
    StoreVector(to + kept.first_count,
                _mm256_permutevar8x32_epi32(LoadVector(row + 8), kept.words[1]));
  } else {
    for (uint32_t h = 0; h < 2; ++h) {
      const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 8 * h));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (h == 0 ? 0 : kept.first_count)),
                       _mm_shuffle_epi8(v, kept.halves[h]));
    }
  }
}

// Copies a full row of 16 lanes.
template <class T>
XT_AVX2_INLINE void CopyRow(const T* from, T* to) {
  for (uint32_t i = 0; i < kLanes16 * sizeof(T) / 32; ++i) {
    StoreVector(to + i * (32 / sizeof(T)), LoadVector(from + i * (32 / sizeof(T))));
  }
}

// The range of a full row.
XT_AVX2_INLINE ValueRange<int32_t> RangeOf16(const int32_t* row) {
  const __m256i a = LoadVector(row), b = LoadVector(row + 8);
  const __m256i min8 = _mm256_min_epi32(a, b), max8 = _mm256_max_epi32(a, b);
  __m128i min = _mm_min_epi32(_mm256_castsi256_si128(min8), _mm256_extracti128_si256(min8, 1));
  __m128i max = _mm_max_epi32(_mm256_castsi256_si128(max8), _mm256_extracti128_si256(max8, 1));
  min = _mm_min_epi32(min, _mm_shuffle_epi32(min, 0x4e));
  max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0x4e));
  min = _mm_min_epi32(min, _mm_shuffle_epi32(min, 0xb1));
  max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0xb1));
  ValueRange<int32_t> range;
  range.lo = _mm_cvtsi128_si32(min);
  range.hi = _mm_cvtsi128_si32(max);
  return range;
}
template <class T>
XT_AVX2_INLINE ValueRange<T> RangeOf16(const T* row) {
  ValueRange<T> range;
  for (uint32_t i = 0; i < kLanes16; ++i) range.Add(row[i]);
  return range;
}
template <class T>
XT_AVX2_INLINE ValueRange<T> RangeOf(const T* row, uint32_t lanes) {
  if (lanes == kLanes16) return RangeOf16(row);
  ValueRange<T> range;
  for (uint32_t i = 0; i < lanes; ++i) range.Add(row[i]);
  return range;
}

// Entries that have been read and make no full group yet, by rows.
template <class T>
struct Waiting {
  T coords[2 * kDimsMax][kWaitingLanes];
  uint32_t low[kWaitingLanes];
  uint16_t high[kWaitingLanes];
  uint32_t count = 0;
};

template <class T>
XT_AVX2_INLINE void MoveRow(T* waiting, uint32_t lanes, T* to) {
  if (lanes == kLanes16) {
    CopyRow(waiting, to);
    CopyRow(waiting + kLanes16, waiting);
  } else {
    std::copy(waiting, waiting + lanes, to);
  }
}

// Writes the first `lanes` entries that wait as one group of `to`, and takes them off if they fill it.
template <class T>
XT_AVX2_INLINE void WriteWaiting(const NodeLayout& layout, uint32_t lanes, Waiting<T>* waiting,
                                 BlockHeader* to, uint32_t group) {
  T* row = const_cast<T*>(Row<T>(layout, to, group));
  float* box = const_cast<float*>(layout.GroupLo(to, 0)) + group;
  T(*from)[kWaitingLanes] = waiting->coords;
  for (uint32_t d = 0; d < layout.dims; ++d, box += 2 * layout.groups) {
    ValueRange<T> lo = RangeOf(*from, lanes);
    MoveRow(*from++, lanes, row);
    row += kLanes16;
    ValueRange<T> hi = lo;
    if (layout.corners == 2) {
      hi = RangeOf(*from, lanes);
      MoveRow(*from++, lanes, row);
      row += kLanes16;
    }
    // A NaN in either corner leaves the dimension unbounded.
    lo.nan |= hi.nan;
    hi.nan = lo.nan;
    box[0] = lo.Low(layout);
    box[layout.groups] = hi.High(layout);
  }
  auto* low = reinterpret_cast<uint32_t*>(const_cast<std::byte*>(layout.GroupIds(to, group)));
  MoveRow(waiting->low, lanes, low);
  MoveRow(waiting->high, lanes, reinterpret_cast<uint16_t*>(low + kLanes16));
  waiting->count -= lanes;
}

template <class T>
XT_AVX2 void CopyByVectors(const NodeLayout& layout, const BlockHeader* from,
                           const LeafEntries& removed, BlockHeader* to) {
  const uint32_t count = layout.Count(from);
  const uint32_t rows = layout.dims * layout.corners;
  uint32_t written = 0;
  Waiting<T> waiting;
  const auto write = [&](uint32_t lanes) XT_AVX2 {
    WriteWaiting(layout, lanes, &waiting,
                 NodeLayout::Block(to, written / layout.block_capacity),
                 written % layout.block_capacity >> layout.group_shift);
    written += lanes;
  };
  for (uint32_t e = 0; e < count; e += kLanes16) {
    const uint32_t lanes = std::min(kLanes16, count - e);
    const KeptLanes kept(~removed.Lanes(e, lanes) & ((1u << lanes) - 1));
    const BlockHeader* block = NodeLayout::Block(from, e / layout.block_capacity);
    const uint32_t group = e % layout.block_capacity >> layout.group_shift;
    const T* row = Row<T>(layout, block, group);
    for (uint32_t r = 0; r < rows; ++r, row += kLanes16) {
      Squeeze(row, kept, waiting.coords[r] + waiting.count);
    }
    const auto* low = reinterpret_cast<const uint32_t*>(layout.GroupIds(block, group));
    Squeeze(low, kept, waiting.low + waiting.count);
    Squeeze(reinterpret_cast<const uint16_t*>(low + kLanes16), kept, waiting.high + waiting.count);
    waiting.count += kept.count;
    if (waiting.count >= kLanes16) write(kLanes16);
  }
  if (waiting.count != 0) write(waiting.count);
  SetCounts(layout, written, to);
}
#endif  // XT_X86

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
    ValueRange<T> values;
    for (uint32_t i = 0; i < count; ++i) values.Add(row[kept[i]]);
    row += layout.group_size;
    return values;
  };
  for (uint32_t d = 0; d < layout.dims; ++d) {
    ValueRange<T> lo = range();
    ValueRange<T> hi = layout.corners == 1 ? lo : range();
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
      const bool whole = removed.Lanes(e, lanes) == 0;
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
#if XT_X86
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
  if (avx2 && layout.group_size == kLanes16) {
    layout.WithFormat([&]<class T>(T) { CopyByVectors<T>(layout, from, removed, to); });
    return;
  }
#endif
  CopyWithoutPortably(layout, from, removed, to);
}

void CopyWithoutPortably(const NodeLayout& layout, const BlockHeader* from,
                         const LeafEntries& removed, BlockHeader* to) {
  layout.WithFormat([&]<class T>(T) { Copy<T>(layout, from, removed, to); });
}

}  // namespace xtree
