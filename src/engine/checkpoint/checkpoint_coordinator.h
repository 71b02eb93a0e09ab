// CheckpointCoordinator: decides when an index is folded, and (standalone) runs what does it in the
// background.
//
// The decision is a pure function of counters, so that the host's workers and the tests share it.
// Threads: DecideFold from any thread. The coordinator has one background thread, all signals
//          blocked; Poke from any thread, Start and Stop from the owner's.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace xtree {

struct FoldPolicy {
  uint64_t log_bytes_soft;      // Fold in the background from here,
  uint64_t log_bytes_hard;      // in the writer itself from here.
  uint64_t age_ms_max;          // Oldest unfolded operation.
  uint32_t dirty_percent_max;   // Log bytes against data bytes: small indexes fold early, cheaply,
  uint64_t log_bytes_min;       // but not before this much log is there.
  uint64_t recovery_ms_target;  // Estimated replay time (ops x measured cost).
  uint32_t log_percent = 0;     // Both log limits grow with the index: the soft one is at least this
                                // share of the data, so that folds cost a share of what is inserted.
  uint64_t unsaved_bytes_max = 0;  // Changed blocks held in memory: fold in the background from here, in the
                                   // writer from twice that. 0: no limit.
};

struct FoldInputs {
  uint64_t log_bytes;
  uint64_t ops_since_fold;
  uint64_t data_bytes;
  uint64_t oldest_op_age_ms;
  uint64_t replay_ns_per_op;
  uint64_t unsaved_bytes = 0;
};

enum class FoldDecision : uint8_t { kNone, kBackground, kNow };

// The hard limit for an index of this size. DecideFold applies it, and a writer where no background does.
uint64_t HardLogLimit(const FoldPolicy& policy, uint64_t data_bytes);
// Whether a writer must fold before it goes on, by either of the hard limits.
bool MustFoldNow(const FoldPolicy& policy, const FoldInputs& inputs);
FoldDecision DecideFold(const FoldPolicy& policy, const FoldInputs& inputs);

// Calls `tick` every `interval_ms`, and soon after each Poke, until stopped.
class CheckpointCoordinator {
 public:
  CheckpointCoordinator(uint32_t interval_ms, std::function<void()> tick)
      : interval_ms_(interval_ms), tick_(std::move(tick)) {}
  ~CheckpointCoordinator() { Stop(); }
  CheckpointCoordinator(const CheckpointCoordinator&) = delete;

  void Start();
  void Stop();  // Waits for a running tick. Idempotent.
  void Poke();

 private:
  void Run();

  const uint32_t interval_ms_;
  const std::function<void()> tick_;
  std::thread thread_;
  Mutex mutex_;
  std::condition_variable_any wake_;
  bool stop_ XT_GUARDED_BY(mutex_) = false;
  bool poked_ XT_GUARDED_BY(mutex_) = false;
};

}  // namespace xtree
