// Growable arrays in memory that several processes share.
//
// An index's volatile state (object table, versions, segment bitmaps) lives in shared memory under
// the host, in the heap standalone. The engine never calls up, so it cannot allocate shared memory
// itself: a growing array returns kNeedMemory and leaves a ChunkRequest; the owner of the memory
// (the access method, or HeapChunks standalone) provides a zeroed chunk and retries. Level L of an
// array has (kBase << L) elements, so an array of any size has few chunks and an element is found
// with one clz and one process-local pointer.
//
// Threads: operator[] from any thread, for indexes below a capacity that the reader learned through
// an acquire load (an epoch, a count). Growing: under the index's writer lock.
// Ownership: the chunks belong to the provider.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>

#include "base/macros.h"

namespace xtree {

inline constexpr uint32_t kArrayLevelsMax = 26;

// In shared memory. All zero is an empty array.
struct ArrayDirectory {
  std::atomic<uint32_t> levels;                 // Levels provided; never decreases.
  uint32_t reserved;
  std::atomic<uint64_t> refs[kArrayLevelsMax];  // The provider's name of each level's chunk.
};

// What the provider must hand over next: `bytes` zeroed bytes for level `level` of array `array`.
struct ChunkRequest {
  uint32_t array;
  uint32_t level;
  uint64_t bytes;
};

// Process-local view of one array. T is trivially copyable or made of atomics; all zero is valid.
template <class T, uint32_t kBaseShift>
class SharedArray {
 public:
  static constexpr uint64_t kBase = uint64_t{1} << kBaseShift;

  void Attach(ArrayDirectory* directory) { directory_ = directory; }

  static uint64_t LevelBytes(uint32_t level) { return (kBase << level) * sizeof(T); }
  static uint64_t CapacityOf(uint32_t levels) {
    return ((uint64_t{1} << levels) - 1) << kBaseShift;
  }
  uint64_t capacity() const {
    return CapacityOf(directory_->levels.load(std::memory_order_acquire));
  }
  // Levels that exist in shared memory but have no local address yet.
  bool MissingLevel(uint32_t* level) const {
    const uint32_t levels = directory_->levels.load(std::memory_order_acquire);
    for (uint32_t l = attached_; l < levels; ++l) {
      if (local_[l] == nullptr) {
        *level = l;
        return true;
      }
    }
    return false;
  }
  // Whether this process can reach every element that exists. From any thread.
  bool FullyAttached() const {
    const uint32_t levels = directory_->levels.load(std::memory_order_acquire);
    return levels == 0 || local_[levels - 1] != nullptr;  // Levels are attached in order.
  }
  // Elements below this can be read. An index that comes from a file must be compared with it;
  // whoever learned of an element from its publication sees a value beyond it.
  uint64_t reach() const { return reach_.load(std::memory_order_relaxed); }
  // Gives level `level` its address in this process, and publishes it if it is new.
  void Provide(uint32_t level, uint64_t ref, void* address) {
    XT_ASSERT(level < kArrayLevelsMax && local_[level] == nullptr);
    local_[level] = static_cast<T*>(address);
    while (attached_ < kArrayLevelsMax && local_[attached_] != nullptr) ++attached_;
    reach_.store(CapacityOf(attached_), std::memory_order_relaxed);
    if (level == directory_->levels.load(std::memory_order_relaxed)) {
      directory_->refs[level].store(ref, std::memory_order_relaxed);
      directory_->levels.store(level + 1, std::memory_order_release);
    }
  }
  uint64_t ref(uint32_t level) const {
    return directory_->refs[level].load(std::memory_order_relaxed);
  }
  void* local(uint32_t level) const { return local_[level]; }

  T& operator[](uint64_t index) const {
    const uint64_t q = (index >> kBaseShift) + 1;
    const uint32_t level = 63 - static_cast<uint32_t>(std::countl_zero(q));
    return local_[level][index - (((uint64_t{1} << level) - 1) << kBaseShift)];
  }

 private:
  ArrayDirectory* directory_ = nullptr;
  T* local_[kArrayLevelsMax] = {};
  uint32_t attached_ = 0;  // Levels [0, attached_) have local addresses.
  std::atomic<uint64_t> reach_{0};
};

}  // namespace xtree
