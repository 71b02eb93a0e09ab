// Goal: whatever operation the power fails at, the index comes back with exactly the committed
// operations (EVENTUAL: a prefix of them), sound and usable; a second failure during recovery
// changes nothing about that; and damage to the files is noticed or harmless, never a wrong answer.
// Method: a script (create, bulk load, insert, delete, commit, checkpoint, reopen) on the simulated
// disk; the power fails at operation N, for every N until the script completes; the disk then keeps
// what one of several seeds chooses. Keys are a function of the record id: a state is a set of ids.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/durable_runtime.h"
#include "testing/sim_file_system.h"

namespace xtree {
namespace {

constexpr char kDirectory[] = "/db";
constexpr char kName[] = "roads";
constexpr uint64_t kNullBit = uint64_t{1} << 40;  // Marks the ids of rows whose key is NULL.

IndexOptions SmallOptions() {
  IndexOptions options;
  options.spec = KeySpec{8, CoordType::kF64, KeyKind::kBox};  // Long keys: few entries split much.
  return options;
}

Key KeyOf(uint64_t id) {
  Key key{};
  SimRandom random(id);
  for (uint32_t d = 0; d < 8; ++d) {
    key.lo[d] = static_cast<double>(random.Below(1'000'000)) / 8;
    key.hi[d] = key.lo[d] + static_cast<double>(random.Below(100)) / 8;
  }
  return key;
}

struct Step {
  enum Kind { kBulkLoad, kInsert, kInsertNull, kDelete, kCommit, kCheckpoint, kReopen };
  Kind kind;
  uint64_t id;     // kBulkLoad: the first id.
  uint64_t count;  // kBulkLoad.
};
using Script = std::vector<Step>;
using State = std::set<uint64_t>;

void ApplyToModel(const Step& step, State* state) {
  switch (step.kind) {
    case Step::kBulkLoad:
      for (uint64_t i = 0; i < step.count; ++i) state->insert(step.id + i);
      break;
    case Step::kInsert: state->insert(step.id); break;
    case Step::kInsertNull: state->insert(step.id | kNullBit); break;
    case Step::kDelete: state->erase(step.id); break;
    default: break;
  }
}

struct ScriptSize {
  uint64_t bulk = 150;
  uint64_t rounds = 6;
  uint64_t inserts = 40;   // In a round, as the next.
  uint64_t deletes = 12;
  uint64_t commits = 2;
};

Script MakeScript(const ScriptSize& size, uint64_t seed) {
  SimRandom random(seed);
  Script script;
  State live;
  uint64_t next_id = 1;
  if (size.bulk > 0) {
    script.push_back({Step::kBulkLoad, next_id, size.bulk});
    ApplyToModel(script.back(), &live);
    next_id += size.bulk;
  }
  for (uint64_t round = 0; round < size.rounds; ++round) {
    for (uint64_t commit = 0; commit < size.commits; ++commit) {
      for (uint64_t i = 0; i < size.inserts / size.commits; ++i) {
        script.push_back({i % 10 == 9 ? Step::kInsertNull : Step::kInsert, next_id++, 0});
        if (i % 10 != 9) live.insert(script.back().id);
      }
      for (uint64_t i = 0; i < size.deletes / size.commits && !live.empty(); ++i) {
        auto victim = live.lower_bound(random.Below(next_id));
        if (victim == live.end()) victim = live.begin();
        script.push_back({Step::kDelete, *victim, 0});
        live.erase(victim);
      }
      script.push_back({Step::kCommit, 0, 0});
    }
    if (round % 3 == 1) script.push_back({Step::kCheckpoint, 0, 0});
    if (round % 3 == 2) script.push_back({Step::kReopen, 0, 0});
  }
  return script;
}

// How far a run got, in steps of the script. A prefix of `durable` steps must survive, and nothing
// beyond `attempted` can.
struct Progress {
  bool created = false;
  size_t durable = 0;
  size_t attempted = 0;
  bool complete = false;
  bool closed = false;    // The runtime was closed in good order, which may commit what was open.
};

RuntimeOptions Options(SimFileSystem* fs, DurabilityMode mode) {
  static SimClock clock;  // Stands still: no flush or fold but those that the script asks for.
  RuntimeOptions options;
  options.directory = kDirectory;
  options.mode = mode;
  options.background_checkpoints = false;
  options.fs = fs;
  options.clock = &clock;
  return options;
}

bool CommitsItself(const Step& step, DurabilityMode mode) {
  if (step.kind == Step::kBulkLoad || step.kind == Step::kCommit) return true;
  return mode == DurabilityMode::kStrict;
}
// Whether everything before is on disk once this step has succeeded.
bool MakesDurable(const Step& step, DurabilityMode mode) {
  if (step.kind == Step::kBulkLoad || step.kind == Step::kCheckpoint) return true;
  if (step.kind == Step::kReopen) return true;  // Closing loses nothing that was committed.
  return mode != DurabilityMode::kEventual && CommitsItself(step, mode);
}

Status RunStep(const Step& step, Index* index) {
  switch (step.kind) {
    case Step::kBulkLoad: {
      std::vector<double> lo, hi;
      std::vector<uint64_t> ids;
      for (uint64_t id = step.id; id < step.id + step.count; ++id) {
        const Key key = KeyOf(id);
        lo.insert(lo.end(), key.lo, key.lo + 8);
        hi.insert(hi.end(), key.hi, key.hi + 8);
        ids.push_back(id);
      }
      return index->BulkLoad(lo.data(), hi.data(), ids.data(), ids.size(), 1);
    }
    case Step::kInsert: return index->Insert(KeyOf(step.id), step.id);
    case Step::kInsertNull: return index->InsertNull(step.id);
    case Step::kDelete: {
      bool found = false;
      const Status status = index->Delete(KeyOf(step.id), step.id, &found);
      EXPECT_TRUE(found || !status.ok()) << "id " << step.id << " is missing";
      return status;
    }
    case Step::kCommit: return index->Commit();
    case Step::kCheckpoint: return index->Checkpoint();
    case Step::kReopen: break;
  }
  return Status::Internal("not an index operation");
}

// Runs the script until it ends or the power fails; any other failure is a bug.
Progress RunScript(SimFileSystem* fs, const Script& script, DurabilityMode mode) {
  Progress progress;
  const auto expect_crash = [&](const Status& status, const char* what) {
    EXPECT_TRUE(fs->crashed()) << what << ": " << status.message();
  };
  auto runtime = DurableRuntime::Open(Options(fs, mode));
  if (!runtime.ok()) {
    expect_crash(runtime.status(), "open");
    return progress;
  }
  auto index = (*runtime)->CreateIndex(kName, SmallOptions());
  if (!index.ok()) {
    expect_crash(index.status(), "create");
    return progress;
  }
  progress.created = true;
  for (const Step& step : script) {
    if (fs->crashed()) return progress;  // What happens in memory after that reaches nobody.
    ++progress.attempted;
    Status status;
    if (step.kind == Step::kReopen) {
      runtime->reset();
      if (fs->crashed()) return progress;
      runtime = DurableRuntime::Open(Options(fs, mode));
      if (runtime.ok()) index = (*runtime)->OpenIndex(kName);
      status = !runtime.ok() ? runtime.status() : index.status();
    } else {
      status = RunStep(step, *index);
    }
    if (!status.ok()) {
      expect_crash(status, "step");
      return progress;
    }
    if (MakesDurable(step, mode) && !fs->crashed()) progress.durable = progress.attempted;
  }
  runtime->reset();
  progress.complete = !fs->crashed();
  return progress;
}

// Everything in the index, by searches; every key is checked on the way.
State ReadState(Index* index) {
  State state;
  Status status =
      index->Search(Predicate::All(), [&](uint64_t id, const double* lo, const double* hi) {
        const Key key = KeyOf(id);
        EXPECT_TRUE(std::equal(lo, lo + 8, key.lo) && std::equal(hi, hi + 8, key.hi)) << id;
        EXPECT_TRUE(state.insert(id).second) << "id " << id << " was returned twice";
      });
  EXPECT_TRUE(status.ok()) << status.message();
  status = index->SearchNull([&](uint64_t id, const double*, const double*) {
    EXPECT_TRUE(state.insert(id | kNullBit).second) << "NULL row " << id << " was returned twice";
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return state;
}

void ExpectSound(Index* index) {
  std::vector<std::string> problems;
  const Status status = index->Check(&problems);
  EXPECT_TRUE(status.ok()) << status.message();
  for (const std::string& problem : problems) ADD_FAILURE() << problem;
}

// Whether `state` is what some allowed prefix of the script leaves behind.
::testing::AssertionResult IsAllowed(const State& state, const Script& script,
                                     const Progress& progress, DurabilityMode mode) {
  State model;
  for (size_t done = 0; done <= progress.attempted; ++done) {
    if (done > 0) ApplyToModel(script[done - 1], &model);
    const bool boundary = progress.closed || done == 0 || done == progress.durable ||
                          CommitsItself(script[done - 1], mode);
    if (done >= progress.durable && boundary && state == model) {
      return ::testing::AssertionSuccess();
    }
  }
  return ::testing::AssertionFailure()
         << state.size() << " rows are not what any prefix of " << progress.durable << " to "
         << progress.attempted << " steps leaves";
}

// Opens the index on whatever `fs` holds, expects an allowed state, and uses it.
void ExpectRecovers(SimFileSystem* fs, const Script& script, const Progress& progress,
                    DurabilityMode mode) {
  constexpr uint64_t kNewId = 900'000;
  State expected;
  {
    auto runtime = DurableRuntime::Open(Options(fs, mode));
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    auto index = (*runtime)->OpenIndex(kName);
    if (!index.ok() && !progress.created && index.status().code() == Code::kNotFound) {
      // The creation did not complete; then the name must be free.
      auto created = (*runtime)->CreateIndex(kName, SmallOptions());
      ASSERT_TRUE(created.ok()) << created.status().message();
      return;
    }
    ASSERT_TRUE(index.ok()) << index.status().message();
    expected = ReadState(*index);
    ExpectSound(*index);
    ASSERT_TRUE(IsAllowed(expected, script, progress, mode));
    for (uint64_t id = kNewId; id < kNewId + 5; ++id) {
      ASSERT_TRUE((*index)->Insert(KeyOf(id), id).ok());
      expected.insert(id);
    }
    ASSERT_TRUE((*index)->Commit().ok());
    if (mode == DurabilityMode::kEventual) {
      ASSERT_TRUE((*index)->Checkpoint().ok());  // Its Commit alone promises nothing.
    }
    fs->Restart(progress.attempted);
  }
  auto runtime = DurableRuntime::Open(Options(fs, mode));
  ASSERT_TRUE(runtime.ok()) << runtime.status().message();
  auto index = (*runtime)->OpenIndex(kName);
  ASSERT_TRUE(index.ok()) << index.status().message();
  EXPECT_EQ(ReadState(*index), expected) << "after the recovered index was used";
  ExpectSound(*index);
  ASSERT_EQ(fs->violations(), std::vector<std::string>());
}

class CrashTest : public ::testing::TestWithParam<DurabilityMode> {};

TEST_P(CrashTest, EveryOperationOfAScriptMayBeTheLast) {
  const DurabilityMode mode = GetParam();
  ScriptSize size;
  // A sync for every row makes many operations; fewer rows will do.
  if (mode == DurabilityMode::kStrict) size = ScriptSize{60, 3, 20, 6, 1};
  const Script script = MakeScript(size, 1);
  uint64_t crash_at = 0;
  for (;; ++crash_at) {
    SimFileSystem fs(crash_at + 1);
    fs.CrashAtOperation(crash_at);
    const Progress progress = RunScript(&fs, script, mode);
    SCOPED_TRACE(::testing::Message() << "crash_at=" << crash_at << " (" << fs.crash_operation()
                                      << "), step " << progress.attempted);
    ASSERT_EQ(fs.violations(), std::vector<std::string>());
    if (progress.complete) break;  // Every operation has had its turn.
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE(::testing::Message() << "seed=" << seed);
      SimFileSystem after(seed);
      after.Load(fs.AfterPowerCut(seed));
      ExpectRecovers(&after, script, progress, mode);
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
  }
  EXPECT_GT(crash_at, 30u);
}

TEST_P(CrashTest, TheRecoveryMayBeCutShortAtEveryOperation) {
  const DurabilityMode mode = GetParam();
  const Script script = MakeScript(ScriptSize{60, 4, 20, 6, 1}, 2);
  for (uint64_t crash_at = 5;; crash_at += 13) {
    SimFileSystem fs(crash_at + 1);
    fs.CrashAtOperation(crash_at);
    const Progress progress = RunScript(&fs, script, mode);
    if (progress.complete) break;
    const SimFileSystem::Image image = fs.AfterPowerCut(crash_at);
    for (uint64_t again = 0;; ++again) {
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
}

// A log longer than one segment, folds that rotate it, and a data file that grows in larger steps.
TEST_P(CrashTest, LongLogsAndGrowthSurviveSampledCrashes) {
  const DurabilityMode mode = GetParam();
  if (mode == DurabilityMode::kStrict) GTEST_SKIP() << "differs from BALANCED only in its commits";
  const Script script = MakeScript(ScriptSize{0, 6, 2'000, 200, 4}, 3);
  SimFileSystem whole(1);
  ASSERT_TRUE(RunScript(&whole, script, mode).complete);
  const uint64_t operations = whole.operations();
  for (uint64_t crash_at = operations / 20; crash_at < operations; crash_at += operations / 8) {
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

// Whatever fails once without a power cut, is reported, and what had been committed stays; whatever
// is acknowledged afterwards, is there too. (After a failed sync that means: nothing is
// acknowledged that the sync may have lost.)
TEST(FaultTest, OneFailedOperationLosesNothingThatWasAcknowledged) {
  const Script script = MakeScript(ScriptSize{60, 6, 20, 6, 2}, 4);
  const DurabilityMode mode = DurabilityMode::kBalanced;
  uint64_t fail_at = 0;
  for (;; ++fail_at) {
    SCOPED_TRACE(::testing::Message() << "fail_at=" << fail_at);
    SimFileSystem fs(fail_at + 1);
    fs.FailOperation(fail_at, fail_at % 2 == 0
                                  ? Status::Make(Code::kNoSpace, "injected: disk full")
                                  : Status::Make(Code::kIoError, "injected: I/O error"));
    Script succeeded;
    Progress progress;
    progress.closed = true;
    {
      auto runtime = DurableRuntime::Open(Options(&fs, mode));
      Result<Index*> index = Status::Internal("no runtime");
      if (runtime.ok()) index = (*runtime)->CreateIndex(kName, SmallOptions());
      progress.created = index.ok();
      for (size_t i = 0; i < script.size() && index.ok(); ++i) {
        if (script[i].kind == Step::kReopen) continue;
        State before;
        for (const Step& step : succeeded) ApplyToModel(step, &before);
        if (script[i].kind == Step::kDelete && !before.contains(script[i].id)) continue;
        const bool ok = RunStep(script[i], *index).ok();
        // A bulk load that fails may have got anywhere between nothing and everything but its OK.
        if (!ok && script[i].kind != Step::kBulkLoad) continue;
        succeeded.push_back(script[i]);
        if (!ok) break;
        if (MakesDurable(script[i], mode)) progress.durable = succeeded.size();
      }
      progress.attempted = succeeded.size();
      if (index.ok()) ExpectSound(*index);
    }
    const bool was_hit = fs.operations() > fail_at;
    fs.Restart(fail_at);
    ExpectRecovers(&fs, succeeded, progress, mode);
    if (::testing::Test::HasFailure()) return;
    if (!was_hit) break;
  }
  EXPECT_GT(fail_at, 40u);
}

// Crash after crash: nothing accumulates.
TEST(CrashSeriesTest, ManyCrashesInARowLeaveASoundIndexThatDoesNotGrow) {
  const DurabilityMode mode = DurabilityMode::kBalanced;
  SimFileSystem fs(1);
  SimRandom random(6);
  State state;
  uint64_t next_id = 1;
  {
    auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
    ASSERT_TRUE(runtime->CreateIndex(kName, SmallOptions()).ok());
  }
  for (uint64_t cycle = 0; cycle < 150; ++cycle) {
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
    fs.Restart(cycle);
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

// After a failed sync the kernel takes the pages for clean, and the next sync succeeds without them.
// So a commit or a checkpoint that succeeds later must not count on them.
TEST(FaultTest, WhatAFailedSyncLostIsNeverAcknowledged) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    for (const bool in_checkpoint : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "seed=" << seed << " in_checkpoint=" << in_checkpoint);
      SimFileSystem fs(seed);
      State applied;
      bool acknowledged = false;
      {
        auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
        Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
        uint64_t id = 1;
        // Enough to fill whole log blocks and nodes that nothing touches again.
        for (; id <= 400; ++id) ASSERT_TRUE(index->Insert(KeyOf(id), id).ok());
        if (in_checkpoint) {
          ASSERT_TRUE(index->Commit().ok());
        }
        fs.FailKinds(SimFileSystem::kSync, Status::Make(Code::kIoError, "injected: I/O error"));
        EXPECT_FALSE(in_checkpoint ? index->Checkpoint().ok() : index->Commit().ok());
        fs.FailKinds(0, Status::Ok());
        for (; id <= 410; ++id) ASSERT_TRUE(index->Insert(KeyOf(id), id).ok());
        for (uint64_t i = 1; i < id; ++i) applied.insert(i);
        acknowledged |= index->Commit().ok();
        acknowledged |= index->Checkpoint().ok();
      }
      fs.Restart(seed);
      auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
      auto index = runtime->OpenIndex(kName);
      ASSERT_TRUE(index.ok()) << index.status().message();
      const State state = ReadState(*index);
      ExpectSound(*index);
      if (acknowledged) {
        EXPECT_EQ(state, applied);
      }
      ASSERT_EQ(fs.violations(), std::vector<std::string>());
      if (::testing::Test::HasFailure()) return;
    }
  }
}

// A full disk stops growth with an error; everything there stays readable, and space that appears
// later is used.
TEST(FaultTest, AFullDiskIsAnErrorAndNothingElse) {
  SimFileSystem fs(1);
  auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
  Index* index = nullptr;
  {
    auto created = runtime->CreateIndex(kName, SmallOptions());
    ASSERT_TRUE(created.ok()) << created.status().message();
    index = *created;
  }
  fs.SetCapacity(600 << 10);
  State model;
  uint64_t id = 1;
  Status status;
  for (; id < 100'000; ++id) {
    status = index->Insert(KeyOf(id), id);
    if (!status.ok()) break;
    model.insert(id);
  }
  EXPECT_EQ(status.code(), Code::kNoSpace) << status.message();
  EXPECT_GT(model.size(), 500u);
  EXPECT_EQ(ReadState(index), model);
  ExpectSound(index);
  status = index->Checkpoint();  // It needs space too.
  EXPECT_TRUE(status.ok() || status.code() == Code::kNoSpace) << status.message();
  EXPECT_EQ(ReadState(index), model);
  ExpectSound(index);
  fs.SetCapacity(64 << 20);
  for (uint64_t more = 0; more < 500; ++more, ++id) {
    status = index->Insert(KeyOf(id), id);
    ASSERT_TRUE(status.ok()) << status.message();
    model.insert(id);
  }
  ASSERT_TRUE(index->Commit().ok());
  EXPECT_EQ(ReadState(index), model);
  ExpectSound(index);
  fs.Restart(1);
  runtime.reset();
  runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
  auto reopened = runtime->OpenIndex(kName);
  ASSERT_TRUE(reopened.ok()) << reopened.status().message();
  EXPECT_EQ(ReadState(*reopened), model);
}

// One flipped byte: an error, or the right answer.
TEST(DamageTest, AFlippedByteIsNoticedOrHarmless) {
  const DurabilityMode mode = DurabilityMode::kBalanced;
  const Script script = MakeScript(ScriptSize{150, 5, 40, 12, 2}, 5);
  SimFileSystem healthy(1);
  const Progress progress = RunScript(&healthy, script, mode);
  ASSERT_TRUE(progress.complete);
  const SimFileSystem::Image image = healthy.AfterPowerCut(1);
  State complete;
  for (const Step& step : script) ApplyToModel(step, &complete);
  uint64_t noticed = 0;
  uint64_t harmless = 0;
  SimRandom random(9);
  for (const auto& [name, content] : image) {
    const bool is_log = name.size() > 4 && name.compare(name.size() - 4, 4, "_log") == 0;
    for (uint64_t block = 0; block * 8192 < content.size(); ++block) {
      // Empty blocks have nothing to damage but the emptiness; one of them is enough.
      const bool empty = std::all_of(content.begin() + block * 8192,
                                     content.begin() + (block + 1) * 8192,
                                     [](std::byte b) { return b == std::byte{0}; });
      for (uint64_t flip = 0; flip < (empty ? 1 : 12); ++flip) {
        // The header's bytes one after another, and some of the rest.
        const uint64_t offset = block * 8192 + (flip < 6 ? random.Below(64) : random.Below(8192));
        const uint8_t mask = static_cast<uint8_t>(1u << random.Below(8));
        SCOPED_TRACE(::testing::Message() << name << " offset " << offset << " mask " << int{mask});
        SimFileSystem fs(1);
        fs.Load(image);
        fs.Damage(name, offset, mask);
        auto runtime = DurableRuntime::Open(Options(&fs, mode)).value();
        auto index = runtime->OpenIndex(kName);
        if (!index.ok()) {
          ++noticed;
          continue;
        }
        State state;
        const Status status = (*index)->Search(
            Predicate::All(), [&](uint64_t id, const double* lo, const double* hi) {
              const Key key = KeyOf(id);
              EXPECT_TRUE(std::equal(lo, lo + 8, key.lo) && std::equal(hi, hi + 8, key.hi)) << id;
              state.insert(id);
            });
        if (!status.ok()) {
          ++noticed;
          EXPECT_EQ(status.code(), Code::kCorruption) << status.message();
          continue;
        }
        const Status nulls = (*index)->SearchNull(
            [&](uint64_t id, const double*, const double*) { state.insert(id | kNullBit); });
        if (!nulls.ok()) {
          ++noticed;
          continue;
        }
        ++harmless;
        if (is_log) {
          // The end of the log cannot be told from a torn one: a prefix may be all that is left.
          Progress any = progress;
          any.durable = 0;
          EXPECT_TRUE(IsAllowed(state, script, any, mode));
        } else {
          EXPECT_EQ(state, complete);
        }
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(noticed, 50u);
  EXPECT_GT(harmless, 0u);
}

}  // namespace
}  // namespace xtree
