#include "checkpoint/checkpoint_coordinator.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>

namespace xtree {

namespace {

// A fold rewrites up to all nodes, however little of each has changed. So under a fixed limit an index
// ten times as large would be written ten times as often for the same insertions.
uint64_t GrownSoftLimit(const FoldPolicy& policy, uint64_t data_bytes) {
  return std::max(policy.log_bytes_soft, data_bytes / 100 * policy.log_percent);
}

}  // namespace

uint64_t HardLogLimit(const FoldPolicy& policy, uint64_t data_bytes) {
  const uint64_t soft = std::max<uint64_t>(policy.log_bytes_soft, 1);
  const uint64_t times = std::max<uint64_t>(policy.log_bytes_hard / soft, 1);
  return std::max(policy.log_bytes_hard, GrownSoftLimit(policy, data_bytes) * times);
}

bool MustFoldNow(const FoldPolicy& policy, const FoldInputs& inputs) {
  if (inputs.log_bytes == 0) return false;
  if (inputs.log_bytes >= HardLogLimit(policy, inputs.data_bytes)) return true;
  return policy.unsaved_bytes_max != 0 && inputs.unsaved_bytes / 2 >= policy.unsaved_bytes_max;
}

FoldDecision DecideFold(const FoldPolicy& policy, const FoldInputs& inputs) {
  if (inputs.log_bytes == 0) return FoldDecision::kNone;
  if (MustFoldNow(policy, inputs)) return FoldDecision::kNow;
  if (policy.unsaved_bytes_max != 0 && inputs.unsaved_bytes >= policy.unsaved_bytes_max) {
    return FoldDecision::kBackground;
  }
  if (inputs.log_bytes >= GrownSoftLimit(policy, inputs.data_bytes)) return FoldDecision::kBackground;
  if (inputs.oldest_op_age_ms >= policy.age_ms_max) return FoldDecision::kBackground;
  const uint64_t replay_ms = inputs.ops_since_fold * inputs.replay_ns_per_op / 1'000'000;
  if (replay_ms >= policy.recovery_ms_target) return FoldDecision::kBackground;
  // Both factors are bounded far below 2^57, so the products do not overflow.
  if (inputs.log_bytes >= policy.log_bytes_min &&
      inputs.log_bytes * 100 >= inputs.data_bytes * policy.dirty_percent_max) {
    return FoldDecision::kBackground;
  }
  return FoldDecision::kNone;
}

void CheckpointCoordinator::Start() {
  XT_ASSERT(!thread_.joinable());
  // The thread inherits the mask: signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void CheckpointCoordinator::Stop() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void CheckpointCoordinator::Poke() {
  {
    MutexLock lock(&mutex_);
    poked_ = true;
  }
  wake_.notify_all();
}

void CheckpointCoordinator::Run() {
  mutex_.lock();
  while (!stop_) {
    // Waking up for no reason costs one tick.
    if (!poked_) wake_.wait_for(mutex_, std::chrono::milliseconds(interval_ms_));
    if (stop_) break;
    poked_ = false;
    mutex_.unlock();
    tick_();
    mutex_.lock();
  }
  mutex_.unlock();
}

}  // namespace xtree
