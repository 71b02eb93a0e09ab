// Locks that clang's thread-safety analysis understands; libstdc++'s own are not annotated.
// Threads: any. Under the host a process has one thread of its own; only the engine's threads meet.
#pragma once

#include <pthread.h>

#include <mutex>

#include "base/macros.h"
#include "base/spin_latch.h"

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

// For one, or for several at a time that share it. Of the C library's kinds the one that does not hand the
// lock over: where processors are scarce, everybody would wait for the next one to be scheduled. It lets who
// shares it go before who waits for it alone; its users see to it that this has an end. Who finds it taken looks
// again for some microseconds: most holders are done by then, and to sleep and be woken takes longer.
// A cache line of its own, since all who share it store to it.
class XT_THREAD_ATTRIBUTE(capability("mutex")) alignas(64) SharedMutex {
 public:
  SharedMutex() = default;
  SharedMutex(const SharedMutex&) = delete;
  void lock() XT_THREAD_ATTRIBUTE(acquire_capability()) {
    LockUnless([] { return false; });
  }
  // False, and not locked, if `needless` came true before it could be had.
  template <class Condition>
  bool LockUnless(const Condition& needless) XT_THREAD_ATTRIBUTE(try_acquire_capability(true)) {
    for (uint32_t i = 0; i < kTriesBeforeSleep; ++i, CpuRelax()) {
      if (needless()) return false;
      if (pthread_rwlock_trywrlock(&lock_) == 0) return true;
    }
    pthread_rwlock_wrlock(&lock_);
    return true;
  }
  void unlock() XT_THREAD_ATTRIBUTE(release_capability()) { pthread_rwlock_unlock(&lock_); }
  bool try_lock() XT_THREAD_ATTRIBUTE(try_acquire_capability(true)) {
    return pthread_rwlock_trywrlock(&lock_) == 0;
  }
  void lock_shared() XT_THREAD_ATTRIBUTE(acquire_shared_capability()) {
    for (uint32_t i = 0; i < kTriesBeforeSleep; ++i, CpuRelax()) {
      if (pthread_rwlock_tryrdlock(&lock_) == 0) return;
    }
    pthread_rwlock_rdlock(&lock_);
  }
  void unlock_shared() XT_THREAD_ATTRIBUTE(release_shared_capability()) {
    pthread_rwlock_unlock(&lock_);
  }
  bool try_lock_shared() XT_THREAD_ATTRIBUTE(try_acquire_shared_capability(true)) {
    return pthread_rwlock_tryrdlock(&lock_) == 0;
  }

 private:
  static constexpr uint32_t kTriesBeforeSleep = 400;  // Some 20 us.
  pthread_rwlock_t lock_ = PTHREAD_RWLOCK_INITIALIZER;
};

// Holds a SharedMutex alone while it lives.
class XT_THREAD_ATTRIBUTE(scoped_lockable) ExclusiveLock {
 public:
  explicit ExclusiveLock(SharedMutex* mutex) XT_THREAD_ATTRIBUTE(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_->lock();
  }
  ~ExclusiveLock() XT_THREAD_ATTRIBUTE(release_capability()) { mutex_->unlock(); }
  ExclusiveLock(const ExclusiveLock&) = delete;

 private:
  SharedMutex* const mutex_;
};

}  // namespace xtree
