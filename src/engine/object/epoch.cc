#include "object/epoch.h"

namespace xtree {

void InitEpochShared(EpochShared* shared, uint32_t slot_count) {
  XT_ASSERT(slot_count >= 1);
  shared->slot_count = slot_count;
  for (uint32_t i = 0; i < slot_count; ++i) {
    shared->slots[i].tag.store(0, std::memory_order_relaxed);
    shared->slots[i].owner.store(0, std::memory_order_relaxed);
  }
  shared->global.store(1, std::memory_order_release);
}

uint64_t MinReaderTag(const EpochShared* shared) {
  // The global value is taken before the slots are read: a reader that fills a slot after it was
  // seen idle then sees every change that was published before this call.
  uint64_t min = shared->global.load(std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (uint32_t i = 0; i < shared->slot_count; ++i) {
    const uint64_t tag = shared->slots[i].tag.load(std::memory_order_acquire);
    if (tag != 0 && tag < min) min = tag;
  }
  return min;
}

bool OldestReader(const EpochShared* shared, uint32_t* slot_index, uint64_t* retirements) {
  uint64_t oldest = UINT64_MAX;
  for (uint32_t i = 0; i < shared->slot_count; ++i) {
    const uint64_t tag = shared->slots[i].tag.load(std::memory_order_relaxed);
    if (tag == 0 || tag >= oldest) continue;
    oldest = tag;
    *slot_index = i;
  }
  if (oldest == UINT64_MAX) return false;
  *retirements = shared->global.load(std::memory_order_relaxed) - oldest;
  return true;
}

bool ClaimEpochSlot(EpochShared* shared, uint32_t* slot_index) {
  for (uint32_t i = 0; i < shared->slot_count; ++i) {
    std::atomic<uint32_t>& owner = shared->slots[i].owner;
    uint32_t expected = 0;
    if (owner.load(std::memory_order_relaxed) == 0 &&
        owner.compare_exchange_strong(expected, 1, std::memory_order_acquire)) {
      XT_ASSERT(shared->slots[i].tag.load(std::memory_order_relaxed) == 0);
      *slot_index = i;
      return true;
    }
  }
  return false;
}

void ReleaseEpochSlot(EpochShared* shared, uint32_t slot_index) {
  EpochSlot& slot = shared->slots[slot_index];
  XT_ASSERT(slot.owner.load(std::memory_order_relaxed) != 0);
  slot.tag.store(0, std::memory_order_release);
  slot.owner.store(0, std::memory_order_release);
}

void EpochPin::Acquire(EpochReader* reader) {
  Release();
  EpochShared* shared = reader->shared_;
  XT_ASSERT(reader->slot_ < shared->slot_count);
  tag_ = shared->global.load(std::memory_order_seq_cst);
  prev_ = reader->newest_;
  next_ = nullptr;
  if (prev_ == nullptr) {
    reader->oldest_ = this;
    // The fence makes the store visible before the caller loads a published epoch; see the header.
    // With an older pin in the slot nothing needs to be stored: that pin protects more.
    shared->slots[reader->slot_].tag.store(tag_, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  } else {
    prev_->next_ = this;
  }
  reader->newest_ = this;
  reader_ = reader;
}

void EpochPin::Release() {
  if (reader_ == nullptr) return;
  if (next_ != nullptr) {
    next_->prev_ = prev_;
  } else {
    reader_->newest_ = prev_;
  }
  if (prev_ != nullptr) {
    prev_->next_ = next_;
  } else {
    reader_->oldest_ = next_;
    // Release order: everything that was read under this pin happened before the reuse.
    reader_->shared_->slots[reader_->slot_].tag.store(next_ != nullptr ? next_->tag_ : 0,
                                                      std::memory_order_release);
  }
  reader_ = nullptr;
  prev_ = next_ = nullptr;
}

}  // namespace xtree
