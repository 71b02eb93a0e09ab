#include "store/store_interface.h"

#include "tree/node_layout.h"

namespace xtree {

Status StoreInterface::NotAttached() const {
  return Status::Make(Code::kNeedMemory, "the index has grown in another process");
}

Result<std::byte*> StoreInterface::MapNode(uint32_t block) const {
  Result<std::byte*> address = windows_->MapBlock(block);
  if (XT_UNLIKELY(!address.ok()) && address.status().code() == Code::kNotFound) {
    // To a scan, kNotFound is a node that is not there yet. A file that is gone must not look so.
    return Status::Corruption("file \"%s\", which holds block %u, is missing",
                              windows_->SegmentPath(block / kWindowBlocks).c_str(), block);
  }
  return address;
}

void StoreInterface::InitNode(const NodeRef& ref, uint32_t block, uint32_t tree, uint8_t level) const {
  XT_ASSERT(ref.node != nullptr && tree < kTrees && level < kTreeLevelsMax);
  const uint64_t birth = shared_->published_epoch.load(std::memory_order_relaxed) + 1;
  for (uint32_t i = 0; i < 1u << ref.order; ++i) {
    BlockHeader* header = ref.block(i);
    InitBlock(header, level == 0 ? BlockKind::kLeaf : BlockKind::kInner, block + i);
    header->level = level;
    header->order = static_cast<uint8_t>(ref.order);
    header->extent_index = static_cast<uint8_t>(i);
    header->node_id = ref.id.value;
    header->birth_epoch = birth;
    header->tree = tree;
  }
}

Status StoreInterface::Misplaced(const NodeRef& node, uint32_t tree) const {
  return Status::Corruption("block %u of \"%s\" is where a descent of tree %u must not meet it: it is "
                            "on level %u of tree %u",
                            node.node->block_number, windows_->path().c_str(), tree,
                            static_cast<unsigned>(node.node->level), node.node->tree);
}

Result<NodeRef> StoreInterface::Lookup(NodeId id, uint64_t epoch) const {
  // Only what a damaged pointer or a missing chunk would make unsafe is tested before the fast path.
  if (XT_LIKELY(id.handle() < entries_.capacity() && entries_.FullyAttached())) {
    const NodeRef ref = TryLookup(id, epoch);
    if (XT_LIKELY(ref.node != nullptr)) return ref;
  }
  return LookupSlow(id, epoch);
}

Result<NodeRef> StoreInterface::LookupSlow(NodeId id, uint64_t epoch) const {
  const uint64_t handle = id.handle();
  const uint32_t pages = shared_->table.pages.load(std::memory_order_acquire);
  if (!id.valid() || handle / kTablePageEntries >= pages) {
    return Status::Corruption("node %016llx of \"%s\" does not exist",
                              static_cast<unsigned long long>(id.value),
                              windows_->path().c_str());
  }
  if (!entries_.FullyAttached()) return NotAttached();
  const ObjectEntry& entry = entries_[handle];
  const EntryWord word = entry.word.load(std::memory_order_acquire);
  if (WordTag(word) != id.tag() || !(word & kWordLive)) {
    return Status::Corruption("node %016llx of \"%s\" does not exist any more",
                              static_cast<unsigned long long>(id.value),
                              windows_->path().c_str());
  }
  XT_ASSIGN_OR_RETURN(std::byte* address, MapNode(WordBlock(word)));
  if (!(word & kWordVerified)) {
    XT_RETURN_IF_ERROR(VerifyExtent(id, word));
    // Only this very word: the entry may have got a new version meanwhile, or become free.
    EntryWord expected = word;
    const_cast<ObjectEntry&>(entry).word.compare_exchange_strong(expected, word | kWordVerified,
                                                                 std::memory_order_acq_rel);
  }
  auto* node = reinterpret_cast<BlockHeader*>(address);
  if (node->birth_epoch <= epoch) return NodeRef{node, WordOrder(word), id};

  // Every version that a reader at `epoch` may pass on its way, and the one it wants, was retired
  // after it pinned; so none of their records is reused under it.
  uint32_t record = entry.history.load(std::memory_order_acquire);
  while (record != 0) {
    if (record > versions_.capacity() || !versions_.FullyAttached()) return NotAttached();
    const VersionRecord& version = versions_[record - 1];
    if (version.birth_epoch <= epoch) {
      XT_ASSERT(epoch < version.retire_epoch && version.node_id == id.value);
      XT_ASSIGN_OR_RETURN(std::byte* old, MapNode(WordBlock(version.word)));
      return NodeRef{reinterpret_cast<BlockHeader*>(old), WordOrder(version.word), id};
    }
    record = version.older.load(std::memory_order_acquire);
  }
  return Status::NotFound("node %016llx of \"%s\" is newer than the scan",
                          static_cast<unsigned long long>(id.value), windows_->path().c_str());
}

Status StoreInterface::VerifyExtent(NodeId id, EntryWord word) const {
  const uint32_t first = WordBlock(word);
  const uint32_t order = WordOrder(word);
  const char* path = windows_->path().c_str();
  XT_ASSERT(order <= kOrderMax);  // Loading the table has tested it.
  const auto* node = reinterpret_cast<const BlockHeader*>(windows_->BlockAddress(first));
  for (uint32_t i = 0; i < 1u << order; ++i) {
    const auto* block = reinterpret_cast<const BlockHeader*>(
        reinterpret_cast<const std::byte*>(node) + uint64_t{i} * kBlockBytes);
    const char* why;
    if (!VerifyBlock(block, first + i, &why)) {
      return Status::Corruption("block %u of \"%s\" is damaged: %s", first + i, path, why);
    }
    if (block->tree >= kTrees || block->level >= kTreeLevelsMax ||
        !NodeLayout::IsKind(shared_->trees[block->tree].spec, block->level, block->kind) ||
        block->kind != node->kind || block->node_id != id.value || block->order != order ||
        block->extent_index != i || block->level != node->level || block->tree != node->tree) {
      return Status::Corruption(
          "block %u of \"%s\" is not block %u of node %016llx: it has kind %u, level %u, order %u, "
          "place %u and node %016llx",
          first + i, path, i, static_cast<unsigned long long>(id.value),
          static_cast<unsigned>(block->kind), static_cast<unsigned>(block->level),
          static_cast<unsigned>(block->order), static_cast<unsigned>(block->extent_index),
          static_cast<unsigned long long>(block->node_id));
    }
  }
  const NodeLayout& layout = NodeLayout::Of(shared_->trees[node->tree].spec, *node);
  uint32_t entries = 0;
  for (uint32_t i = 0; i < 1u << order; ++i) {
    const uint32_t count = NodeLayout::BlockCount(NodeLayout::Block(node, i));
    const bool previous_full = entries == i * layout.block_capacity;
    if (count > layout.block_capacity || (count != 0 && !previous_full)) {
      return Status::Corruption("block %u of \"%s\" says that it holds %u entries; %u fit, and "
                                "blocks fill in order", first + i, path, count,
                                layout.block_capacity);
    }
    entries += count;
  }
  return Status::Ok();
}

}  // namespace xtree
