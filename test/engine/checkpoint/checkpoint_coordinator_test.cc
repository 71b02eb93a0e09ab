// Goal: an index is folded when its log, its age or its recovery time asks for it, and not before;
// the background thread runs, wakes and stops.
// Method: the decision is a pure function, so each rule is met alone, on either side of its limit.
#include "checkpoint/checkpoint_coordinator.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace xtree {
namespace {

constexpr FoldPolicy kPolicy{1000, 4000, 60'000, 50, 100, 5000};

FoldInputs Quiet() { return FoldInputs{10, 1, 100'000, 0, 1000}; }

TEST(DecideFold, AnEmptyLogNeedsNoFold) {
  FoldInputs inputs = Quiet();
  inputs.log_bytes = 0;
  inputs.oldest_op_age_ms = 1'000'000;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
}

TEST(DecideFold, EachLimitIsMetAlone) {
  EXPECT_EQ(DecideFold(kPolicy, Quiet()), FoldDecision::kNone);
  FoldInputs inputs = Quiet();
  inputs.log_bytes = 999;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
  inputs.log_bytes = 1000;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kBackground);
  inputs.log_bytes = 4000;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNow);
  inputs = Quiet();
  inputs.oldest_op_age_ms = 60'000;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kBackground);
  inputs = Quiet();
  inputs.ops_since_fold = 5'000'000;  // A microsecond each.
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kBackground);
  inputs.ops_since_fold = 4'999'999;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
}

TEST(DecideFold, ASmallIndexFoldsEarlyButNotForALittleLog) {
  FoldInputs inputs = Quiet();
  inputs.data_bytes = 200;
  inputs.log_bytes = 99;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
  inputs.log_bytes = 100;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kBackground);
  inputs.data_bytes = 201;
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
}

TEST(DecideFold, TheLogOfALargeIndexMayBeAShareOfItsData) {
  FoldPolicy policy = kPolicy;
  policy.log_percent = 25;
  FoldInputs inputs = Quiet();
  inputs.log_bytes = 24'999;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kNone);
  inputs.log_bytes = 25'000;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kBackground);
  EXPECT_EQ(HardLogLimit(policy, inputs.data_bytes), 100'000u);
  inputs.log_bytes = 100'000;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kNow);
  // The recovery time still counts, and a small index keeps its limits.
  inputs.log_bytes = 10;
  inputs.ops_since_fold = 5'000'000;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kBackground);
  inputs = Quiet();
  inputs.data_bytes = 3'000;
  inputs.log_bytes = 1000;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kBackground);
  EXPECT_EQ(HardLogLimit(policy, inputs.data_bytes), 4000u);
}

TEST(DecideFold, ChangesHeldInMemoryAreLimitedOnceThereIsALog) {
  FoldPolicy policy = kPolicy;
  policy.unsaved_bytes_max = 500;
  FoldInputs inputs = Quiet();
  inputs.unsaved_bytes = 499;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kNone);
  inputs.unsaved_bytes = 500;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kBackground);
  EXPECT_FALSE(MustFoldNow(policy, inputs));
  inputs.unsaved_bytes = 1000;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kNow);
  EXPECT_TRUE(MustFoldNow(policy, inputs));
  EXPECT_EQ(DecideFold(kPolicy, inputs), FoldDecision::kNone);
  inputs.log_bytes = 0;
  EXPECT_EQ(DecideFold(policy, inputs), FoldDecision::kNone);
  EXPECT_FALSE(MustFoldNow(policy, inputs));
}

TEST(CheckpointCoordinator, TicksByItselfAndWhenPokedWithAllSignalsBlocked) {
  std::atomic<int> ticks{0};
  std::atomic<bool> blocked{false};
  CheckpointCoordinator coordinator(3'600'000, [&] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGALRM) == 1;
    ++ticks;
  });
  coordinator.Start();
  coordinator.Poke();
  while (ticks == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(blocked);
  coordinator.Stop();
  coordinator.Stop();
  std::atomic<int> own{0};
  CheckpointCoordinator fast(1, [&] { ++own; });
  fast.Start();
  while (own < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace
}  // namespace xtree
