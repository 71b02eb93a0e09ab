// Compaction: a leaf without some of its entries, made by moving rows of words rather than entries.
//
// The entries that stay keep their order, so that what was near stays in one group or moves into
// the group before; only the group boxes are computed anew. That costs as much as a copy, where
// sorting into tight groups costs ten; the next copy for an insertion sorts them. By vectors where the
// processor has AVX2.
//
// Threads: under the index's writer lock.
#pragma once

#include <bit>
#include <cstdint>

#include "tree/node_layout.h"

namespace xtree {

// No leaf has more entries, in any layout.
inline constexpr uint32_t kLeafEntriesMax = 1024;
// A set of entries of one leaf, by number.
class LeafEntries {
 public:
  bool operator[](uint32_t entry) const { return (words_[entry / 64] >> (entry % 64) & 1) != 0; }
  void set(uint32_t entry) { words_[entry / 64] |= uint64_t{1} << (entry % 64); }
  void reset() { *this = LeafEntries{}; }
  uint32_t count() const {
    uint32_t bits = 0;
    for (const uint64_t word : words_) bits += static_cast<uint32_t>(std::popcount(word));
    return bits;
  }
  // A bit for each of the `lanes` entries from `first` on. REQUIRES: no word has only some of them.
  uint32_t Lanes(uint32_t first, uint32_t lanes) const {
    return static_cast<uint32_t>(words_[first / 64] >> (first % 64)) & ((1u << lanes) - 1);
  }

 private:
  uint64_t words_[kLeafEntriesMax / 64] = {};
};

// The box around the entries of `leaf` that are not in `removed`; the empty box if none is left.
Box32 BoundsWithout(const NodeLayout& layout, const BlockHeader* leaf, const LeafEntries& removed);

// Fills `to`, a version that is not visible yet, with the entries of `from` that are not in
// `removed`, in their order. REQUIRES: they fit.
void CopyWithout(const NodeLayout& layout, const BlockHeader* from, const LeafEntries& removed,
                 BlockHeader* to);
// The same without vectors, for tests.
void CopyWithoutPortably(const NodeLayout& layout, const BlockHeader* from,
                         const LeafEntries& removed, BlockHeader* to);

}  // namespace xtree
