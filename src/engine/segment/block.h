// The 8 KiB block: what every block on disk starts with (src/README.md, "Blocks").
//
// The first 24 bytes are PostgreSQL's page header, set so that the host's own readers (buffer reads,
// page images, pg_checksums, base backups) accept the block and leave its content alone. The engine
// knows the layout by heart, since it includes no host header; am/xtwal.c asserts that they agree.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/macros.h"

namespace xtree {

inline constexpr uint32_t kBlockBytes = 8192;
inline constexpr uint32_t kSegmentBlocks = 256;                // One bitmap of 256 bits.
inline constexpr uint32_t kOrderMax = 5;                       // An extent is 2^order blocks.
inline constexpr uint64_t kWindowBytes = uint64_t{1} << 30;    // Equals the host's file segment.
inline constexpr uint32_t kWindowBlocks = kWindowBytes / kBlockBytes;
inline constexpr uint32_t kBlockNone = 0xffffffff;
inline constexpr uint64_t kLsnUnstamped = ~uint64_t{0};  // pd_lsn of a block being modified.
// Written; and read from the oldest on: version 1 had no decimal leaves.
inline constexpr uint32_t kFormatVersion = 2;
inline constexpr uint32_t kFormatVersionOldest = 1;

// On disk: DO NOT REORDER.
enum class BlockKind : uint8_t {
  kFree = 0,        // Never written: a free block is all zeros, which the host calls a new page.
  kSuperblock = 1,
  kTablePage = 2,   // Object-table page.
  kTableDir = 3,    // Block numbers of object-table pages.
  kInner = 4,
  kLeaf = 5,        // Keys in their own precision.
  kLog = 6,
  kDecimalLeaf = 16,  // Up to 25: keys as multiples of 10^0 to 10^-9 (tree/decimal.h).
};
inline constexpr BlockKind DecimalLeafKind(int scale) {
  return static_cast<BlockKind>(static_cast<int>(BlockKind::kDecimalLeaf) + scale);
}
inline constexpr bool IsDecimalLeaf(BlockKind kind) {
  return kind >= BlockKind::kDecimalLeaf && kind <= DecimalLeafKind(9);
}
inline constexpr bool IsNode(BlockKind kind) {
  return kind == BlockKind::kInner || kind == BlockKind::kLeaf || IsDecimalLeaf(kind);
}

// On disk: DO NOT REORDER. The host's PageHeaderData.
struct PageHeader {
  uint32_t lsn_high;       // pd_lsn, most significant half first.
  uint32_t lsn_low;
  uint16_t checksum;       // pd_checksum: the host's, written by the access method when enabled.
  uint16_t flags;          // Zero.
  uint16_t lower;          // lower = upper = special = 8192: no line pointers, no hole, no special
  uint16_t upper;          // space; the host leaves the whole page alone.
  uint16_t special;
  uint16_t size_version;   // 8192 | 4.
  uint32_t prune_xid;      // Zero.
};
static_assert(sizeof(PageHeader) == 24);
inline constexpr uint16_t kPageSizeVersion = kBlockBytes | 4;

// On disk: DO NOT REORDER. The same 64 bytes start every block of every kind.
struct BlockHeader {
  PageHeader page;
  uint32_t crc32c;        // Of the block with page.lsn_*, page.checksum and this field as zeros;
                          // valid once stamped (lsn != all ones).
  BlockKind kind;
  uint8_t level;          // Nodes: 0 is a leaf.
  uint8_t order;          // Nodes: the extent has 2^order blocks.
  uint8_t extent_index;   // Which block of its extent this is.
  uint64_t node_id;       // Nodes: the NodeID, so that a misdirected read is noticed.
  uint64_t birth_epoch;   // Nodes: index epoch that published this version.
  uint32_t count;         // Nodes: entries in *this block*. Published with release order.
  uint32_t split_dims;    // Nodes: bit d is set if a split along dimension d made this node
                          // (the X-tree's split history).
  uint32_t block_number;  // Its own place in the file; catches a misdirected write.
  uint32_t tree;          // Nodes: which tree of the index (IndexShared::trees) it belongs to.
};
static_assert(sizeof(BlockHeader) == 64 && offsetof(BlockHeader, node_id) == 32);
static_assert(std::has_unique_object_representations_v<BlockHeader>);
inline constexpr uint32_t kBlockPayloadBytes = kBlockBytes - sizeof(BlockHeader);

inline uint64_t BlockLsn(const BlockHeader& h) {
  // Writers beside each other may be marking it as unstamped.
  const auto word = [](const uint32_t& half) {
    return std::atomic_ref<uint32_t>(const_cast<uint32_t&>(half)).load(std::memory_order_relaxed);
  };
  return uint64_t{word(h.page.lsn_high)} << 32 | word(h.page.lsn_low);
}
// Fills the page header and identity of a block and marks it unstamped. The payload is untouched.
void InitBlock(BlockHeader* header, BlockKind kind, uint32_t block_number);
// Sets the LSN and the CRC. The block must not change afterwards without MarkUnstamped.
void StampBlock(BlockHeader* header, uint64_t lsn);
void MarkUnstamped(BlockHeader* header);
// Whether the host would take the block for a page of ours.
bool HasPageHeader(const BlockHeader& header);
// Whether a stamped block's header and CRC hold. `why` receives a static string on failure.
bool VerifyBlock(const BlockHeader* header, uint32_t block_number, const char** why);

}  // namespace xtree
