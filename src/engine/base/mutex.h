// A std::mutex that clang's thread-safety analysis understands; libstdc++'s own is not annotated.
// Threads: any. Under the host a process has one thread of its own; only the engine's threads meet.
#pragma once

#include <mutex>

#include "base/macros.h"

namespace xtree {

class XT_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  // The names that std::unique_lock and std::condition_variable_any expect.
  void lock() XT_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() XT_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  bool try_lock() XT_THREAD_ATTRIBUTE(try_acquire_capability(true)) { return mutex_.try_lock(); }

 private:
  std::mutex mutex_;
};

// Holds a Mutex while it lives.
class XT_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) XT_THREAD_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_->lock();
  }
  ~MutexLock() XT_THREAD_ATTRIBUTE(release_capability()) { mutex_->unlock(); }
  MutexLock(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

}  // namespace xtree
