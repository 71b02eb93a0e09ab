// Compaction: a leaf without some of its entries, made by moving rows of words rather than entries.
//
// The entries that stay keep their order, so that what was near stays in one group or moves into
// the group before; only the group boxes are computed anew. That costs as much as a copy, where
// sorting into tight groups costs ten; the next copy for an insertion sorts them.
//
// Threads: under the index's writer lock.
#pragma once

#include <bitset>
#include <cstdint>

#include "tree/node_layout.h"

namespace xtree {

// No leaf has more entries, in any layout.
inline constexpr uint32_t kLeafEntriesMax = 1024;
// Entries of one leaf by number.
using LeafEntries = std::bitset<kLeafEntriesMax>;

// The box around the entries of `leaf` that are not in `removed`; the empty box if none is left.
Box32 BoundsWithout(const NodeLayout& layout, const BlockHeader* leaf, const LeafEntries& removed);

// Fills `to`, a version that is not visible yet, with the entries of `from` that are not in
// `removed`, in their order. REQUIRES: they fit.
void CopyWithout(const NodeLayout& layout, const BlockHeader* from, const LeafEntries& removed,
                 BlockHeader* to);

}  // namespace xtree
