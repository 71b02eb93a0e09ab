// Superblock: the root of a capture. Two slots, blocks 0 and 1 of the data file; a checkpoint
// writes the other slot, so a torn write leaves the previous capture. Once the new one is on disk,
// the old slot receives a copy of it, so that a slot which decays later never brings an old capture
// back.
//
// Threads: free functions over the caller's memory.
// Errors:  kNotFound both slots are zero (a creation that never completed); kCorruption neither is
//          a superblock; kUnsupported another version; kBroken as ChooseSuperblock says.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "segment/block.h"
#include "store/index_shared.h"
#include "tree/geometry.h"

namespace xtree {

inline constexpr uint64_t kSuperblockMagic = 0x3165657274782020;  // "  xtree1", little-endian.
inline constexpr uint32_t kDirectoryBlocksMax = 1024;

// On disk: DO NOT REORDER. One tree of the index.
struct SuperblockTree {
  uint8_t dims;
  CoordType coord;
  KeyKind kind;
  uint8_t reserved[5];
  uint64_t root;            // NodeId value, 0 if empty.
  uint64_t entries;
  uint32_t height;
  uint32_t supernodes;
  uint64_t nodes_by_level[kTreeLevelsMax];
};
static_assert(sizeof(SuperblockTree) == 160);

// On disk: DO NOT REORDER.
struct Superblock {
  BlockHeader header;       // kind kSuperblock; header.crc32c covers the block.
  uint64_t magic;
  uint32_t version;         // kFormatVersion.
  uint32_t broken;          // Nonzero: marked broken; every use errors until rebuilt.
  uint64_t sequence;        // The valid slot with the higher sequence wins.
  Identity identity;
  uint64_t capture_id;      // Random per capture.
  uint64_t capture_lsn;     // Highest operation LSN in the capture.
  uint64_t epoch;           // Index epoch of the capture.
  uint64_t log_start_seq;   // First log sequence to replay; 0 if there is none.
  uint64_t log_capture_id;  // The capture that the first log block to replay builds on, by its id:
                            // this one, or an older one if nothing was logged in between.
  uint32_t leaf_fill_percent;
  uint32_t table_pages;     // Object-table pages in use.
  uint32_t directory_count; // Directory blocks, each listing table-page blocks.
  uint32_t reserved;
  SuperblockTree trees[kTrees];
  uint32_t directory[kDirectoryBlocksMax];
};
static_assert(sizeof(Superblock) <= kBlockBytes);
inline constexpr uint32_t kSuperblockSlots = 2;

// Makes `block` (kBlockBytes) the superblock of `slot`: header, LSN and CRC.
// REQUIRES: everything after the header of `content` is filled in.
void WriteSuperblock(const Superblock& content, uint32_t slot, void* block);
// Whether `block` is a whole superblock of `slot`, of whatever version. kNotFound if it is all
// zero.
Status CheckSuperblock(const void* block, uint32_t slot, const char* path);
// Whether two identities name the same relation of the same system.
bool SameIdentity(const Identity& a, const Identity& b);
// The newest of two slots. Also refuses a superblock that is marked broken, is of another system
// than `identity` (null: any), or holds operations past `lsn_max`; all three are kBroken. Whether
// another relation's superblock may be adopted is for the caller to decide.
Status ChooseSuperblock(const void* slot0, const void* slot1, const char* path,
                        const Identity* identity, uint64_t lsn_max, Superblock* chosen,
                        uint32_t* slot);
// A number that no other capture has.
uint64_t NewCaptureId();

}  // namespace xtree
