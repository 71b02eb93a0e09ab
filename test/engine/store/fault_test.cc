// Goal: an operation that fails is reported and loses nothing that was or will be acknowledged; a
// full disk is an error and nothing else; damage to the files is noticed or harmless, never a wrong
// answer.
// Method: scripts on the simulated disk with one operation failing, each in turn; a disk that is
// too small; single flipped bits over all blocks of data file and log.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "store/crash_script.h"

namespace xtree {
namespace {

// What comes between the failure and what is asked then.
enum class Then { kPowerCut, kReopened };

// Whatever fails once without a power cut, is reported, and what had been committed stays; whatever
// is acknowledged afterwards, is there too. (After a failed sync that means: nothing is
// acknowledged that the sync may have lost.)
void FailEachOperation(Then then) {
  const Script script = MakeScript(ScriptSize{60, 6, 20, 6, 2}, 4 + SeedOffset());
  const DurabilityMode mode = DurabilityMode::kBalanced;
  uint64_t fail_at = 0;
  for (;; fail_at += kStride) {
    SCOPED_TRACE(::testing::Message() << "fail_at=" << fail_at);
    SimFileSystem fs(fail_at + 1 + SeedOffset());
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
    if (then == Then::kReopened && !was_hit) break;  // It would fail what follows.
    if (then == Then::kPowerCut) fs.Restart(fail_at + SeedOffset());
    ExpectRecovers(&fs, succeeded, progress, mode);
    if (::testing::Test::HasFailure()) return;
    if (!was_hit) break;
  }
  EXPECT_GT(fail_at, 40u);
}

TEST(FaultTest, OneFailedOperationLosesNothingThatWasAcknowledged) { FailEachOperation(Then::kPowerCut); }

// The page cache still holds what a failed sync has lost, and calls it clean. Who opens the index again reads that, and
// what is acknowledged then must not rest on it.
TEST(FaultTest, AfterAFailureTheIndexMayBeOpenedAgainBeforeThePowerFails) { FailEachOperation(Then::kReopened); }

// How WhatAFailureLostIsNeverAcknowledged goes wrong, and goes on.
struct Failure {
  bool in_checkpoint;   // Else in a commit.
  bool nothing_logged;  // The log is empty when the checkpoint begins.
  bool fold_after;      // A checkpoint is tried afterwards.
  uint64_t operation;   // Of the call: which one fails.
};

// Whether the failure was hit.
bool FailAndGoOn(uint64_t seed, const Failure& failure) {
  SimFileSystem fs(seed);
  State applied;
  bool acknowledged = false;
  bool hit = false;
  {
    auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
    Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
    const auto insert = [&](uint64_t first, uint64_t end) {
      for (uint64_t id = first; id < end; ++id) {
        if (index->Insert(KeyOf(id), id).ok()) applied.insert(id);
      }
    };
    // Enough to fill whole log blocks and nodes that nothing touches again.
    insert(1, 400);
    EXPECT_TRUE(!failure.in_checkpoint || index->Commit().ok());
    EXPECT_TRUE(!failure.nothing_logged || index->Checkpoint().ok());
    const uint64_t before = fs.operations();
    fs.FailOperation(failure.operation, Status::Make(Code::kIoError, "injected: I/O error"));
    (void)(failure.in_checkpoint ? index->Checkpoint() : index->Commit()).ok();
    hit = fs.operations() - before > failure.operation;
    if (!hit) return false;
    insert(400, 410);
    acknowledged = index->Commit().ok();
    if (failure.fold_after) acknowledged |= index->Checkpoint().ok();
  }
  fs.Restart(seed);
  auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
  auto index = runtime->OpenIndex(kName);
  EXPECT_TRUE(index.ok()) << index.status().message();
  if (!index.ok()) return true;
  const State state = ReadState(*index);
  ExpectSound(*index);
  if (acknowledged) {
    EXPECT_EQ(state, applied);
  }
  EXPECT_EQ(fs.violations(), std::vector<std::string>());
  return hit;
}

// After a failed sync the kernel takes the pages for clean, and the next sync succeeds without
// them. So a commit or a checkpoint that succeeds later must not count on them.
TEST(FaultTest, WhatAFailureLostIsNeverAcknowledged) {
  uint64_t failures = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    for (uint32_t variant = 0; variant < 8; ++variant) {
      Failure failure{(variant & 1) != 0, (variant & 2) != 0, (variant & 4) != 0, 0};
      for (;; ++failure.operation, ++failures) {
        SCOPED_TRACE(::testing::Message() << "seed=" << seed << " variant=" << variant
                                          << " operation=" << failure.operation);
        const bool hit = FailAndGoOn(seed, failure);
        if (HasFailure()) return;
        if (!hit) break;
      }
    }
  }
  EXPECT_GT(failures, 40u);
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
  const Script script = MakeScript(ScriptSize{150, 4, 40, 12, 2}, 5);
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
    for (uint64_t block = 0; block * 8192 < content.size(); block += kStride) {
      // Empty blocks have nothing to damage but the emptiness; one of them is enough.
      const bool empty = std::all_of(content.begin() + block * 8192,
                                     content.begin() + (block + 1) * 8192,
                                     [](std::byte b) { return b == std::byte{0}; });
      const uint64_t flips = empty ? 1 : is_log ? 100 : 12;
      for (uint64_t flip = 0; flip < flips; ++flip) {
        // Some in the header, some in the rest.
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
  EXPECT_GT(noticed, 50u / kStride);
  EXPECT_GT(harmless, 0u);
}

}  // namespace
}  // namespace xtree
