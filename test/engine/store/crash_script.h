// What the tests of crashes and faults share: scripts of index operations, the model that says what
// an index must hold after any prefix of one, and the check of an index that comes back.
//
// Keys are a function of the record id, so a state is a set of ids, and a wrong key is noticed
// wherever a state is read.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/durable_runtime.h"
#include "support/index_checks.h"
#include "testing/sim_file_system.h"

namespace xtree {

// These tests have one thread each, so a thread sanitizer, which slows them tenfold, gets a sample:
// every kStride-th of what is otherwise tried one by one.
inline constexpr uint64_t kStride = XT_TSAN ? 13 : 1;

// make check-torture repeats these tests with other seeds, XTREE_CRASH_SEED beyond the usual ones, and
// goes on for XTREE_CRASH_LENGTH times as many.
inline uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}
inline uint64_t SeedOffset() { return FromEnvironment("XTREE_CRASH_SEED", 0); }
inline uint64_t LengthFactor() { return FromEnvironment("XTREE_CRASH_LENGTH", 1); }

inline constexpr char kDirectory[] = "/db";
inline constexpr char kName[] = "roads";
inline constexpr uint64_t kNullBit = uint64_t{1} << 40;  // Marks the ids of rows whose key is NULL.

inline IndexOptions SmallOptions() {
  IndexOptions options;
  options.spec = KeySpec{8, CoordType::kF64, KeyKind::kBox};  // Long keys: few entries split much.
  return options;
}

inline Key KeyOf(uint64_t id) {
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

inline void ApplyToModel(const Step& step, State* state) {
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

inline Script MakeScript(const ScriptSize& size, uint64_t seed) {
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

inline RuntimeOptions Options(SimFileSystem* fs, DurabilityMode mode) {
  static SimClock clock;  // Stands still: no flush or fold but those that the script asks for.
  RuntimeOptions options;
  options.directory = kDirectory;
  options.mode = mode;
  options.background_checkpoints = false;
  // Commits write to an open log, or store to its mapping.
  options.logs_open_max = mode == DurabilityMode::kStrict ? 0 : 1;
  options.fs = fs;
  options.clock = &clock;
  return options;
}

inline bool CommitsItself(const Step& step, DurabilityMode mode) {
  if (step.kind == Step::kBulkLoad || step.kind == Step::kCommit) return true;
  return mode == DurabilityMode::kStrict;
}
// Whether everything before is on disk once this step has succeeded.
inline bool MakesDurable(const Step& step, DurabilityMode mode) {
  if (step.kind == Step::kBulkLoad || step.kind == Step::kCheckpoint) return true;
  if (step.kind == Step::kReopen) return true;  // Closing loses nothing that was committed.
  return mode != DurabilityMode::kEventual && CommitsItself(step, mode);
}

inline Status RunStep(const Step& step, Index* index) {
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
inline Progress RunScript(SimFileSystem* fs, const Script& script, DurabilityMode mode) {
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
inline State ReadState(Index* index) {
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

// Whether `state` is what some allowed prefix of the script leaves behind.
inline ::testing::AssertionResult IsAllowed(const State& state, const Script& script,
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
inline void ExpectRecovers(SimFileSystem* fs, const Script& script, const Progress& progress,
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

}  // namespace xtree
