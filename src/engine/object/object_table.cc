#include "object/object_table.h"

#include "base/spin_latch.h"

namespace xtree {

namespace {

std::atomic<uint64_t> g_shards_taken{0};

// A thread's claim to a shard; given back when the thread ends, so that a program that starts many
// short threads does not activate one shard after the other.
struct ShardClaim {
  uint32_t shard;
  bool owned;

  ShardClaim() : shard(kShards - 1), owned(false) {
    uint64_t taken = g_shards_taken.load(std::memory_order_relaxed);
    while (taken != ~uint64_t{0}) {
      const uint32_t lowest = static_cast<uint32_t>(std::countr_one(taken));
      if (g_shards_taken.compare_exchange_weak(taken, taken | uint64_t{1} << lowest)) {
        shard = lowest;
        owned = true;
        return;
      }
    }
  }
  ~ShardClaim() {
    if (owned) g_shards_taken.fetch_and(~(uint64_t{1} << shard));
  }
};

}  // namespace

uint32_t ThreadShard() {
  thread_local ShardClaim claim;
  return claim.shard;
}

bool ObjectTable::AllocateHandle(NodeId* id) {
  const uint32_t shard_index = ThreadShard();
  ShardShared& shard = shared_->shards[shard_index];
  SpinLatch latch(&shard.latch);
  uint64_t handle;
  if (shard.free_head != 0) {
    handle = shard.free_head - 1;
    shard.free_head = (*entries_)[handle].next_free;
  } else {
    if (shard.bump_next == shard.bump_end && !ClaimPage(shard_index, &shard)) return false;
    handle = shard.bump_next++;
  }
  ObjectEntry& entry = (*entries_)[handle];
  entry.next_free = 0;
  const EntryWord word = entry.word.load(std::memory_order_relaxed);
  XT_ASSERT(!(word & kWordLive));
  // Tag 0 is never given out, so that no NodeId equals "no node".
  uint16_t tag = static_cast<uint16_t>(WordTag(word) + 1);
  if (tag == 0) tag = 1;
  *id = NodeId::Make(handle, shard_index, tag);
  return true;
}

bool ObjectTable::ClaimPage(uint32_t shard_index, ShardShared* shard) {
  uint32_t page = shared_->pages.load(std::memory_order_relaxed);
  do {
    const uint64_t end = (uint64_t{page} + 1) * kTablePageEntries;
    if (end > entries_->capacity() || page >= page_infos_->capacity()) return false;
    if (end > UINT32_MAX) return false;  // Free lists name handles in 32 bits.
  } while (!shared_->pages.compare_exchange_weak(page, page + 1, std::memory_order_acq_rel));
  (*page_infos_)[page].shard = shard_index;
  if (shard->bump_end == 0) shared_->active_shards.fetch_add(1, std::memory_order_relaxed);
  shard->bump_next = uint64_t{page} * kTablePageEntries;
  shard->bump_end = shard->bump_next + kTablePageEntries;
  return true;
}

void ObjectTable::FreeHandle(uint64_t handle) {
  ObjectEntry& entry = (*entries_)[handle];
  XT_ASSERT(!(entry.word.load(std::memory_order_relaxed) & kWordLive));
  ShardShared& shard = shared_->shards[(*page_infos_)[handle / kTablePageEntries].shard];
  SpinLatch latch(&shard.latch);
  entry.next_free = shard.free_head;
  shard.free_head = static_cast<uint32_t>(handle + 1);
}

uint32_t ObjectTable::PagesForHandles(uint64_t handles) const {
  const ShardShared& shard = shared_->shards[ThreadShard()];
  const uint64_t left = shard.bump_end - shard.bump_next;
  if (handles <= left || (handles == 1 && shard.free_head != 0)) return pages();
  const uint64_t missing = handles - left;
  return pages() + static_cast<uint32_t>((missing + kTablePageEntries - 1) / kTablePageEntries);
}

uint32_t ObjectTable::TakeRecord() {
  uint32_t record = shared_->version_free_head;
  if (record != 0) {
    shared_->version_free_head = this->record(record).next;
    return record;
  }
  if (shared_->versions_used >= versions_->capacity()) return 0;
  return static_cast<uint32_t>(++shared_->versions_used);
}

void ObjectTable::GiveRecord(uint32_t record) {
  XT_ASSERT(record != 0);
  this->record(record).next = shared_->version_free_head;
  shared_->version_free_head = record;
}

void ObjectTable::LinkHistory(uint32_t record) {
  VersionRecord& r = this->record(record);
  ObjectEntry& entry = (*entries_)[NodeId{r.node_id}.handle()];
  const uint32_t older = entry.history.load(std::memory_order_relaxed);
  r.older.store(older, std::memory_order_relaxed);
  r.newer = 0;
  if (older != 0) this->record(older).newer = record;
  entry.history.store(record, std::memory_order_release);
}

void ObjectTable::UnlinkHistory(uint32_t record) {
  // Readers stop before a record that may be reused: the version that they look for is newer. So
  // they may follow either the old link or the new one.
  VersionRecord& r = this->record(record);
  const uint32_t older = r.older.load(std::memory_order_relaxed);
  if (older != 0) this->record(older).newer = r.newer;
  if (r.newer != 0) {
    XT_ASSERT(this->record(r.newer).older.load(std::memory_order_relaxed) == record);
    this->record(r.newer).older.store(older, std::memory_order_release);
  } else {
    ObjectEntry& entry = (*entries_)[NodeId{r.node_id}.handle()];
    XT_ASSERT(entry.history.load(std::memory_order_relaxed) == record);
    entry.history.store(older, std::memory_order_release);
  }
}

void ObjectTable::Push(VersionQueue* queue, uint32_t record) {
  this->record(record).next = 0;
  if (queue->tail != 0) {
    this->record(queue->tail).next = record;
  } else {
    queue->head = record;
  }
  queue->tail = record;
  ++queue->length;
}

void ObjectTable::PopFront(VersionQueue* queue) {
  XT_ASSERT(queue->head != 0 && queue->length != 0);
  queue->head = record(queue->head).next;
  if (queue->head == 0) queue->tail = 0;
  --queue->length;
}

void ObjectTable::Prepend(VersionQueue* from, VersionQueue* to) {
  if (from->head == 0) return;
  record(from->tail).next = to->head;
  if (to->tail == 0) to->tail = from->tail;
  to->head = from->head;
  to->length += from->length;
  *from = VersionQueue{};
}

void ObjectTable::MakeFree(uint64_t handle) {
  ObjectEntry& entry = (*entries_)[handle];
  const EntryWord word = entry.word.load(std::memory_order_relaxed);
  entry.word.store(MakeWord(0, 0, WordTag(word), 0), std::memory_order_release);
}

void ObjectTable::EncodePage(uint32_t page, EntryWord* words) const {
  XT_ASSERT(page < pages());
  const uint64_t first = uint64_t{page} * kTablePageEntries;
  for (uint32_t i = 0; i < kTablePageEntries; ++i) {
    const EntryWord word = (*entries_)[first + i].word.load(std::memory_order_relaxed);
    words[i] = !(word & kWordLive) || (word & kWordDead) ? MakeWord(0, 0, WordTag(word), 0)
                                                         : word & ~kWordVerified;
  }
}

void ObjectTable::AdoptPage(uint32_t shard_index, uint32_t disk_block, const EntryWord* words) {
  const uint32_t page = pages();
  XT_ASSERT(shard_index < kShards && page < page_infos_->capacity());
  ShardShared& shard = shared_->shards[shard_index];
  const uint64_t first = uint64_t{page} * kTablePageEntries;
  uint64_t live = 0;
  // From the end, so that the free list hands out low handles first.
  for (uint32_t i = kTablePageEntries; i-- > 0;) {
    ObjectEntry& entry = (*entries_)[first + i];
    const EntryWord word = words[i] & ~(kWordVerified | kWordDead);
    entry.history.store(0, std::memory_order_relaxed);
    if (word & kWordLive) {
      entry.next_free = 0;
      entry.word.store(word, std::memory_order_release);
      ++live;
    } else {
      entry.word.store(MakeWord(0, 0, WordTag(word), 0), std::memory_order_release);
      entry.next_free = shard.free_head;
      shard.free_head = static_cast<uint32_t>(first + i + 1);
    }
  }
  TablePageInfo& info = (*page_infos_)[page];
  info.dirty.store(0, std::memory_order_relaxed);
  info.shard = shard_index;
  info.disk_block = disk_block + 1;
  if (shard.bump_end == 0) {
    shared_->active_shards.fetch_add(1, std::memory_order_relaxed);
    shard.bump_next = shard.bump_end = first + kTablePageEntries;
  }
  shared_->live_nodes.fetch_add(live, std::memory_order_relaxed);
  shared_->pages.store(page + 1, std::memory_order_release);
}

}  // namespace xtree
