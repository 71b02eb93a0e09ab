// StoreInterface: where XTree keeps its nodes. DurableStore and MemoryStore implement it on the same
// object table and allocator; only files, log and checkpoints differ.
//
// Changing the tree has two halves, so that the second cannot fail (the host writes its WAL record
// between them):
//   prepare: Stage* calls build new node versions in fresh extents. Nothing is visible. May fail;
//            then Discard() gives everything back.
//   apply:   in-place edits of mutable nodes, then Publish(): pointers, then the epoch. noexcept.
//
// Threads:   ReadEpoch, Lookup and the like from any thread. Everything else under the index's
//            writer lock.
// Lifetimes: a node address is valid while a WindowPin is held, and its content while an EpochPin
//            taken before the lookup is held (or the writer lock, until the next Publish).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/status.h"
#include "object/object_table.h"
#include "segment/block.h"
#include "segment/window_manager.h"
#include "store/index_shared.h"

namespace xtree {

// A node version's memory: 2^order blocks, each starting with a BlockHeader.
struct NodeRef {
  BlockHeader* node = nullptr;
  uint32_t order = 0;
  NodeId id;
  BlockHeader* block(uint32_t i) const {
    return reinterpret_cast<BlockHeader*>(reinterpret_cast<std::byte*>(node) +
                                          uint64_t{i} * kBlockBytes);
  }
};

class StoreInterface {
 public:
  virtual ~StoreInterface() = default;

  IndexShared* shared() const { return shared_; }
  WindowManager* windows() const { return windows_; }

  // The epoch that a scan reads at: call after EpochPin::Acquire. kNeedMemory: other processes have
  // grown the index's arrays; attach their chunks and begin again.
  Result<uint64_t> ReadEpoch() const {
    const uint64_t epoch = shared_->published_epoch.load(std::memory_order_acquire);
    if (XT_UNLIKELY(!entries_.FullyAttached() || !versions_.FullyAttached())) return NotAttached();
    return epoch;
  }
  // The version of `id` that a reader at `epoch` sees. Fast path: one entry load, no lock, no system
  // call. The slow path maps a window, verifies a block's CRC the first time it is seen since it was
  // loaded from disk, or walks to an older version.
  // kCorruption names file and block. kNotFound: the node did not exist at that epoch (a root that
  // was made since). kNeedMemory: an older version is described in a chunk that another process has
  // provided since ReadEpoch; attach it and look up again.
  Result<NodeRef> Lookup(NodeId id, uint64_t epoch) const;
  // Lookup for hot loops: null node when the slow path is needed (call Lookup then).
  NodeRef TryLookup(NodeId id, uint64_t epoch) const {
    if (XT_UNLIKELY(id.handle() >= entries_.reach())) return {};
    const ObjectEntry& entry = entries_[id.handle()];
    const EntryWord word = entry.word.load(std::memory_order_acquire);
    if (XT_UNLIKELY(WordTag(word) != id.tag() || !(word & kWordVerified))) return {};
    std::byte* address = windows_->BlockAddress(WordBlock(word));
    if (XT_UNLIKELY(address == nullptr)) return {};
    auto* node = reinterpret_cast<BlockHeader*>(address);
    if (XT_UNLIKELY(node->birth_epoch > epoch)) return {};
    return NodeRef{node, WordOrder(word), id};
  }
  // Hints the CPU to fetch the entry of `id`, or the first `bytes` of its node.
  void PrefetchEntry(NodeId id) const {
    if (XT_LIKELY(id.handle() < entries_.reach())) __builtin_prefetch(&entries_[id.handle()]);
  }
  void PrefetchNode(NodeId id, uint32_t bytes) const {
    if (XT_UNLIKELY(id.handle() >= entries_.reach())) return;
    const EntryWord word = entries_[id.handle()].word.load(std::memory_order_relaxed);
    const std::byte* address = windows_->BlockAddress(WordBlock(word));
    if (address == nullptr) return;
    for (uint32_t i = 0; i < bytes; i += 64) __builtin_prefetch(address + i);
  }
  // The error of a node that a parent names but that is on another level than the parent implies,
  // or of another tree: whatever the file says, a descent must end.
  Status Misplaced(const NodeRef& node, uint32_t tree) const;
  // The newest version, for the writer. Same errors as Lookup.
  Result<NodeRef> LookupNewest(NodeId id) const { return Lookup(id, ~uint64_t{0}); }

  // Whether a node version may be changed in place (append, widen): born after the last capture
  // began, so that no checkpoint refers to it.
  bool IsMutable(const BlockHeader* node) const {
    return node->birth_epoch > shared_->capture.pending_epoch.load(std::memory_order_relaxed);
  }

  // A new node of 2^order zeroed blocks with headers filled in (kind from level, id, level, order,
  // extent_index, block_number; birth_epoch of the coming publication).
  virtual Result<NodeRef> StageNew(uint32_t tree, uint8_t level, uint32_t order) = 0;
  // A new node that is written to the file by whoever stages it, before Publish (bulk load): its place is *block, its
  // `node` null. What is written begins as InitNode makes it.
  virtual Result<NodeRef> StageUnwritten(uint32_t order, uint32_t* block) = 0;
  // Fills in the headers that StageNew speaks of, in zeroed blocks at ref.node that are, or will be, blocks `block` on.
  // From any thread of a bulk load.
  void InitNode(const NodeRef& ref, uint32_t block, uint32_t tree, uint8_t level) const;
  // A fresh extent for the next version of an existing node; headers as for StageNew. Staging twice
  // for one node in one change is a bug.
  virtual Result<NodeRef> StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) = 0;
  // The node disappears with this publication.
  virtual Status StageFree(NodeId id) = 0;
  virtual bool has_staged() const = 0;
  // Makes everything staged visible under one new epoch, retires what it replaces, and reclaims what
  // nobody needs any more (a bounded amount of work per call). Cannot fail.
  virtual void Publish() noexcept = 0;
  virtual void Discard() noexcept = 0;
  // Makes sure that `nodes` StageNew calls of `order` succeed, or with `unwritten` StageUnwritten ones (bulk load).
  virtual Status ReserveNodes(uint64_t nodes, uint32_t order, bool unwritten) = 0;

  // Call before changing a published block in place, in apply: the host must renew the block's
  // checksum afterwards. One load unless the host has asked for it. At most kTouchedPerChange blocks
  // a change.
  void MarkTouched(BlockHeader* block) {
    if (XT_UNLIKELY(track_touched_)) Touch(block);
  }
  static constexpr uint32_t kTouchedPerChange = 2048;

 protected:
  virtual void Touch(BlockHeader* block) noexcept = 0;
  Status NotAttached() const;

  IndexShared* shared_ = nullptr;
  WindowManager* windows_ = nullptr;
  EntryArray entries_;
  VersionArray versions_;
  bool track_touched_ = false;

 private:
  Result<NodeRef> LookupSlow(NodeId id, uint64_t epoch) const;
  Result<std::byte*> MapNode(uint32_t block) const;
  Status VerifyExtent(NodeId id, EntryWord word) const;
};

}  // namespace xtree
