// Goal: what is appended to a delta log is read back, whole and in order, from a file that stays
// small and whose old parts never come back.
// Method: files in memory whose growth can fail; everything is read back through LogReader, whose
// own judgement of damage is tested in log_reader_test.cc.
#include "log/delta_log.h"

#include <gtest/gtest.h>

#include "io/crc32c.h"
#include "support/log_fixture.h"
#include "testing/sim_file_system.h"

namespace xtree {
namespace {

uint64_t FileBytes(LogFixture* f) {
  auto info = f->fs.Stat("log");
  return info.ok() ? info->size_bytes : 0;
}

TEST(DeltaLog, WhatIsCommittedIsReadBackInOrder) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 50'000; ++v) {
    ASSERT_TRUE(f.Append(v, 0, v % 7 == 0 ? 400 : 40).ok());
    if (v % 100 == 99) {
      ASSERT_TRUE(f.Commit().ok());
    }
  }
  EXPECT_GT(f.shared.current_seq.load(), 3u);  // Several segments.
  const uint64_t bytes = f.shared.bytes.load();
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 50'000));
  EXPECT_EQ(f.shared.bytes.load(), bytes);
}

// Standalone: the open block is in memory between commits.
struct OpenLogFixture {
  explicit OpenLogFixture(uint32_t logs_max) : logs(logs_max) {
    std::memset(static_cast<void*>(&shared), 0, sizeof(shared));
    log = std::make_unique<DeltaLog>(&shared, &fs, &budget, "log");
    log->KeepFile();
    log->KeepOpen(&logs);
    EXPECT_TRUE(log->Reset(LogFixture::kCapture, 1).ok());
    EXPECT_TRUE(log->CreateFile().ok());
  }
  void Append(uint64_t value) {
    ASSERT_TRUE(log->Reserve(40).ok());
    std::byte* to = log->AppendBegin(OpType::kInsert, 0, 40, 0);
    std::memset(to, 0x5a, 40);
    std::memcpy(to, &value, sizeof(value));
    log->AppendEnd();
    values.push_back(value);
  }
  void Commit() {
    ASSERT_TRUE(log->Reserve(0).ok());
    log->AppendCommit();
    ASSERT_EQ(log->written_mark(), log->end_mark());
  }
  // What recovery would find, had the process been killed now.
  std::vector<uint64_t> Found() {
    LogShared other_shared;
    std::memset(static_cast<void*>(&other_shared), 0, sizeof(other_shared));
    SimFileSystem other_fs;
    other_fs.Load(fs.Contents());
    DeltaLog other(&other_shared, &other_fs, &budget, "log");
    LogReader reader(&other);
    EXPECT_TRUE(reader.Open(1, LogFixture::kCapture).ok());
    reader.Expect(LogExtent{}, true);
    EXPECT_TRUE(reader.Scan(LoadPolicy{}).ok());
    LogRecord record;
    std::vector<uint64_t> found;
    while (reader.Next(LoadPolicy{}, &record)) {
      uint64_t value;
      std::memcpy(&value, record.payload, sizeof(value));
      found.push_back(value);
    }
    return found;
  }

  SimFileSystem fs;
  WindowBudget budget{100};
  OpenLogs logs;
  LogShared shared;
  std::unique_ptr<DeltaLog> log;
  std::vector<uint64_t> values;
};

TEST(DeltaLog, TheFileHasWhatIsCommittedWhetherItIsOpenOrNot) {
  for (const uint32_t logs_max : {0u, 1u}) {
    SCOPED_TRACE(logs_max);
    OpenLogFixture f(logs_max);
    for (uint64_t commit = 0; commit < 300; ++commit) {
      const std::vector<uint64_t> committed = f.values;
      // Blocks that fill up go to the file before the commit, and do not count before it.
      for (uint64_t v = 0; v < 1 + commit * commit % 301; ++v) f.Append(commit * 1000 + v);
      if (commit % 16 == 0) {
        ASSERT_EQ(f.Found(), committed);
      }
      f.Commit();
      if (commit % 16 == 0) {
        ASSERT_EQ(f.Found(), f.values);
      }
      if (commit % 3 == 0) {
        ASSERT_TRUE(f.log->Sync().ok());
      }
    }
    EXPECT_GT(f.shared.current_seq.load(), 1u);
    EXPECT_EQ(f.Found(), f.values);
  }
}

TEST(DeltaLog, AWriteThatFailsBecomesAStore) {
  OpenLogFixture f(1);
  for (uint64_t v = 0; v < 1000; ++v) {
    f.Append(v);
    if (v % 4 == 1) f.fs.FailKinds(SimFileSystem::kWrite, Status::Make(Code::kIoError, "no writes today"));
    f.Commit();
    f.fs.FailKinds(0, Status());
    ASSERT_TRUE(f.log->Sync().ok());
  }
  EXPECT_EQ(f.Found(), f.values);
}

TEST(DeltaLog, AnOpenLogIsClosedWhenNoSyncHasComeForAWhile) {
  OpenLogFixture f(1);
  EXPECT_TRUE(f.logs.Take());
  f.logs.GiveBack();
  f.Append(1);
  f.Commit();
  ASSERT_TRUE(f.log->Sync().ok());
  EXPECT_FALSE(f.logs.Take());  // It is open.
  f.log->CloseIdleFile();
  EXPECT_FALSE(f.logs.Take());
  f.Append(2);
  f.Commit();
  f.log->CloseIdleFile();
  EXPECT_FALSE(f.logs.Take());
  f.log->CloseIdleFile();
  EXPECT_TRUE(f.logs.Take());
  // Somebody else has the only one: it goes on without.
  f.Append(3);
  f.Commit();
  ASSERT_TRUE(f.log->Sync().ok());
  EXPECT_EQ(f.shared.durable_mark.load(), f.log->end_mark());
  f.logs.GiveBack();
  // A descriptor that cannot be had is done without, too.
  f.fs.FailKinds(SimFileSystem::kOpen, Status::Make(Code::kIoError, "too many open files"));
  f.Append(4);
  f.Commit();
  ASSERT_TRUE(f.log->Sync().ok());
  f.fs.FailKinds(0, Status());
  EXPECT_EQ(f.Found(), f.values);
  ASSERT_TRUE(f.log->Sync().ok());
  EXPECT_FALSE(f.logs.Take());
  f.log.reset();
  EXPECT_TRUE(f.logs.Take());
}

// Without a pin another index that needs room may unmap the window between the look at it and the store.
TEST(DeltaLog, ARotationHoldsTheWindowsThatItMayStoreTo) {
  OpenLogs logs(1);
  LogFixture f;
  uint32_t writes = 0;
  f.fs.before_write = [&] {
    EXPECT_GT(f.log->windows()->pins(), 0u);
    ++writes;
  };
  f.log->KeepFile();
  f.log->KeepOpen(&logs);
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  ASSERT_TRUE(f.log->CreateFile().ok());
  ASSERT_TRUE(f.log->Sync().ok());
  ASSERT_TRUE(f.Append(1).ok());
  ASSERT_TRUE(f.Commit().ok());
  const uint32_t before = writes;
  f.log->Rotate(99);
  EXPECT_GT(writes, before);
}

TEST(DeltaLog, TheFileComesWithTheFirstFrameAndGrowsInSteps) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  EXPECT_FALSE(f.fs.Stat("log").ok());
  std::vector<uint64_t> sizes;
  for (uint64_t v = 0; v < 40'000; ++v) {
    ASSERT_TRUE(f.Append(v).ok());
    const uint64_t blocks = FileBytes(&f) / kBlockBytes;
    if (sizes.empty() || sizes.back() != blocks) sizes.push_back(blocks);
  }
  EXPECT_EQ(sizes, (std::vector<uint64_t>{8, 32, 128, 256, 384}));
}

TEST(DeltaLog, ALogThatGoesOnAfterRecoveryIsReadBackAsOne) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  std::vector<uint64_t> values;
  uint64_t next = 0;
  for (uint64_t round = 1; round <= 20; ++round) {
    for (uint64_t i = 0; i < round * 37; ++i) ASSERT_TRUE(f.Append(next++).ok());
    ASSERT_TRUE(f.Commit().ok());
    ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
    ASSERT_EQ(values, Sequence(0, next)) << "round " << round;
  }
  EXPECT_EQ(f.shared.current_seq.load(), 1u);  // In place: no segment is wasted on a restart.
}

TEST(DeltaLog, RotationStartsASequenceAndRecyclingMakesTheOlderOnesVanish) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 60'000; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  const uint64_t before = f.shared.bytes.load();
  const uint64_t large = FileBytes(&f);
  const uint64_t start = f.log->Rotate(99);
  EXPECT_EQ(start, f.shared.current_seq.load() + 1);
  EXPECT_EQ(f.log->Rotate(99), start);  // Nothing was appended in between.
  for (uint64_t v = 60'000; v < 60'100; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  f.log->Recycle(start, before);
  EXPECT_EQ(f.shared.bytes.load(), 100u * 64 + 24);
  // The segment in use came last in the file; what is before it has been punched.
  EXPECT_GE(f.fs.punches, 1u);
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values, start, 99).ok());
  EXPECT_EQ(values, Sequence(60'000, 60'100));
  // The next ones go to the front, and the file shrinks.
  const uint64_t second = f.log->Rotate(100);
  for (uint64_t v = 0; v < 100; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  f.log->Recycle(second, 100 * 64 + 24);
  EXPECT_LE(FileBytes(&f), uint64_t{kLogSegmentBlocks} * kBlockBytes);
  EXPECT_LT(FileBytes(&f), large);
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values, second, 100).ok());
  EXPECT_EQ(values, Sequence(0, 100));
}

TEST(DeltaLog, FramesOfARecycledSegmentThatCouldNotBePunchedAreNotReplayed) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 10'000; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  const std::vector<std::byte> old(f.Block(0), f.Block(0) + 128 * kBlockBytes);
  const uint64_t start = f.log->Rotate(99);
  f.log->Recycle(start, f.shared.bytes.load());
  ASSERT_TRUE(f.Append(1).ok());
  ASSERT_TRUE(f.Commit().ok());
  // The old content of everything behind the first block comes back, as after a lost punch.
  ASSERT_TRUE(f.fs.Reserve("log", 0, 128 * kBlockBytes).ok());
  std::memcpy(f.Block(1), old.data() + kBlockBytes, 127 * kBlockBytes);
  std::vector<uint64_t> values;
  const Status status = f.Recover(LoadPolicy{}, &values, start, 99);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(values, Sequence(1, 2));
}

TEST(DeltaLog, AFullDiskFailsTheReservationAndTheLogGoesOnOnceThereIsSpace) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  f.fs.bytes_max = 10 * kBlockBytes;
  uint64_t next = 0;
  Status status;
  while ((status = f.Append(next)).ok()) ++next;
  EXPECT_EQ(status.code(), Code::kNoSpace);
  EXPECT_EQ(f.log->windows()->pins(), 0u);
  EXPECT_EQ(f.Append(next).code(), Code::kNoSpace);
  EXPECT_GT(next, 900u);
  f.fs.bytes_max = UINT64_MAX;
  for (uint64_t i = 0; i < 1000; ++i) ASSERT_TRUE(f.Append(next++).ok());
  ASSERT_TRUE(f.Commit().ok());
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, next));
}

TEST(DeltaLog, TheLargestFrameFillsABlock) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 300; ++v) {
    ASSERT_TRUE(f.Append(v, 0, v % 2 == 0 ? kLogPayloadBytesMax : 8).ok());
  }
  ASSERT_TRUE(f.Commit().ok());
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 300));
}

TEST(DeltaLog, BlocksAreHostPagesUnstampedWhileOpenAndWholeOnceFull) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 300; ++v) ASSERT_TRUE(f.Append(v, 1000 + v).ok());
  const char* why = nullptr;
  const auto* first = reinterpret_cast<const BlockHeader*>(f.Block(0));
  EXPECT_TRUE(VerifyBlock(first, 0, &why)) << why;
  EXPECT_EQ(BlockLsn(*first), 1000u + 126);  // 127 frames of 64 bytes fit.
  EXPECT_EQ(first->kind, BlockKind::kLog);
  EXPECT_EQ(first->node_id, 1u);
  EXPECT_EQ(first->birth_epoch, LogFixture::kCapture);
  const auto* open = reinterpret_cast<const BlockHeader*>(f.Block(2));
  EXPECT_EQ(BlockLsn(*open), kLsnUnstamped);
  EXPECT_EQ(open->page.size_version, kPageSizeVersion);
}

TEST(DeltaLog, ALogWithoutAFileDoesNothing) {
  LogFixture f;
  DeltaLog none(&f.shared, &f.fs, &f.budget, "");
  ASSERT_TRUE(none.Reset(1, 1).ok());
  EXPECT_FALSE(none.enabled());
  EXPECT_TRUE(none.Reserve(100).ok());
  none.AppendCommit();
  EXPECT_TRUE(none.Sync().ok());
  EXPECT_EQ(none.Rotate(1), 0u);
  none.Recycle(0, 0);
  EXPECT_EQ(f.fs.reserves, 0u);
}

// --- Writers beside each other.

constexpr uint32_t kPayload = 40;

void AppendShared(DeltaLog* log, uint64_t value, uint64_t lsn) {
  std::byte payload[kPayload] = {};
  std::memcpy(payload, &value, sizeof(value));
  log->AppendShared(OpType::kInsert, 0, payload, kPayload, lsn);
}

TEST(DeltaLog, RoomIsReservedInTheOpenBlockOnly) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  EXPECT_FALSE(f.log->ReserveShared(kPayload));  // No block is open yet.
  EXPECT_EQ(f.log->windows()->pins(), 0u);
  ASSERT_TRUE(f.Append(0).ok());
  const uint32_t frame = sizeof(LogFrame) + kPayload;
  const uint32_t room = (kBlockBytes - f.shared.current_offset) / frame;
  for (uint32_t i = 0; i < room; ++i) ASSERT_TRUE(f.log->ReserveShared(kPayload)) << i;
  EXPECT_FALSE(f.log->ReserveShared(kPayload));
  EXPECT_EQ(f.log->windows()->pins(), room);
  EXPECT_EQ(f.shared.reserved_bytes, room * frame);
  f.log->UnreserveShared(kPayload);
  ASSERT_TRUE(f.log->ReserveShared(kPayload));
  // Whatever the order: the frames follow each other without a hole.
  for (uint32_t i = 0; i < room; ++i) AppendShared(f.log.get(), i + 1, 1000 - i);
  EXPECT_EQ(f.shared.reserved_bytes, 0u);
  EXPECT_EQ(f.log->windows()->pins(), 0u);
  EXPECT_EQ(f.shared.appended_lsn.load(), 1000u);
  EXPECT_FALSE(f.log->ReserveShared(kPayload));
  ASSERT_TRUE(f.Append(room + 1).ok());  // Who is alone opens the next block.
  ASSERT_TRUE(f.log->ReserveShared(kPayload));
  AppendShared(f.log.get(), room + 2, 1);
  ASSERT_TRUE(f.Commit().ok());
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, room + 3));
}

TEST(DeltaLog, ARotatedLogHasNoRoomForThoseBeside) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  ASSERT_TRUE(f.Append(0).ok());
  ASSERT_TRUE(f.log->ReserveShared(kPayload));
  f.log->UnreserveShared(kPayload);
  f.log->Rotate(LogFixture::kCapture + 1);
  EXPECT_FALSE(f.log->ReserveShared(kPayload));
}

// Under a host, frames whose LSNs come in any order: each counts, or not, by itself, also where one that
// does not lies before one that does; and it still does not when the log has gone on.
TEST(DeltaLog, GhostsBeforeFramesThatCountStayGhosts) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  ASSERT_TRUE(f.Append(0, 100).ok());
  const uint64_t lsns[] = {300, 200, 500, 250, 400};  // The redo point is 300.
  for (uint64_t i = 0; i < 5; ++i) ASSERT_TRUE(f.log->ReserveShared(kPayload));
  for (uint64_t i = 0; i < 5; ++i) AppendShared(f.log.get(), i + 1, lsns[i]);
  const TimelineEnd ends[] = {{1, 0, 300}, {2, 0, 450}};
  LoadPolicy policy;
  policy.host = true;
  policy.timelines = ends;
  policy.timeline_count = 1;
  policy.current_timeline = 2;
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(policy, &values).ok());
  EXPECT_EQ(values, (std::vector<uint64_t>{0, 1, 2, 4}));
  EXPECT_EQ(f.shared.appended_lsn.load(), 300u);
  // Their LSNs are given to others.
  ASSERT_TRUE(f.Append(10, 500).ok());
  ASSERT_TRUE(f.log->ReserveShared(kPayload));
  AppendShared(f.log.get(), 11, 400);
  policy.timeline_count = 2;
  policy.current_timeline = 3;
  ASSERT_TRUE(f.Recover(policy, &values).ok());
  EXPECT_EQ(values, (std::vector<uint64_t>{0, 1, 2, 4, 11}));
}

}  // namespace
}  // namespace xtree
