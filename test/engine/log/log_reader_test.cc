// Goal: recovery applies exactly what counts, never adopts what does not, and reports damage to
// what was durable instead of silently ending early.
// Method: a log in memory is damaged in every way that a crash or a bad disk can: pages lost, bits
// flipped at every byte, headers half written. A crash may cost only what was never synced; damage
// to anything older must be noticed.
#include "log/log_reader.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/log_fixture.h"

namespace xtree {
namespace {

LoadPolicy HostPolicy(uint32_t timeline, const std::vector<TimelineEnd>& ends) {
  LoadPolicy policy;
  policy.host = true;
  policy.current_timeline = timeline;
  policy.timelines = ends.data();
  policy.timeline_count = static_cast<uint32_t>(ends.size());
  return policy;
}

TEST(LogReader, OperationsAfterTheLastCommitDoNotCountNowNorLater) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 500; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  for (uint64_t v = 9000; v < 30'000; ++v) ASSERT_TRUE(f.Append(v).ok());  // Across segments.
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 500));
  for (uint64_t v = 500; v < 600; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 600));
}

TEST(LogReader, NothingCommittedMeansNothingCounts) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 500; ++v) ASSERT_TRUE(f.Append(v).ok());
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_TRUE(values.empty());
  ASSERT_TRUE(f.Append(1).ok());
  ASSERT_TRUE(f.Commit().ok());
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(1, 2));
}

TEST(LogReader, AnyLostPageOfAnUnsyncedLogCostsWhatFollowsItOnly) {
  for (uint32_t page = 0; page < 14; ++page) {
    SCOPED_TRACE(page);
    LogFixture f;
    ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
    uint64_t next = 0;
    for (int commit = 0; commit < 40; ++commit) {
      for (int i = 0; i < 20; ++i) ASSERT_TRUE(f.Append(next++).ok());
      ASSERT_TRUE(f.Commit().ok());
    }
    std::memset(f.Block(0) + page * 4096, 0, 4096);
    std::vector<uint64_t> values;
    const Status status = f.Recover(LoadPolicy{}, &values);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(values, Sequence(0, values.size()));
    EXPECT_EQ(values.size() % 20, 0u);  // Whole commits.
    EXPECT_LE(values.size(), page * 4096 / 64);
    // What the hole cut off must not come back when the log has grown over the hole again.
    const uint64_t kept = values.size();
    for (uint64_t v = kept; v < kept + 5; ++v) ASSERT_TRUE(f.Append(v).ok());
    ASSERT_TRUE(f.Commit().ok());
    ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
    EXPECT_EQ(values, Sequence(0, kept + 5));
  }
}

// Flips each byte in turn of what a sync has covered. Every flip must be reported, or harmless.
TEST(LogReader, AFlipAnywhereInWhatWasSyncedIsReportedOrHarmless) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 300; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  ASSERT_TRUE(f.log->Sync().ok());
  const uint32_t synced = f.shared.current_block * kBlockBytes + f.shared.current_offset;
  for (uint64_t v = 300; v < 400; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());  // Names how far the sync went.
  uint32_t reported = 0;
  for (uint32_t at = 0; at < synced; ++at) {
    SCOPED_TRACE(at);
    f.Block(0)[at] ^= std::byte{0x10};
    std::vector<uint64_t> values;
    const Status status = f.Recover(LoadPolicy{}, &values);
    if (status.ok()) {
      ASSERT_EQ(values, Sequence(0, 400));
    } else {
      ASSERT_TRUE(status.code() == Code::kCorruption || status.code() == Code::kBroken);
      ++reported;
    }
    f.Block(0)[at] ^= std::byte{0x10};
  }
  EXPECT_GT(reported, synced - 3 * sizeof(BlockHeader));
}

// The log goes on in its last block, and stamps it when that is full.
TEST(LogReader, AFlipInTheLastHeaderIsReportedOrTheLogGoesOn) {
  uint32_t reported = 0;
  for (uint32_t bit = 0; bit < 8 * sizeof(BlockHeader); ++bit) {
    SCOPED_TRACE(bit);
    LogFixture f;
    ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
    for (uint64_t v = 0; v < 10; ++v) ASSERT_TRUE(f.Append(v).ok());
    f.Block(0)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    std::vector<uint64_t> values;
    const Status status = f.Recover(HostPolicy(1, {}), &values);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), Code::kCorruption);
      ++reported;
      continue;
    }
    EXPECT_EQ(values, Sequence(0, 10));
    for (uint64_t v = 10; f.shared.current_block < 2; ++v) ASSERT_TRUE(f.Append(v).ok());
  }
  EXPECT_GT(reported, 8 * 32u);
}

TEST(LogReader, ATornTailIsTheEndAndNoDamage) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 100; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  ASSERT_TRUE(f.log->Sync().ok());
  for (uint64_t v = 100; v < 200; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  // Frame 110, and the commit frame between, precede it in the same block.
  f.Block(0)[sizeof(BlockHeader) + 110 * 64 + 24 + 30] ^= std::byte{1};
  std::vector<uint64_t> values;
  const Status status = f.Recover(LoadPolicy{}, &values);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(values, Sequence(0, 100));
}

TEST(LogReader, AHeaderThatWasBeingWrittenIsNoBlockYet) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 100; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_TRUE(f.Commit().ok());
  auto* header = reinterpret_cast<BlockHeader*>(f.Block(1));
  InitBlock(header, BlockKind::kLog, 1);
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 100));
  InitBlock(header, BlockKind::kFree, 1);
  header->node_id = 1;
  ASSERT_TRUE(f.Recover(LoadPolicy{}, &values).ok());
  EXPECT_EQ(values, Sequence(0, 100));
}

TEST(LogReader, ALogThatBuildsOnAnotherCaptureIsBroken) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  ASSERT_TRUE(f.Append(1).ok());
  ASSERT_TRUE(f.Commit().ok());
  std::vector<uint64_t> values;
  EXPECT_EQ(f.Recover(LoadPolicy{}, &values, 1, 12).code(), Code::kBroken);
}

TEST(LogReader, HostRecordsCountUpToTheEndOfTheirTimelineAndThoseWithoutAnLsnAlways) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 10; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  ASSERT_TRUE(f.Append(77, 0).ok());
  std::vector<uint64_t> values;
  const std::vector<TimelineEnd> ends{{1, 0, 104}};
  ASSERT_TRUE(f.Recover(HostPolicy(2, ends), &values).ok());
  EXPECT_EQ(values, (std::vector<uint64_t>{0, 1, 2, 3, 4, 77}));
  // The current timeline's own count whatever their LSN; and the ghosts stay away.
  ASSERT_TRUE(f.Append(78, 101).ok());
  ASSERT_TRUE(f.Recover(HostPolicy(2, ends), &values).ok());
  EXPECT_EQ(values, (std::vector<uint64_t>{0, 1, 2, 3, 4, 77, 78}));
  EXPECT_EQ(f.Recover(HostPolicy(3, ends), &values).code(), Code::kBroken);
}

// A page behind others that are lost with all headers; and new blocks of the same sequence before it.
TEST(LogReader, WhatIsLeftOfASegmentWithoutAHeaderIsErased) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; f.shared.current_block < 3; ++v) ASSERT_TRUE(f.Append(v).ok());
  std::memset(f.Block(0), 0, 2 * kBlockBytes + kBlockBytes / 2);
  std::memset(f.Block(3), 0, kBlockBytes);
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(HostPolicy(1, {}), &values).ok());
  EXPECT_TRUE(values.empty());
  for (uint64_t v = 0; v < 200; ++v) ASSERT_TRUE(f.Append(v).ok());
  ASSERT_EQ(f.shared.current_block, 1u);
  const Status status = f.Recover(HostPolicy(1, {}), &values);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(values, Sequence(0, 200));
}

// A power cut keeps pages of a segment's new life and not those before them; then that life begins again.
TEST(LogReader, WhatIsLeftOfALostLifeIsErasedFromAStaleSegment) {
  for (const bool header_of_last_life : {false, true}) {
    SCOPED_TRACE(header_of_last_life);
    LogFixture f;
    ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
    for (uint64_t v = 0; f.shared.current_block < 2; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
    const std::vector<std::byte> first_life(f.Block(0), f.Block(2));
    f.log->Recycle(f.log->Rotate(LogFixture::kCapture), 1'000'000);
    ASSERT_TRUE(f.Append(0, 1000).ok());
    ASSERT_EQ(f.shared.current_seq.load(), 2u);
    for (uint64_t v = 1; f.shared.current_block < 2; ++v) ASSERT_TRUE(f.Append(v, 1000 + v).ok());
    ASSERT_EQ(f.shared.current_segment, 0u);
    std::memcpy(f.Block(0), first_life.data(), kBlockBytes);
    std::memset(f.Block(1), 0, 4096);
    if (header_of_last_life) std::memcpy(f.Block(1), first_life.data() + kBlockBytes, 4096);
    std::memset(f.Block(2), 0, kBlockBytes);
    std::vector<uint64_t> values;
    ASSERT_TRUE(f.Recover(HostPolicy(1, {}), &values, 2).ok());
    EXPECT_TRUE(values.empty());
    EXPECT_TRUE(std::all_of(f.Block(1), f.Block(2), [](std::byte b) { return b == std::byte{0}; }));
    for (uint64_t v = 0; v < 10; ++v) ASSERT_TRUE(f.Append(v, 2000 + v).ok());
    const Status status = f.Recover(HostPolicy(1, {}), &values, 2);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(values, Sequence(0, 10));
  }
}

// What goes is older than the capture, so what is remembered of the log stays true.
TEST(LogReader, StaleSegmentsGoWithoutAnythingBeingForgotten) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 10; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  const uint64_t old_bytes = f.shared.bytes.load();
  ASSERT_EQ(f.log->Rotate(LogFixture::kCapture), 2u);
  for (uint64_t v = 10; v < 20; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  const LogExtent held{LogFixture::kCapture, f.shared.end_mark.load(), f.shared.bytes.load() - old_bytes};
  std::vector<uint64_t> values;
  const Status status = f.Recover(HostPolicy(1, {}), &values, held, 2);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(values, Sequence(10, 20));
  EXPECT_TRUE(std::all_of(f.Block(0), f.Block(1), [](std::byte b) { return b == std::byte{0}; }));
}

// The index would take it for its own, and stamp blocks with it.
TEST(LogReader, TheLsnOfABlockThatHasNoneIsNoRecords) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 10; ++v) ASSERT_TRUE(f.Append(v, v == 9 ? kLsnUnstamped : 0).ok());
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(HostPolicy(1, {}), &values).ok());
  EXPECT_EQ(values, Sequence(0, 9));
}

TEST(LogReader, GhostsBehindTheLastRecordThatCountsAreErased) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 30'000; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  std::vector<uint64_t> values;
  const std::vector<TimelineEnd> ends{{1, 0, 199}};
  ASSERT_TRUE(f.Recover(HostPolicy(2, ends), &values).ok());
  EXPECT_EQ(values, Sequence(0, 100));
  for (uint64_t v = 100; v < 300; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  // Even a policy under which they would count finds none.
  const std::vector<TimelineEnd> generous{{1, 0, 1'000'000}};
  ASSERT_TRUE(f.Recover(HostPolicy(2, generous), &values).ok());
  EXPECT_EQ(values, Sequence(0, 300));
}

TEST(LogReader, HostDamageBeforeARecordThatCountsIsReported) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 200; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  std::byte* frame = f.Block(0) + sizeof(BlockHeader) + 50 * 64;
  const std::vector<TimelineEnd> ends{{1, 0, 250}};
  std::vector<uint64_t> values;
  frame[30] ^= std::byte{4};
  EXPECT_EQ(f.Recover(HostPolicy(2, ends), &values).code(), Code::kCorruption);
  // All that follows is beyond the redo point: a torn tail.
  const std::vector<TimelineEnd> earlier{{1, 0, 140}};
  LogFixture copy;
  ASSERT_TRUE(copy.fs.Reserve("log", 0, 8 * kBlockBytes).ok());
  std::memcpy(copy.Block(0), f.Block(0), 8 * kBlockBytes);
  ASSERT_TRUE(copy.Recover(HostPolicy(2, earlier), &values).ok());
  EXPECT_EQ(values, Sequence(0, 41));
}

// Zeros look like a place that was never filled; but records follow each other without a gap, whatever order
// their writers come in. So zeros before a record that counts are damage, wherever they begin and end.
TEST(LogReader, ZerosInAHostsLogBeforeARecordThatCountsAreDamage) {
  constexpr uint32_t kBlocks = 3;
  constexpr uint32_t kFrames = (kBlockBytes - sizeof(BlockHeader)) / 64;  // In a block, which they fill but for 64 bytes.
  LogFixture whole;
  ASSERT_TRUE(whole.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < kBlocks * kFrames; ++v) ASSERT_TRUE(whole.Append(v, 100 + v).ok());
  const std::vector<TimelineEnd> ends{{1, 0, 1'000'000}};
  const auto recover = [&](uint64_t from, uint64_t bytes, const std::vector<TimelineEnd>& policy,
                           std::vector<uint64_t>* values) {
    LogFixture f;
    EXPECT_TRUE(f.fs.Reserve("log", 0, 8 * kBlockBytes).ok());
    std::memcpy(f.Block(0), whole.Block(0), kBlocks * kBlockBytes);
    std::memset(f.Block(0) + from, 0, bytes);
    return f.Recover(HostPolicy(2, policy), values);
  };
  std::vector<uint64_t> values;
  // Whole frames, and pieces of them; up to the end of the block, which then seems to end sooner; a page.
  for (uint32_t block = 0; block < kBlocks - 1; ++block) {
    for (uint32_t frame = 0; frame < kFrames; ++frame) {
      SCOPED_TRACE(::testing::Message() << block << " " << frame);
      const uint64_t at = block * kBlockBytes + sizeof(BlockHeader) + frame * 64;
      const uint64_t rest = (block + 1) * kBlockBytes - at;
      for (const uint64_t bytes : {uint64_t{64}, uint64_t{8}, rest}) {
        EXPECT_EQ(recover(at, bytes, ends, &values).code(), Code::kCorruption) << bytes;
      }
      // Where no record behind them counts, the log ends there.
      const std::vector<TimelineEnd> earlier{{1, 0, 100 + block * kFrames + frame - 1}};
      ASSERT_TRUE(recover(at, rest, earlier, &values).ok());
      EXPECT_EQ(values, Sequence(0, block * kFrames + frame));
    }
  }
  // Pages; where they held the header of a block, also of the last one, the other page's records tell.
  for (uint32_t page = 0; page < 2 * kBlocks - 1; ++page) {
    EXPECT_EQ(recover(page * 4096, 4096, ends, &values).code(), Code::kCorruption) << page;
  }
}

// What is left of a segment's last life, which could not be punched, says nothing about its present one.
TEST(LogReader, LeftoversWithoutAHeaderAreNotTakenForALostPage) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 300; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  std::vector<std::byte> leftover(f.Block(1) + 4096, f.Block(1) + kBlockBytes);
  f.log->Recycle(f.log->Rotate(LogFixture::kCapture), 1'000'000);
  for (uint64_t v = 300; v < 320; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  ASSERT_EQ(f.log->Rotate(LogFixture::kCapture), 3u);
  std::memcpy(f.Block(1) + 4096, leftover.data(), leftover.size());
  for (uint64_t v = 320; v < 340; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  std::vector<uint64_t> values;
  const Status status = f.Recover(HostPolicy(2, {{1, 0, 1'000'000}}), &values, 2);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(values, Sequence(300, 340));
}

// The first block of a segment also says that the segment is in use.
TEST(LogReader, AHostsLogThatLacksABlockBeforeARecordThatCountsIsDamaged) {
  constexpr uint32_t kBlocks = 130;
  LogFixture whole;
  ASSERT_TRUE(whole.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; whole.shared.current_seq.load() < 2 || whole.shared.current_block < 1; ++v) {
    ASSERT_TRUE(whole.Append(v, 100 + v, 2000).ok());
  }
  const std::vector<TimelineEnd> ends{{1, 0, 1'000'000}}, earlier{{1, 0, 120}};
  for (const uint32_t lost : {0u, 1u, 60u, 127u, 128u}) {
    SCOPED_TRACE(lost);
    LogFixture f;
    ASSERT_TRUE(f.fs.Reserve("log", 0, 2 * kLogSegmentBlocks * kBlockBytes).ok());
    for (uint32_t b = 0; b < kBlocks; ++b) std::memcpy(f.Block(b), whole.Block(b), kBlockBytes);
    std::memset(f.Block(lost), 0, kBlockBytes);
    std::vector<uint64_t> values;
    EXPECT_EQ(f.Recover(HostPolicy(2, ends), &values).code(), Code::kCorruption);
    // Where nothing behind it counts the log ends there, and goes on.
    if (lost < 60) continue;
    ASSERT_TRUE(f.Recover(HostPolicy(2, earlier), &values).ok());
    EXPECT_EQ(values, Sequence(0, 21));
    ASSERT_TRUE(f.Append(21, 2'000'000).ok());
    ASSERT_TRUE(f.Recover(HostPolicy(2, earlier), &values).ok());
    EXPECT_EQ(values, Sequence(0, 22));
  }
}

// What a reader that knows nothing takes for the end, or for a slot that was never filled.
TEST(LogReader, ALogThatHoldsLessThanItWasSyncedWithIsBroken) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 400; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  const LogExtent held{LogFixture::kCapture, f.shared.end_mark.load(), f.shared.bytes.load()};
  for (uint64_t v = 400; v < 500; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  const uint32_t blocks = f.shared.current_block + 1;
  ASSERT_GE(blocks, 4u);
  std::vector<std::byte> whole(blocks * kBlockBytes);
  std::memcpy(whole.data(), f.Block(0), whole.size());
  const std::vector<TimelineEnd> ends;
  std::vector<uint64_t> values;
  ASSERT_TRUE(f.Recover(HostPolicy(1, ends), &values, held).ok());
  EXPECT_EQ(values, Sequence(0, 500));

  const auto zeros = [&](size_t from, size_t to) {
    std::memcpy(f.Block(0), whole.data(), whole.size());
    std::memset(f.Block(0) + from, 0, to - from);
    return f.Recover(HostPolicy(1, ends), &values, held).code();
  };
  const size_t frame = sizeof(BlockHeader) + 20 * 64;
  EXPECT_EQ(zeros(frame, frame + 64), Code::kCorruption);                   // One record: seen by those behind it.
  EXPECT_EQ(zeros(0, whole.size()), Code::kBroken);                         // All of it.
  EXPECT_EQ(zeros((blocks - 2) * kBlockBytes, whole.size()), Code::kBroken);  // The end.
  // What was appended later was not known to be on disk, and a torn end is none of a reader's business.
  const uint32_t position = static_cast<uint32_t>(held.end_mark);
  EXPECT_EQ(zeros((position >> 16) * kBlockBytes + (position & 0xffff), whole.size()), Code::kOk);
  EXPECT_EQ(values, Sequence(0, 400));
  // A file that is cut short, or gone, is no other case.
  ASSERT_TRUE(f.fs.Truncate("log", kBlockBytes).ok());
  EXPECT_EQ(f.Recover(HostPolicy(1, ends), &values, held).code(), Code::kBroken);
  ASSERT_TRUE(f.fs.Truncate("log", 0).ok());
  EXPECT_EQ(f.Recover(HostPolicy(1, ends), &values, held).code(), Code::kBroken);
}

// Ghosts have been synced like all else. They go only after it was forgotten that the log held them, and
// until then they stay.
TEST(LogReader, WhatTheLogHeldIsForgottenBeforeItsGhostsGo) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 400; ++v) ASSERT_TRUE(f.Append(v, 100 + v).ok());
  const LogExtent held{LogFixture::kCapture, f.shared.end_mark.load(), f.shared.bytes.load()};
  const std::vector<TimelineEnd> ends{{1, 0, 199}};
  const LoadPolicy policy = HostPolicy(2, ends);
  std::vector<uint64_t> values;
  EXPECT_EQ(f.Recover(policy, &values, held).code(), Code::kNeedForget);
  EXPECT_EQ(values, Sequence(0, 100));
  EXPECT_EQ(f.Recover(policy, &values, held).code(), Code::kNeedForget);
  ASSERT_TRUE(f.Recover(policy, &values).ok());
  EXPECT_EQ(values, Sequence(0, 100));
  // It would be wrong to remember it now.
  EXPECT_EQ(f.Recover(policy, &values, held).code(), Code::kBroken);
  // What the log holds after that is counted right, ghosts in its middle included.
  ASSERT_TRUE(f.Recover(policy, &values).ok());
  for (uint64_t v = 100; v < 300; ++v) ASSERT_TRUE(f.Append(v, 500 + v).ok());
  const std::vector<TimelineEnd> later{{1, 0, 199}, {2, 0, 699}};
  const LogExtent now{LogFixture::kCapture, f.shared.end_mark.load(), f.shared.bytes.load()};
  ASSERT_TRUE(f.Recover(HostPolicy(2, ends), &values, now).ok());
  EXPECT_EQ(f.Recover(HostPolicy(3, later), &values, now).code(), Code::kNeedForget);
  EXPECT_EQ(values, Sequence(0, 200));
}

// The host gives each block that has changed its own checksum. Here it is the reader that changes one, and
// nobody might append to it later.
TEST(LogReader, ABlockWhoseTailIsErasedCountsAsTouched) {
  LogFixture f;
  ASSERT_TRUE(f.log->Reset(LogFixture::kCapture, 1).ok());
  for (uint64_t v = 0; v < 200; ++v) ASSERT_TRUE(f.Append(v, 1000 + v).ok());
  f.Reopen();
  f.log->TrackTouched(true);
  const TimelineEnd end{1, 0, 1149};  // In the middle of the second block.
  LoadPolicy policy;
  policy.host = true;
  policy.timelines = &end;
  policy.timeline_count = 1;
  policy.current_timeline = 2;
  LogReader reader(f.log.get());
  ASSERT_TRUE(reader.Open(1, LogFixture::kCapture).ok());
  ASSERT_TRUE(reader.Scan(policy).ok());
  ASSERT_TRUE(reader.Finish().ok());
  uint32_t block = 0;
  const BlockHeader* touched = f.log->NextTouched(&block);
  ASSERT_NE(touched, nullptr);
  EXPECT_EQ(block, 1u);
  EXPECT_EQ(BlockLsn(*touched), kLsnUnstamped);
  EXPECT_EQ(f.log->NextTouched(&block), nullptr);
}

}  // namespace
}  // namespace xtree
