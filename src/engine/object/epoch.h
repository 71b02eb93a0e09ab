// Epoch-based reclamation: which retired versions may a reader still hold?
//
// Two counters, on purpose. An *index epoch* (IndexShared::published_epoch) numbers the structure
// changes of one index and decides which version a reader sees. The *global tag* orders retirements
// against readers over all indexes: a version is retired with tag = ++global taken *after* the change
// was published, and a reader stores the global counter into its slot, fences, and only then loads
// the index's published epoch. So a slot value >= tag proves that the reader saw the change.
//
// What may be stale: a slot may hold an older value than its reader needs (the process's minimum, or
// a reader that has just finished). That only delays reclamation, never frees too early. The store is
// followed by a full fence because a slot seen too late would be the unsafe direction.
//
// Source: Fraser, "Practical lock-freedom", 2004, section 5.2.3 (epochs); LMDB's reader table.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/macros.h"

namespace xtree {

// One reader process (host) or thread (standalone). 0 = idle.
struct alignas(64) EpochSlot {
  std::atomic<uint64_t> tag;
  std::atomic<uint32_t> owner;  // Standalone: nonzero while a thread owns the slot.
  uint32_t reserved[13];
};
static_assert(sizeof(EpochSlot) == 64);

// In shared memory, followed by `slot_count` slots.
struct EpochShared {
  std::atomic<uint64_t> global;  // Starts at 1.
  uint32_t slot_count;
  uint32_t reserved[13];
  EpochSlot slots[1];

  static uint64_t BytesFor(uint32_t slots) {
    return sizeof(EpochShared) + (slots - 1) * sizeof(EpochSlot);
  }
};

void InitEpochShared(EpochShared* shared, uint32_t slot_count);
// Retirement tag: call after the change is published.
inline uint64_t NextRetireTag(EpochShared* shared) {
  return shared->global.fetch_add(1, std::memory_order_seq_cst) + 1;
}
// The smallest tag any reader holds, or the current global value if all are idle. A version with
// retire tag <= this may be reused as far as readers are concerned.
// The answer stays right: what no reader needed once, no later reader needs.
uint64_t MinReaderTag(const EpochShared* shared);
// The slot that holds the oldest tag, and how many retirements there have been since; false if all are
// idle. For reports: both may have changed.
bool OldestReader(const EpochShared* shared, uint32_t* slot_index, uint64_t* retirements);
// Standalone: takes a slot that no thread owns, or returns false; and gives it back, idle.
bool ClaimEpochSlot(EpochShared* shared, uint32_t* slot_index);
void ReleaseEpochSlot(EpochShared* shared, uint32_t slot_index);

// The live pins of one slot. The slot holds the minimum over them (the oldest pin's tag).
// Threads: one (the slot's owner).
class EpochPin;
class EpochReader {
 public:
  EpochReader(EpochShared* shared, uint32_t slot_index) : shared_(shared), slot_(slot_index) {}
  EpochReader(const EpochReader&) = delete;
  uint32_t slot_index() const { return slot_; }

 private:
  friend class EpochPin;
  EpochShared* shared_;
  uint32_t slot_;
  EpochPin* oldest_ = nullptr;  // Doubly linked, oldest first.
  EpochPin* newest_ = nullptr;
};

// A pin: while it lives, no version retired after it began is reused.
class EpochPin {
 public:
  EpochPin() = default;
  EpochPin(const EpochPin&) = delete;
  ~EpochPin() { Release(); }
  // After Acquire, load the index's published epoch.
  void Acquire(EpochReader* reader);
  void Release();
  bool held() const { return reader_ != nullptr; }
  uint64_t tag() const { return tag_; }

 private:
  friend class EpochReader;
  EpochReader* reader_ = nullptr;
  EpochPin* prev_ = nullptr;
  EpochPin* next_ = nullptr;
  uint64_t tag_ = 0;
};

}  // namespace xtree
