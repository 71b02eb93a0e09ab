// Maps 1 GiB windows of an index's data file, lazily, within a budget.
//
// Window i is the whole of file segment i ("NAME", "NAME.1", ...), mapped shared and writable at its
// full 1 GiB even while the file is shorter, so that growth needs no remapping. Readers use
// `base(i)`, one load; everything else is here.
//
// Ownership:   a WindowManager belongs to one index handle in one process; a WindowBudget is shared by
//              all handles of the process and outlives them.
// Threads:     base() from any thread that holds a WindowPin. EnsureMapped from any thread.
// Pins:        a pin covers all windows of its index. Eviction clears `base`, fences, and unmaps only
//              if no pin is held; a pinner counts itself, fences, then reads `base`. One of the two
//              always sees the other.
// Budget:      soft: windows of pinned indexes stay, even over the budget, until the last pin goes.
//              Eviction is by index handle, oldest first, with a second chance for those pinned since
//              the last look; within a handle in turn, as many windows as needed. Where the kernel
//              refuses a mapping for want of memory, all handles that are not pinned give way first.
// Private:     with KeepPrivate, what is stored stays in the process's memory until Save writes it
//              (FileSystem::MapPrivate). A window with blocks that were handed out since the last capture, and so
//              may hold such stores, is not evicted; DropAll forgets them.
// Descriptors: none is kept after mapping.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/macros.h"
#include "base/mutex.h"
#include "base/status.h"
#include "io/file_system.h"
#include "segment/block.h"

namespace xtree {

inline constexpr uint32_t kWindowsMax = 4096;  // 4 TiB an index.

class WindowManager;

// What a process's windows cost: counted since its budget was made, but for `mapped`, `pinned_handles`
// and `pins`, which are now.
struct WindowStats {
  uint32_t windows_max = 0;     // The budget.
  uint32_t mapped = 0;
  uint32_t mapped_peak = 0;     // Above the budget if so many were pinned at once.
  uint32_t pinned_handles = 0;  // Index handles with mapped windows that must stay, and
  uint32_t pins = 0;            // the scans and operations that hold them.
  uint64_t maps = 0;
  uint64_t evictions = 0;       // Windows unmapped to stay within the budget.
};

// Process-wide limits and the LRU list of index handles with mapped windows.
class WindowBudget {
 public:
  explicit WindowBudget(uint32_t windows_max) : windows_max_(windows_max) {}
  WindowBudget(const WindowBudget&) = delete;
  uint32_t windows_mapped() const { return windows_mapped_.load(std::memory_order_relaxed); }
  uint64_t evictions() const { return evictions_.load(std::memory_order_relaxed); }
  uint32_t windows_max() const { return windows_max_; }
  WindowStats stats() XT_EXCLUDES(mutex_);

 private:
  friend class WindowManager;
  // Evicts until one more window is within the budget, or nothing more can be evicted.
  void MakeRoom(const WindowManager* for_whom) XT_REQUIRES(mutex_);
  // Evicts from every handle that is not pinned. False if that freed nothing.
  bool EvictUnpinned() XT_REQUIRES(mutex_);
  void PushNewest(WindowManager* manager) XT_REQUIRES(mutex_);
  void Unlist(WindowManager* manager) XT_REQUIRES(mutex_);

  const uint32_t windows_max_;
  Mutex mutex_;
  WindowManager* lru_head_ XT_GUARDED_BY(mutex_) = nullptr;  // Least recently used first.
  WindowManager* lru_tail_ XT_GUARDED_BY(mutex_) = nullptr;
  std::atomic<uint32_t> windows_mapped_{0};
  std::atomic<uint64_t> evictions_{0};
  uint32_t mapped_peak_ XT_GUARDED_BY(mutex_) = 0;
  uint64_t maps_ XT_GUARDED_BY(mutex_) = 0;
};

class WindowManager {
 public:
  // `path` is segment 0; segment i > 0 is "path.i".
  WindowManager(FileSystem* fs, WindowBudget* budget, std::string path);
  ~WindowManager();  // Unmaps everything. No pin may be held.
  WindowManager(const WindowManager&) = delete;

  // Null if the window is not mapped.
  std::byte* base(uint32_t window) const {
    if (window < kFewWindows) return few_[window].load(std::memory_order_acquire);
    const std::atomic<std::byte*>* more = more_.load(std::memory_order_acquire);
    return more == nullptr ? nullptr : more[window].load(std::memory_order_acquire);
  }
  std::byte* BlockAddress(uint32_t block) const {  // Null if the window is not mapped.
    std::byte* b = base(block / kWindowBlocks);
    return b ? b + uint64_t{block % kWindowBlocks} * kBlockBytes : nullptr;
  }
  // Maps the window if it is not; may evict windows of unpinned indexes.
  Result<std::byte*> EnsureMapped(uint32_t window);
  // Mapped address of a block, mapping its window if needed.
  Result<std::byte*> MapBlock(uint32_t block);
  void Pin() {
    pins_.fetch_add(1, std::memory_order_seq_cst);
    // Either this sees the eviction, or the eviction sees the pin and touches nothing: from here on no
    // window goes.
    if (XT_UNLIKELY(evicting_.load(std::memory_order_seq_cst))) AwaitEviction();
    if (!recent_.load(std::memory_order_relaxed)) recent_.store(true, std::memory_order_relaxed);
  }
  void Unpin() {
    if (pins_.fetch_sub(1, std::memory_order_release) == 1 &&
        XT_UNLIKELY(trim_wanted_.load(std::memory_order_relaxed))) {
      Trim();
    }
  }
  // Pages of the windows that could not be had since they were mapped (io/mapping_guard.h). Not zero:
  // nothing that has been read is to be trusted, and DropAll is due.
  uint32_t faults() const { return faults_.load(std::memory_order_relaxed); }
  // What to say then. `file_blocks`: how long the file ought to be.
  Status FaultStatus(uint32_t file_blocks) const;
  uint32_t pins() const { return pins_.load(std::memory_order_relaxed); }
  // --- Private mappings, for a store that one process has to itself. REQUIRES: nothing is mapped yet.
  void KeepPrivate();
  bool keeps_private() const { return unsaved_ != nullptr; }
  // A block of this window is about to be stored to; until a capture that begins later is durable.
  // Writer lock, as the next three.
  void NoteUnsaved(uint32_t window) {
    if (keeps_private()) unsaved_[window].store(kUnsaved | unsaved_[window].load(std::memory_order_relaxed),
                                               std::memory_order_relaxed);
  }
  // A capture begins, which saves what has been stored to by now; it is durable, or has failed.
  void SaveBegins();
  void SaveEnds(bool saved);
  // Writes blocks that nobody stores to any more. Nothing to do for a shared mapping. REQUIRES: mapped, in
  // one window.
  Status Save(uint32_t block, uint32_t blocks);
  // Forgets what was stored to free blocks that have been punched. The same REQUIRES, but they need not be
  // mapped.
  void Forget(uint32_t block, uint32_t blocks);
  // Unmaps all windows (relcache invalidation). No pin may be held.
  void DropAll();
  std::string SegmentPath(uint32_t window) const;
  const std::string& path() const { return path_; }
  FileSystem* fs() const { return fs_; }

 private:
  static constexpr uint32_t kEvictWindowsMax = 64;  // Per turn.
  static constexpr uint8_t kUnsaved = 1;   // Of a window: stored to since the last capture began,
  static constexpr uint8_t kSaving = 2;    // before the one in the making did.

  friend class WindowBudget;
  // Unmaps up to `windows_max` windows if no pin is held; the handle leaves the list with its last
  // one. Under budget_->mutex_, which the analysis cannot follow from one handle to another.
  bool TryEvict(uint32_t windows_max) XT_THREAD_ATTRIBUTE(no_thread_safety_analysis);
  void UnmapWindow(std::byte* base);
  // Where the base of a window is kept: null if there is no room for it yet. Under budget_->mutex_.
  std::atomic<std::byte*>* Slot(uint32_t window) {
    if (window < kFewWindows) return &few_[window];
    std::atomic<std::byte*>* more = more_.load(std::memory_order_relaxed);
    return more == nullptr ? nullptr : &more[window];
  }
  // Makes room for all. Under budget_->mutex_.
  void MakeSlots();
  void AwaitEviction();
  // Unmaps what this handle has mapped over the budget.
  void Trim();

  FileSystem* const fs_;
  WindowBudget* const budget_;
  const std::string path_;
  // All threads of a process store here; apart from what every look-up reads.
  alignas(64) std::atomic<uint32_t> pins_{0};
  std::atomic<bool> evicting_{false};     // TryEvict is at work.
  std::atomic<bool> recent_{false};       // Pinned since eviction last looked.
  std::atomic<bool> trim_wanted_{false};  // Mapped a window over the budget.
  // Most indexes have few windows. For the others' there are kWindowsMax slots of lazily touched anonymous
  // memory, of which the first few stay unused; null before the first of them is mapped.
  static constexpr uint32_t kFewWindows = 4;
  alignas(64) std::atomic<std::byte*> few_[kFewWindows] = {};
  std::atomic<std::atomic<std::byte*>*> more_{nullptr};
  std::atomic<uint32_t> faults_{0};
  std::unique_ptr<std::atomic<uint8_t>[]> unsaved_;  // By window. Null: mappings are shared.
  // Guarded by budget_->mutex_.
  WindowManager* lru_prev_ = nullptr;
  WindowManager* lru_next_ = nullptr;
  uint32_t mapped_here_ = 0;  // The handle is on the list while this is not zero.
  uint32_t windows_end_ = 0;  // No window from here on is mapped.
  uint32_t evict_hand_ = 0;   // Where the last eviction stopped.
};

class WindowPin {
 public:
  explicit WindowPin(WindowManager* windows) : windows_(windows) { windows_->Pin(); }
  ~WindowPin() {
    if (windows_ != nullptr) windows_->Unpin();
  }
  WindowPin(const WindowPin&) = delete;
  // The pin stays, for whoever calls Unpin.
  void Keep() { windows_ = nullptr; }

 private:
  WindowManager* windows_;
};

}  // namespace xtree
