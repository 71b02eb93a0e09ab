// SpinLatch: holds a word in shared memory for a few instructions.
//
// Under the host the word is shared by processes. One that dies while it holds it takes the shared memory
// with it, since the host then restarts all of them; and nothing that the holder calls can raise, look for
// interrupts, or wait for more than a page fault. The word never lies in a file's mapping, which outlives a
// crash.
//
// Threads: any. Not recursive. The holder takes no other latch and no lock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "base/macros.h"

namespace xtree {

// Between two looks at a word that another processor is about to change.
inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class SpinLatch {
 public:
  explicit SpinLatch(std::atomic<uint32_t>* word) : word_(*word) {
    if (XT_LIKELY(word_.exchange(1, std::memory_order_acquire) == 0)) return;
    waited_ = true;
    uint32_t tries = 0;
    do {
      // Held for some hundred instructions; but the holder may have been preempted, or have met a page that is
      // being written.
      while (word_.load(std::memory_order_relaxed) != 0) {
        if (++tries < kTriesBeforeYield) {
          CpuRelax();
        } else if (tries % kTriesBeforeSleep != 0) {
          std::this_thread::yield();
        } else {
          std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
      }
    } while (word_.exchange(1, std::memory_order_acquire) != 0);
  }
  ~SpinLatch() { word_.store(0, std::memory_order_release); }
  SpinLatch(const SpinLatch&) = delete;
  bool waited() const { return waited_; }

 private:
  static constexpr uint32_t kTriesBeforeYield = 32;
  static constexpr uint32_t kTriesBeforeSleep = 64;
  std::atomic<uint32_t>& word_;
  bool waited_ = false;
};

}  // namespace xtree
