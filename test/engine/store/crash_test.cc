// Goal: whatever operation the power fails at, the index comes back with exactly the committed
// operations (EVENTUAL: a prefix of them), sound and usable; and a second failure during recovery
// changes nothing about that.
// Method: a script (create, bulk load, insert, delete, commit, checkpoint, reopen) on the simulated
// disk; the power fails at operation N, for every N until the script completes; the disk then keeps
// what one of several seeds chooses.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "store/crash_script.h"

namespace xtree {
namespace {

class CrashTest : public ::testing::TestWithParam<DurabilityMode> {};

TEST_P(CrashTest, EveryOperationOfAScriptMayBeTheLast) {
  const DurabilityMode mode = GetParam();
  ScriptSize size;
  // A sync for every row makes many operations; fewer rows will do.
  if (mode == DurabilityMode::kStrict) size = ScriptSize{60, 3, 20, 6, 1};
  const Script script = MakeScript(size, 1 + SeedOffset());
  const uint64_t seeds = 3 * LengthFactor();
  uint64_t crash_at = 0;
  for (;; crash_at += kStride) {
    SimFileSystem fs(crash_at + 1 + SeedOffset());
    fs.CrashAtOperation(crash_at);
    const Progress progress = RunScript(&fs, script, mode);
    SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " (" << fs.crash_operation()
                                      << "), step " << progress.attempted);
    ASSERT_EQ(fs.violations(), std::vector<std::string>());
    if (progress.complete) break;  // Every operation has had its turn.
    for (uint64_t seed = 1 + SeedOffset(); seed <= seeds + SeedOffset(); ++seed) {
      SCOPED_TRACE(::testing::Message() << "seed=" << seed);
      SimFileSystem after(seed);
      after.Load(fs.AfterPowerCut(seed));
      ExpectRecovers(&after, script, progress, mode);
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
  }
  EXPECT_GT(crash_at, 30u);
  printf("%lu crash points, %lu recoveries each\n", crash_at / kStride, seeds);
}

TEST_P(CrashTest, TheRecoveryMayBeCutShortAtEveryOperation) {
  const DurabilityMode mode = GetParam();
  const Script script = MakeScript(ScriptSize{60, 4, 20, 6, 1}, 2 + SeedOffset());
  const uint64_t stride = std::max<uint64_t>(13 * kStride / LengthFactor(), 1);
  uint64_t points = 0;
  for (uint64_t crash_at = 5;; crash_at += stride) {
    SimFileSystem fs(crash_at + 1 + SeedOffset());
    fs.CrashAtOperation(crash_at);
    const Progress progress = RunScript(&fs, script, mode);
    if (progress.complete) break;
    const SimFileSystem::Image image = fs.AfterPowerCut(crash_at);
    for (uint64_t again = 0;; ++again, ++points) {
      SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " (" << fs.crash_operation()
                                        << "), again=" << again);
      SimFileSystem recovering(again + 1);
      recovering.Load(image);
      recovering.CrashAtOperation(again);
      {
        auto runtime = DurableRuntime::Open(Options(&recovering, mode));
        if (runtime.ok()) (void)(*runtime)->OpenIndex(kName);
      }
      const bool crashed = recovering.crashed();
      recovering.Restart(again);
      ExpectRecovers(&recovering, script, progress, mode);
      if (HasFatalFailure() || HasNonfatalFailure()) return;
      if (!crashed) break;
    }
  }
  printf("%lu crash points in recoveries\n", points);
}

// A process that is killed leaves in the page cache what it has not synced. The next one reads and builds on that,
// and then the power fails: by then it must be on disk.
TEST_P(CrashTest, APowerCutMayFollowAKill) {
  const DurabilityMode mode = GetParam();
  ScriptSize size;
  if (mode == DurabilityMode::kStrict) size = ScriptSize{60, 3, 20, 6, 1};
  const Script script = MakeScript(size, 4 + SeedOffset());
  const uint64_t seeds = 4 * LengthFactor();
  uint64_t points = 0;
  for (uint64_t crash_at = 0;; crash_at += kStride, ++points) {
    bool complete = false;
    for (uint64_t seed = 1 + SeedOffset(); seed <= seeds + SeedOffset() && !complete; ++seed) {
      SimFileSystem fs(crash_at * seeds + seed);
      fs.CrashAtOperation(crash_at);
      const Progress progress = RunScript(&fs, script, mode);
      complete = progress.complete;
      if (complete) break;
      SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " (" << fs.crash_operation() << "), seed="
                                        << seed << ", step " << progress.attempted);
      fs.ContinueAfterKill();
      ExpectRecovers(&fs, script, progress, mode);
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
    if (complete) break;
  }
  printf("%lu crash points by kills, %lu power cuts each\n", points, seeds);
}

// A log longer than one segment, folds that rotate it, and a data file that grows in larger steps.
TEST_P(CrashTest, LongLogsAndGrowthSurviveSampledCrashes) {
  const DurabilityMode mode = GetParam();
  if (mode == DurabilityMode::kStrict) GTEST_SKIP() << "differs from BALANCED only in its commits";
  const Script script = MakeScript(ScriptSize{0, 6, 2'000, 200, 4}, 3 + SeedOffset());
  SimFileSystem whole(1);
  ASSERT_TRUE(RunScript(&whole, script, mode).complete);
  const uint64_t operations = whole.operations();
  for (uint64_t crash_at = operations / 20; crash_at < operations;
       crash_at += std::max<uint64_t>(operations / 8 / LengthFactor(), 1)) {
    SimFileSystem fs(crash_at + 1);
    fs.CrashAtOperation(crash_at);
    const Progress progress = RunScript(&fs, script, mode);
    SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " of " << operations << " ("
                                      << fs.crash_operation() << ")");
    ASSERT_EQ(fs.violations(), std::vector<std::string>());
    ASSERT_FALSE(progress.complete);
    fs.Restart(crash_at);
    ExpectRecovers(&fs, script, progress, mode);
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, CrashTest,
                         ::testing::Values(DurabilityMode::kStrict, DurabilityMode::kBalanced,
                                           DurabilityMode::kEventual),
                         [](const auto& info) {
                           switch (info.param) {
                             case DurabilityMode::kStrict: return std::string("Strict");
                             case DurabilityMode::kBalanced: return std::string("Balanced");
                             default: return std::string("Eventual");
                           }
                         });

// Several indexes commit in one batch; one of them is dropped. Each index is whole on its own: an
// acknowledged batch is there in all of them, another in any of them, what was dropped stays so.
TEST(ManyIndexesCrashTest, BatchesAndDropsSurviveEveryCrash) {
  const DurabilityMode mode = DurabilityMode::kBalanced;
  const std::vector<std::string> names = {"a", "b", "c"};
  constexpr uint64_t kBatches = 6;
  constexpr uint64_t kDropAfter = 3;  // Batches; then "b" goes.
  constexpr uint64_t kRows = 15;      // Of one index in one batch.
  for (uint64_t crash_at = 0;; crash_at += kStride) {
    SimFileSystem fs(crash_at + 1);
    fs.CrashAtOperation(crash_at);
    size_t created = 0;
    uint64_t acknowledged = 0;
    bool drop_tried = false;
    bool dropped = false;
    bool complete = false;
    const auto work = [&] {
      auto runtime = DurableRuntime::Open(Options(&fs, mode));
      if (!runtime.ok()) return;
      std::vector<Index*> indexes;
      for (const std::string& name : names) {
        auto index = (*runtime)->CreateIndex(name, SmallOptions());
        if (!index.ok()) return;
        indexes.push_back(*index);
        ++created;
      }
      for (uint64_t batch = 0; batch < kBatches; ++batch) {
        for (size_t i = 0; i < names.size(); ++i) {
          if (indexes[i] == nullptr) continue;
          for (uint64_t id = batch * kRows; id < (batch + 1) * kRows; ++id) {
            if (!indexes[i]->Insert(KeyOf(id), id).ok()) return;
          }
        }
        if (!(*runtime)->CommitAll().ok()) return;
        acknowledged = batch + 1;
        if (acknowledged == kDropAfter) {
          drop_tried = true;
          indexes[1] = nullptr;
          if (!(*runtime)->DropIndex("b").ok()) return;
          dropped = true;
        }
      }
      complete = true;
    };
    work();
    ASSERT_TRUE(complete || fs.crashed());
    SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " (" << fs.crash_operation()
                                      << "), batches=" << acknowledged);
    for (uint64_t seed = 1 + SeedOffset(); seed <= 3 * LengthFactor() + SeedOffset(); ++seed) {
      SimFileSystem after(seed);
      after.Load(fs.AfterPowerCut(seed));
      auto runtime = DurableRuntime::Open(Options(&after, mode)).value();
      for (size_t i = 0; i < names.size(); ++i) {
        auto index = runtime->OpenIndex(names[i]);
        EXPECT_TRUE(i != 1 || !dropped || index.status().code() == Code::kNotFound);
        if (!index.ok()) {
          // Not created, or a removal of two files that was cut short: the name must be free.
          ASSERT_TRUE(i >= created || (i == 1 && drop_tried)) << index.status().message();
          auto again = runtime->CreateIndex(names[i], SmallOptions());
          ASSERT_TRUE(again.ok()) << again.status().message();
          EXPECT_TRUE(ReadState(*again).empty());
          continue;
        }
        const State state = ReadState(*index);
        ExpectSound(*index);
        EXPECT_EQ(state.size() % kRows, 0u);
        EXPECT_TRUE(state.empty() || *state.rbegin() + 1 == state.size());
        if (i == 1 && drop_tried) continue;
        EXPECT_GE(state.size(), acknowledged * kRows);
        EXPECT_LE(state.size(), (acknowledged + 1) * kRows);
      }
      if (HasFailure()) return;
    }
    if (complete && !fs.crashed()) break;
  }
}

// An index that is being dropped is there with all that was committed, or its name is free: also where the process is
// killed in the middle, and another one begins to create an index of that name.
TEST(DropCrashTest, ADropIsWholeOrHasNotBegun) {
  const DurabilityMode mode = DurabilityMode::kBalanced;
  constexpr uint64_t kRows = 50;
  uint64_t points = 0;
  for (const bool kill : {false, true}) {
    bool complete = false;
    for (uint64_t drop_at = 0; !complete; drop_at += kStride) {
      bool created = false;
      for (uint64_t create_at = 0; !created; ++create_at) {
        for (uint64_t seed = 1 + SeedOffset(); seed <= 6 + SeedOffset(); ++seed, ++points) {
          SCOPED_TRACE(::testing::Message() << "kill=" << kill << " drop_at=" << drop_at << " create_at=" << create_at
                                            << " seed=" << seed);
          SimFileSystem fs(seed);
          {
            auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
            Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
            for (uint64_t id = 0; id < kRows; ++id) {
              // Some in the data file, the rest in the log.
              if (id == kRows / 2) { ASSERT_TRUE(index->Checkpoint().ok()); }
              ASSERT_TRUE(index->Insert(KeyOf(id), id).ok());
            }
            ASSERT_TRUE(index->Commit().ok());
            fs.CrashAtOperation(drop_at);
            complete = runtime->DropIndex(kName).ok();
          }
          if (complete) break;
          if (kill) {
            fs.ContinueAfterKill();
            fs.CrashAtOperation(create_at);
            auto runtime = DurableRuntime::Open(Options(&fs, mode));
            if (runtime.ok()) created |= (*runtime)->CreateIndex(kName, SmallOptions()).ok();
            if (!fs.crashed()) created = true;  // The index was still there.
          } else {
            created = true;
          }
          fs.Restart(seed);
          auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
          auto index = runtime->OpenIndex(kName);
          if (!index.ok()) {
            EXPECT_EQ(index.status().code(), Code::kNotFound) << index.status().message();
            EXPECT_TRUE(runtime->CreateIndex(kName, SmallOptions()).ok());
          } else {
            const State state = ReadState(*index);
            ExpectSound(*index);
            EXPECT_TRUE(state.size() == kRows || (kill && state.empty())) << state.size();
          }
          if (HasFailure()) return;
        }
        if (complete) break;
      }
    }
  }
  printf("%lu crash points in drops\n", points);
}

// Crash after crash, of the machine or of the process: nothing accumulates.
TEST(CrashSeriesTest, ManyCrashesInARowLeaveASoundIndexThatDoesNotGrow) {
  const DurabilityMode mode = DurabilityMode::kBalanced;
  SimFileSystem fs(1);
  SimRandom random(6 + SeedOffset());
  State state;
  uint64_t next_id = 1;
  {
    auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
    ASSERT_TRUE(runtime->CreateIndex(kName, SmallOptions()).ok());
  }
  for (uint64_t cycle = 0; cycle < 150 * LengthFactor() / kStride; ++cycle) {
    SCOPED_TRACE(::testing::Message() << "cycle=" << cycle);
    fs.CrashAtOperation(random.Below(60));
    Script script;
    Progress progress;
    progress.created = true;
    progress.closed = true;
    {
      auto runtime = DurableRuntime::Open(Options(&fs, mode));
      Result<Index*> index = Status::Internal("no runtime");
      if (runtime.ok()) index = (*runtime)->OpenIndex(kName);
      while (index.ok() && !fs.crashed()) {
        State model = state;
        for (const Step& step : script) ApplyToModel(step, &model);
        Step step{Step::kInsert, next_id, 0};
        const uint64_t dice = random.Below(20);
        if (dice == 0) step.kind = Step::kCheckpoint;
        if (dice == 1 || dice == 2) step.kind = Step::kCommit;
        if (step.kind == Step::kInsert && model.size() > 300) {
          step = {Step::kDelete, *model.begin(), 0};
        }
        if (step.kind == Step::kInsert) ++next_id;
        script.push_back(step);
        ++progress.attempted;
        if (!RunStep(step, *index).ok()) break;
        if (MakesDurable(step, mode) && !fs.crashed()) progress.durable = progress.attempted;
      }
    }
    ASSERT_TRUE(fs.crashed());
    if (random.Below(3) == 0) {
      fs.ContinueAfterKill();
    } else {
      fs.Restart(cycle);
    }
    auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
    auto index = runtime->OpenIndex(kName);
    ASSERT_TRUE(index.ok()) << index.status().message();
    const State recovered = ReadState(*index);
    ExpectSound(*index);
    // IsAllowed starts from nothing, so the state before goes first.
    Script whole;
    for (const uint64_t id : state) whole.push_back({Step::kInsert, id, 0});
    progress.durable += whole.size();
    progress.attempted += whole.size();
    whole.insert(whole.end(), script.begin(), script.end());
    ASSERT_TRUE(IsAllowed(recovered, whole, progress, mode));
    state = recovered;
    if (::testing::Test::HasFailure()) return;
  }
  ASSERT_EQ(fs.violations(), std::vector<std::string>());
  uint64_t bytes = 0;
  for (const auto& [name, content] : fs.Contents()) bytes += content.size();
  EXPECT_LT(bytes, 6u << 20);
}

}  // namespace
}  // namespace xtree
