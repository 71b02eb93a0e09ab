#include "store/node_store.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "store/index_details.h"

namespace xtree {

namespace {

// MinReaderTag reads a cache line a slot, so not every publication asks for it.
constexpr uint32_t kPublicationsPerTag = 8;
// More than a change retires on average, so that the queue shrinks.
constexpr uint64_t kReclaimMin = 4;
// A change of so many nodes costs more than asking.
constexpr uint64_t kBigChange = 32;
constexpr size_t kStagedMin = 64;

}  // namespace

// --- Chunks.

HeapChunks::~HeapChunks() {
  for (void* chunk : chunks_) std::free(chunk);
}

Result<void*> HeapChunks::Allocate(uint64_t bytes) {
  if (chunks_.size() == chunks_.capacity()) chunks_.reserve(2 * chunks_.size() + 16);
  void* chunk = std::calloc(1, bytes);  // Big ones cost a page only where they are used.
  if (chunk == nullptr) {
    return Status::Make(Code::kOutOfMemory, "could not allocate %llu bytes for an index",
                        static_cast<unsigned long long>(bytes));
  }
  chunks_.push_back(chunk);
  return chunk;
}

NodeStore::NodeStore(IndexShared* shared, FileSystem* fs, WindowBudget* budget,
                     EpochShared* epochs, std::string data_path, ChunkSource chunk_source)
    : epochs_(epochs),
      window_manager_(fs, budget, std::move(data_path)),
      table_(&shared->table, &entries_, &versions_, &page_infos_),
      allocator_(&shared->allocator, &segments_, &window_manager_) {
  shared_ = shared;
  windows_ = &window_manager_;
  entries_.Attach(&shared->table.entries);
  versions_.Attach(&shared->table.versions);
  page_infos_.Attach(&shared->table.page_infos);
  segments_.Attach(&shared->allocator.infos);
  if (chunk_source == ChunkSource::kHeap) heap_ = std::make_unique<HeapChunks>();
}

NodeStore::~NodeStore() {
  XT_ASSERT(staged_.empty());
  if (pinned_) windows_->Unpin();
}

template <class Array>
Status NodeStore::Grow(Array* array, uint32_t id, uint64_t needed) {
  while (XT_UNLIKELY(array->capacity() < needed)) {
    if (!array->FullyAttached()) return NotAttached();
    const uint32_t level =
        IndexArray(shared_, id)->levels.load(std::memory_order_relaxed);
    if (level >= kArrayLevelsMax) {
      return Status::Make(Code::kNoSpace, "index \"%s\" has reached its largest size",
                          windows_->path().c_str());
    }
    const uint64_t bytes = Array::LevelBytes(level);
    if (heap_ == nullptr) {
      request_ = ChunkRequest{id, level, bytes};
      return Status::Make(Code::kNeedMemory, "%llu bytes of shared memory must be provided",
                          static_cast<unsigned long long>(bytes));
    }
    XT_ASSIGN_OR_RETURN(void* chunk, heap_->Allocate(bytes));
    array->Provide(level, reinterpret_cast<uintptr_t>(chunk), chunk);
  }
  return Status::Ok();
}

bool NodeStore::MissingChunk(ChunkRequest* request, uint64_t* ref) const {
  const auto missing = [&](const auto& array, uint32_t id) {
    uint32_t level;
    if (!array.MissingLevel(&level)) return false;
    *request = ChunkRequest{id, level, array.LevelBytes(level)};
    *ref = array.ref(level);
    return true;
  };
  return missing(entries_, kArrayEntries) || missing(versions_, kArrayVersions) ||
         missing(page_infos_, kArrayPageInfos) || missing(segments_, kArraySegments);
}

void NodeStore::ProvideChunk(uint32_t array, uint32_t level, uint64_t ref, void* address) {
  switch (array) {
    case kArrayEntries: return entries_.Provide(level, ref, address);
    case kArrayVersions: return versions_.Provide(level, ref, address);
    case kArrayPageInfos: return page_infos_.Provide(level, ref, address);
    default:
      XT_ASSERT(array == kArraySegments);
      return segments_.Provide(level, ref, address);
  }
}

void NodeStore::ResetShared() {
  XT_ASSERT(staged_.empty());
  ArrayDirectory* directories[kArrays];
  uint64_t refs[kArrays][kArrayLevelsMax];
  uint32_t levels[kArrays];
  for (uint32_t a = 0; a < kArrays; ++a) {
    directories[a] = IndexArray(shared_, a);
    levels[a] = directories[a]->levels.load(std::memory_order_relaxed);
    for (uint32_t l = 0; l < levels[a]; ++l) refs[a][l] = directories[a]->refs[l].load();
  }
  const auto zero = [](auto& array, uint32_t count) {
    for (uint32_t l = 0; l < count; ++l) std::memset(array.local(l), 0, array.LevelBytes(l));
  };
  zero(entries_, levels[kArrayEntries]);
  zero(versions_, levels[kArrayVersions]);
  zero(page_infos_, levels[kArrayPageInfos]);
  zero(segments_, levels[kArraySegments]);
  std::memset(static_cast<void*>(shared_), 0, sizeof(*shared_));
  for (uint32_t a = 0; a < kArrays; ++a) {
    for (uint32_t l = 0; l < levels[a]; ++l) directories[a]->refs[l].store(refs[a][l]);
    directories[a]->levels.store(levels[a], std::memory_order_release);
  }
  safe_tag_ = 0;
  touched_.clear();
}

Status NodeStore::InitShared(IndexShared* shared, const IndexOptions& options) {
  const KeySpec& spec = options.spec;
  if (spec.dims < 1 || spec.dims > kDimsMax) {
    return Status::InvalidArgument("an index cannot have %u dimensions (1 to %u)",
                                   static_cast<unsigned>(spec.dims), kDimsMax);
  }
  if (options.leaf_fill_percent < 10 || options.leaf_fill_percent > 100) {
    return Status::InvalidArgument("fill factor %u is out of range (10 to 100)",
                                   options.leaf_fill_percent);
  }
  shared->trees[kTreeMain].spec = spec;
  shared->trees[kTreeNull].spec = KeySpec{1, CoordType::kF64, KeyKind::kPoint};
  shared->leaf_fill_percent = options.leaf_fill_percent;
  shared->published_epoch.store(1, std::memory_order_relaxed);
  shared->magic = kIndexSharedMagic;
  return Status::Ok();
}

// --- Capacity.

Status NodeStore::ReservePages(uint64_t pages) {
  if (pages * kTablePageEntries > UINT32_MAX) {
    return Status::Make(Code::kNoSpace, "index \"%s\" has reached its largest number of nodes",
                        windows_->path().c_str());
  }
  XT_RETURN_IF_ERROR(Grow(&page_infos_, kArrayPageInfos, pages));
  return Grow(&entries_, kArrayEntries, pages * kTablePageEntries);
}

Status NodeStore::ReserveTablePage() { return ReservePages(uint64_t{table_.pages()} + 1); }

Status NodeStore::ReserveSegments(uint32_t file_blocks) {
  return Grow(&segments_, kArraySegments,
              uint64_t{file_blocks} / kSegmentBlocks + 1 + SegmentAllocator::kGrowSegmentsMax);
}

void NodeStore::ReserveStaged(uint64_t more) {
  const size_t needed = staged_.size() + more;
  if (XT_UNLIKELY(staged_.capacity() < needed)) {
    staged_.reserve(std::max({kStagedMin, needed, 2 * staged_.capacity()}));
  }
  if (XT_UNLIKELY(track_touched_)) {
    // Publication must not allocate: room for the in-place edits of this change, too.
    const size_t blocks =
        touched_.size() + (more << kOrderMax) + kTouchedPerChange;
    if (touched_.capacity() < blocks) touched_.reserve(2 * blocks);
  }
}

Result<uint32_t> NodeStore::AllocateExtent(uint32_t order) {
  if (XT_UNLIKELY(!allocator_.HasInfoCapacity())) {
    XT_RETURN_IF_ERROR(Grow(&segments_, kArraySegments,
                            uint64_t{allocator_.segments()} + SegmentAllocator::kGrowSegmentsMax));
  }
  return allocator_.Allocate(order);
}

bool NodeStore::FreeExtent(uint32_t block, uint32_t order) noexcept {
  WindowPin pin(windows_);
  if (XT_UNLIKELY(windows_->BlockAddress(block) == nullptr) && !windows_->MapBlock(block).ok()) {
    return false;
  }
  allocator_.Free(block, order);
  return true;
}

Status NodeStore::ReserveNodes(uint64_t nodes, uint32_t order, bool unwritten) {
  PinForChange();
  ReserveStaged(nodes);
  XT_RETURN_IF_ERROR(ReservePages(table_.PagesForHandles(nodes)));
  uint64_t segments = nodes / (kSegmentBlocks >> order) + 1;
  XT_RETURN_IF_ERROR(
      Grow(&segments_, kArraySegments,
           allocator_.segments() + segments + 2 * SegmentAllocator::kGrowSegmentsMax));
  XT_ASSERT(nodes <= UINT32_MAX);
  return allocator_.ReserveExtents(order, static_cast<uint32_t>(nodes), !unwritten);
}

void NodeStore::PinForChange() {
  if (pinned_) return;
  windows_->Pin();
  pinned_ = true;
}

// --- Staging.

NodeRef NodeStore::InitStaged(const Staged& staged, uint32_t tree, uint8_t level) {
  auto* node = reinterpret_cast<BlockHeader*>(windows_->BlockAddress(staged.block));
  const NodeRef ref{node, staged.order, staged.id};
  InitNode(ref, staged.block, tree, level);
  for (uint32_t i = 0; XT_UNLIKELY(track_touched_) && i < 1u << staged.order; ++i) {
    touched_.push_back(staged.block + i);
  }
  return ref;
}

Result<NodeRef> NodeStore::StageNew(uint32_t tree, uint8_t level, uint32_t order) {
  uint32_t block;
  XT_RETURN_IF_ERROR(StageUnwritten(order, &block).status());
  return InitStaged(staged_.back(), tree, level);
}

Result<NodeRef> NodeStore::StageUnwritten(uint32_t order, uint32_t* block) {
  PinForChange();
  ReserveStaged(1);
  Staged staged{};
  staged.kind = StagedKind::kNew;
  staged.order = static_cast<uint8_t>(order);
  XT_ASSIGN_OR_RETURN(staged.block, AllocateExtent(order));
  while (XT_UNLIKELY(!table_.AllocateHandle(&staged.id))) {
    Status status = ReservePages(table_.PagesForHandles(1));
    if (!status.ok()) {
      allocator_.Free(staged.block, order);
      return status;
    }
  }
  staged_.push_back(staged);
  *block = staged.block;
  return NodeRef{nullptr, order, staged.id};
}

Status NodeStore::StageOld(NodeId id, Staged* staged) {
  XT_ASSIGN_OR_RETURN(const NodeRef old, LookupNewest(id));
  staged->id = id;
  staged->old_word = entries_[id.handle()].word.load(std::memory_order_relaxed);
  staged->old_birth = old.node->birth_epoch;
  XT_ASSERT((staged->old_word & kWordLive) && !(staged->old_word & kWordDead));
  while (XT_UNLIKELY((staged->record = table_.TakeRecord()) == 0)) {
    XT_RETURN_IF_ERROR(Grow(&versions_, kArrayVersions, shared_->table.versions_used + 1));
  }
  return Status::Ok();
}

Result<NodeRef> NodeStore::StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) {
  PinForChange();
  ReserveStaged(1);
  Staged staged{};
  staged.kind = StagedKind::kVersion;
  staged.order = static_cast<uint8_t>(order);
  XT_RETURN_IF_ERROR(StageOld(id, &staged));
  Result<uint32_t> block = AllocateExtent(order);
  if (!block.ok()) {
    table_.GiveRecord(staged.record);
    return block.status();
  }
  staged.block = *block;
  staged_.push_back(staged);
  return InitStaged(staged, tree, level);
}

Status NodeStore::StageFree(NodeId id) {
  PinForChange();
  ReserveStaged(1);
  Staged staged{};
  staged.kind = StagedKind::kFree;
  XT_RETURN_IF_ERROR(StageOld(id, &staged));
  staged_.push_back(staged);
  return Status::Ok();
}

void NodeStore::Discard() noexcept {
  for (size_t i = staged_.size(); i-- > 0;) {
    const Staged& staged = staged_[i];
    if (staged.kind != StagedKind::kFree) allocator_.Free(staged.block, staged.order);
    if (staged.kind == StagedKind::kNew) table_.FreeHandle(staged.id.handle());
    if (staged.record != 0) table_.GiveRecord(staged.record);
  }
  staged_.clear();
  if (pinned_) windows_->Unpin();
  pinned_ = false;
}

// --- Publishing.

void NodeStore::PublishOne(const Staged& staged, uint64_t epoch) {
  const uint64_t handle = staged.id.handle();
  ObjectEntry& entry = entries_[handle];
  table_.MarkDirty(handle);
  EntryWord word;
  if (staged.kind == StagedKind::kNew) {
    word = MakeWord(staged.block, staged.order, staged.id.tag(), kWordLive | kWordVerified);
    shared_->table.live_nodes.store(shared_->table.live_nodes.load(std::memory_order_relaxed) + 1,
                                    std::memory_order_relaxed);
    entry.word.store(word, std::memory_order_release);
    return;
  }
  // A second staging of the same node would lose the first one's version.
  XT_ASSERT(WordBlock(entry.word.load(std::memory_order_relaxed)) == WordBlock(staged.old_word));
  VersionRecord& version = table_.record(staged.record);
  version.word = staged.old_word | kWordVerified;
  version.node_id = staged.id.value;
  version.birth_epoch = staged.old_birth;
  version.retire_epoch = epoch;
  version.final = staged.kind == StagedKind::kFree;
  if (staged.kind == StagedKind::kFree) {
    // The entry itself goes on naming this version, for older readers; so it is not in the history,
    // where a reader finds only what its entry no longer names.
    shared_->table.live_nodes.store(shared_->table.live_nodes.load(std::memory_order_relaxed) - 1,
                                    std::memory_order_relaxed);
    entry.word.fetch_or(kWordDead, std::memory_order_release);
    return;
  }
  table_.LinkHistory(staged.record);
  word = MakeWord(staged.block, staged.order, staged.id.tag(), kWordLive | kWordVerified);
  entry.word.store(word, std::memory_order_release);
}

void NodeStore::Publish() noexcept {
  if (!staged_.empty()) {
    const uint64_t epoch = shared_->published_epoch.load(std::memory_order_relaxed) + 1;
    bool retired = false;
    for (const Staged& staged : staged_) {
      PublishOne(staged, epoch);
      retired |= staged.record != 0;
    }
    shared_->published_epoch.store(epoch, std::memory_order_release);
    if (retired) {
      const uint64_t tag = NextRetireTag(epochs_);
      for (const Staged& staged : staged_) {
        if (staged.record == 0) continue;
        table_.record(staged.record).retire_tag = tag;
        table_.Push(&queues().waiting_readers, staged.record);
      }
    }
    const uint64_t budget = std::min<uint64_t>(2 * staged_.size(), 64) + kReclaimMin;
    staged_.clear();
    if (queues().waiting_readers.head != 0) {
      const bool ask = publications_++ % kPublicationsPerTag == 0 || budget >= kBigChange;
      if (ask) safe_tag_ = std::max(safe_tag_, MinReaderTag(epochs_));
      GiveBack(ask ? budget * kPublicationsPerTag : budget);
    }
  }
  if (pinned_) windows_->Unpin();
  pinned_ = false;
}

bool NodeStore::Captured(const VersionRecord& version) const {
  const auto member = [&](uint64_t capture) {
    return version.birth_epoch <= capture && capture < version.retire_epoch;
  };
  return member(shared_->capture.durable_epoch.load(std::memory_order_relaxed)) ||
         member(shared_->capture.pending_epoch.load(std::memory_order_relaxed));
}

uint64_t NodeStore::Reclaim(uint64_t versions_max) noexcept {
  safe_tag_ = std::max(safe_tag_, MinReaderTag(epochs_));
  return GiveBack(versions_max);
}

uint64_t NodeStore::GiveBack(uint64_t versions_max) noexcept {
  uint64_t given_back = 0;
  VersionQueue& waiting = queues().waiting_readers;
  WindowPin pin(windows_);
  for (; versions_max > 0 && waiting.head != 0; --versions_max) {
    const uint32_t record = waiting.head;
    VersionRecord& version = table_.record(record);
    if (version.retire_tag > safe_tag_) break;
    if (Captured(version)) {
      table_.PopFront(&waiting);
      table_.Push(&queues().waiting_capture, record);
      continue;
    }
    // Without a mapping it cannot be zeroed; it stays in the queue until it can.
    if (windows_->BlockAddress(WordBlock(version.word)) == nullptr &&
        !windows_->MapBlock(WordBlock(version.word)).ok()) {
      break;
    }
    table_.PopFront(&waiting);
    const uint64_t handle = NodeId{version.node_id}.handle();
    if (version.final != 0) {
      table_.MakeFree(handle);
    } else {
      table_.UnlinkHistory(record);
    }
    allocator_.Free(WordBlock(version.word), WordOrder(version.word));
    // The last version can go before an older one that a capture refers to.
    if (table_.HandleIsDone(handle)) table_.FreeHandle(handle);
    table_.GiveRecord(record);
    ++given_back;
  }
  return given_back;
}

// --- Touched blocks.

void NodeStore::TrackTouched(bool enabled) {
  track_touched_ = enabled;
  touched_.clear();
  if (enabled) touched_.reserve(2 * kTouchedPerChange);
}

void NodeStore::Touch(BlockHeader* block) noexcept {
  MarkUnstamped(block);
  if (touched_.size() == touched_.capacity()) {
    // Only if nobody drains. What was touched twice makes room; without memory the block stays
    // unstamped until the next checkpoint stamps it.
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    try {
      touched_.reserve(2 * touched_.size() + kTouchedPerChange);
    } catch (const std::bad_alloc&) {
      if (touched_.size() == touched_.capacity()) return;
    }
  }
  touched_.push_back(block->block_number);
}

bool NodeStore::NextTouched(uint32_t* block) {
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  while (!touched_.empty()) {
    *block = touched_.back();
    touched_.pop_back();
    const auto* header = reinterpret_cast<const BlockHeader*>(windows_->BlockAddress(*block));
    if (header != nullptr && header->page.size_version != 0) return true;
  }
  return false;
}

}  // namespace xtree
