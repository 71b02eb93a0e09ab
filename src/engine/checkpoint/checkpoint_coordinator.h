// CheckpointCoordinator: decides when an index is folded, and (standalone) does it in the background.
//
// The decision is a pure function of counters, so that the host's workers and the tests share it.
// Threads: Decide from any thread. Start/Stop/Run: one background thread, all signals blocked.
#pragma once

#include <cstdint>

namespace xtree {

struct FoldPolicy {
  uint64_t log_bytes_soft;      // Fold in the background from here,
  uint64_t log_bytes_hard;      // in the writer itself from here.
  uint64_t age_ms_max;          // Oldest unfolded operation.
  uint32_t dirty_percent_max;   // Log bytes against data bytes: small indexes fold early, cheaply.
  uint64_t recovery_ms_target;  // Estimated replay time (ops x measured cost).
};

struct FoldInputs {
  uint64_t log_bytes;
  uint64_t ops_since_fold;
  uint64_t data_bytes;
  uint64_t oldest_op_age_ms;
  uint64_t replay_ns_per_op;
};

enum class FoldDecision : uint8_t { kNone, kBackground, kNow };

FoldDecision DecideFold(const FoldPolicy& policy, const FoldInputs& inputs);

}  // namespace xtree
