#include "segment/window_manager.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "io/mapping_guard.h"

namespace xtree {

namespace {
constexpr size_t kSlotsBytes = kWindowsMax * sizeof(std::atomic<std::byte*>);
}  // namespace

WindowManager::WindowManager(FileSystem* fs, WindowBudget* budget, std::string path)
    : fs_(fs), budget_(budget), path_(std::move(path)) {}

WindowManager::~WindowManager() {
  DropAll();
  if (std::atomic<std::byte*>* more = more_.load(std::memory_order_relaxed)) munmap(more, kSlotsBytes);
}

void WindowManager::MakeSlots() {
  // Anonymous memory is zero and costs a page only where a window is used.
  void* memory =
      mmap(nullptr, kSlotsBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  more_.store(static_cast<std::atomic<std::byte*>*>(memory), std::memory_order_release);
}

std::string WindowManager::SegmentPath(uint32_t window) const {
  return window == 0 ? path_ : path_ + "." + std::to_string(window);
}

Result<std::byte*> WindowManager::EnsureMapped(uint32_t window) {
  if (window >= kWindowsMax) {
    return Status::Corruption("block %llu of \"%s\" is beyond the largest possible file",
                              static_cast<unsigned long long>(window) * kWindowBlocks,
                              path_.c_str());
  }
  MutexLock lock(&budget_->mutex_);
  if (std::byte* mapped = base(window)) return mapped;
  if (Slot(window) == nullptr) MakeSlots();
  budget_->MakeRoom(this);
  const auto map = [&] {
    const std::string path = SegmentPath(window);
    return keeps_private() ? fs_->MapPrivate(path.c_str(), kWindowBytes)
                           : fs_->Map(path.c_str(), kWindowBytes, true);
  };
  Result<std::byte*> result = map();
  // The kernel may allow less than the budget does (address space, number of mappings).
  if (result.status().code() == Code::kOutOfMemory && budget_->EvictUnpinned()) {
    result = map();
  }
  XT_ASSIGN_OR_RETURN(std::byte* mapped, std::move(result));
  try {
    GuardMapping(mapped, kWindowBytes, &faults_);
  } catch (...) {
    fs_->Unmap(mapped, kWindowBytes);
    throw;
  }
  if (mapped_here_ == 0) budget_->PushNewest(this);
  ++mapped_here_;
  if (window >= windows_end_) windows_end_ = window + 1;
  budget_->windows_mapped_.fetch_add(1, std::memory_order_relaxed);
  budget_->mapped_peak_ = std::max(budget_->mapped_peak_, budget_->windows_mapped());
  ++budget_->maps_;
  if (budget_->windows_mapped() > budget_->windows_max()) {
    trim_wanted_.store(true, std::memory_order_relaxed);
  }
  Slot(window)->store(mapped, std::memory_order_release);
  return mapped;
}

Result<std::byte*> WindowManager::MapBlock(uint32_t block) {
  if (std::byte* address = BlockAddress(block)) return address;
  XT_ASSIGN_OR_RETURN(std::byte* mapped, EnsureMapped(block / kWindowBlocks));
  return mapped + uint64_t{block % kWindowBlocks} * kBlockBytes;
}

void WindowManager::KeepPrivate() {
  XT_ASSERT(windows_end_ == 0 && fs_->CanMapPrivate());
  unsaved_ = std::make_unique<std::atomic<uint8_t>[]>(kWindowsMax);
}

void WindowManager::SaveBegins() {
  for (uint32_t w = 0; keeps_private() && w < kWindowsMax; ++w) {
    if (unsaved_[w].load(std::memory_order_relaxed) != 0) {
      unsaved_[w].store(kSaving, std::memory_order_relaxed);
    }
  }
}

void WindowManager::SaveEnds(bool saved) {
  for (uint32_t w = 0; keeps_private() && w < kWindowsMax; ++w) {
    const uint8_t state = unsaved_[w].load(std::memory_order_relaxed);
    if ((state & kSaving) == 0) continue;
    unsaved_[w].store(saved ? state & kUnsaved : kUnsaved, std::memory_order_relaxed);
  }
}

Status WindowManager::Save(uint32_t block, uint32_t blocks) {
  if (!keeps_private()) return Status::Ok();
  const uint32_t window = block / kWindowBlocks;
  std::byte* address = BlockAddress(block);
  XT_ASSERT(address != nullptr && (block + blocks - 1) / kWindowBlocks == window);
  return fs_->WritePrivate(SegmentPath(window).c_str(),
                           uint64_t{block % kWindowBlocks} * kBlockBytes, address,
                           uint64_t{blocks} * kBlockBytes);
}

void WindowManager::Forget(uint32_t block, uint32_t blocks) {
  std::byte* address = keeps_private() ? BlockAddress(block) : nullptr;
  if (address != nullptr) fs_->ForgetPrivate(address, uint64_t{blocks} * kBlockBytes);
}

void WindowManager::DropAll() {
  MutexLock lock(&budget_->mutex_);
  XT_ASSERT(pins() == 0);
  for (uint32_t w = 0; keeps_private() && w < kWindowsMax; ++w) {
    unsaved_[w].store(0, std::memory_order_relaxed);
  }
  if (mapped_here_ != 0) budget_->Unlist(this);
  for (uint32_t i = 0; i < windows_end_; ++i) {
    if (std::byte* mapped = Slot(i)->exchange(nullptr, std::memory_order_acq_rel)) {
      UnmapWindow(mapped);
      budget_->windows_mapped_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  mapped_here_ = 0;
  windows_end_ = 0;
  faults_.store(0, std::memory_order_relaxed);
}

void WindowManager::UnmapWindow(std::byte* base) {
  UnguardMapping(base);
  fs_->Unmap(base, kWindowBytes);
}

Status WindowManager::FaultStatus(uint32_t file_blocks) const {
  uint64_t blocks = 0;
  for (uint32_t w = 0; blocks < file_blocks; ++w) {
    const std::string path = SegmentPath(w);
    const uint32_t expected = std::min(file_blocks - w * kWindowBlocks, kWindowBlocks);
    auto info = fs_->Stat(path.c_str());
    const uint64_t found = info.ok() ? info->size_bytes / kBlockBytes : 0;
    if (found < expected) {
      return Status::Corruption("file \"%s\" has %llu blocks where %u belong", path.c_str(),
                                static_cast<unsigned long long>(found), expected);
    }
    blocks += expected;
  }
  return Status::Make(Code::kIoError,
                      "a page of file \"%s\" could not be read or written through its mapping",
                      path_.c_str());
}

void WindowBudget::MakeRoom(const WindowManager* for_whom) {
  if (windows_mapped() < windows_max_) return;
  uint32_t listed = 0;
  for (WindowManager* m = lru_head_; m != nullptr; m = m->lru_next_) ++listed;
  // Twice around at most: a handle that was pinned since it was last looked at gets a second
  // chance, because its fast path never comes here to move it up the list.
  for (uint32_t turn = 0; turn < 2 * listed; ++turn) {
    WindowManager* candidate = lru_head_;
    if (candidate == nullptr || windows_mapped() < windows_max_) return;
    const bool recent = candidate->recent_.exchange(false, std::memory_order_relaxed);
    const uint32_t excess = windows_mapped() - windows_max_ + 1;
    if (candidate == for_whom || recent || !candidate->TryEvict(excess)) {
      Unlist(candidate);
      PushNewest(candidate);
    }
  }
}

bool WindowBudget::EvictUnpinned() {
  const uint64_t before = evictions();
  WindowManager* next = nullptr;
  for (WindowManager* m = lru_head_; m != nullptr; m = next) {
    next = m->lru_next_;  // An eviction may take it off the list.
    m->TryEvict(WindowManager::kEvictWindowsMax);
  }
  return evictions() != before;
}

void WindowManager::Trim() {
  MutexLock lock(&budget_->mutex_);
  trim_wanted_.store(false, std::memory_order_relaxed);
  if (budget_->windows_mapped() > budget_->windows_max() &&
      !TryEvict(budget_->windows_mapped() - budget_->windows_max())) {
    trim_wanted_.store(true, std::memory_order_relaxed);  // Pinned again: that pin's end will do.
  }
}

void WindowManager::AwaitEviction() { MutexLock lock(&budget_->mutex_); }

bool WindowManager::TryEvict(uint32_t windows_max) {
  if (mapped_here_ == 0) return true;
  evicting_.store(true, std::memory_order_seq_cst);
  if (pins_.load(std::memory_order_seq_cst) != 0) {
    evicting_.store(false, std::memory_order_release);
    return false;
  }
  uint32_t count = 0;
  windows_max = std::min(windows_max, kEvictWindowsMax);
  for (uint32_t looked = 0; looked < windows_end_ && count < windows_max; ++looked) {
    if (evict_hand_ >= windows_end_) evict_hand_ = 0;
    const uint32_t window = evict_hand_++;
    if (keeps_private() && unsaved_[window].load(std::memory_order_relaxed) != 0) continue;
    if (std::byte* mapped = Slot(window)->exchange(nullptr, std::memory_order_acq_rel)) {
      UnmapWindow(mapped);
      ++count;
    }
  }
  budget_->windows_mapped_.fetch_sub(count, std::memory_order_relaxed);
  budget_->evictions_.fetch_add(count, std::memory_order_relaxed);
  mapped_here_ -= count;
  if (mapped_here_ == 0) {
    windows_end_ = 0;
    budget_->Unlist(this);
  }
  evicting_.store(false, std::memory_order_release);
  return true;
}

WindowStats WindowBudget::stats() {
  MutexLock lock(&mutex_);
  WindowStats stats;
  stats.windows_max = windows_max_;
  stats.mapped = windows_mapped();
  stats.mapped_peak = mapped_peak_;
  stats.maps = maps_;
  stats.evictions = evictions();
  for (WindowManager* m = lru_head_; m != nullptr; m = m->lru_next_) {
    const uint32_t pins = m->pins();
    stats.pins += pins;
    stats.pinned_handles += pins != 0;
  }
  return stats;
}

void WindowBudget::PushNewest(WindowManager* manager) {
  manager->lru_prev_ = lru_tail_;
  manager->lru_next_ = nullptr;
  (lru_tail_ != nullptr ? lru_tail_->lru_next_ : lru_head_) = manager;
  lru_tail_ = manager;
}

void WindowBudget::Unlist(WindowManager* manager) {
  WindowManager* prev = manager->lru_prev_;
  WindowManager* next = manager->lru_next_;
  (prev != nullptr ? prev->lru_next_ : lru_head_) = next;
  (next != nullptr ? next->lru_prev_ : lru_tail_) = prev;
  manager->lru_prev_ = manager->lru_next_ = nullptr;
}

}  // namespace xtree
