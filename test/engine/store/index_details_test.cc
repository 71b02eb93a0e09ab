// Goal: an operation is logged once, before it is applied, with exactly what replay needs; what
// fails or is discarded is neither logged nor applied; every row is in the tree where scans look.
// Method: an index in memory beside a log that writes down its calls and can refuse them.
#include "store/index_details.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "store/memory_store.h"
#include "support/epochs.h"

namespace xtree {
namespace {

struct Logged {
  bool is_delete;
  uint32_t tree;
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  uint64_t lsn;
  uint64_t epoch_before;
};

class RecordingLog final : public OperationLog {
 public:
  const IndexShared* shared = nullptr;
  bool refuse = false;
  uint32_t reserved_bytes = 0;
  std::vector<Logged> frames;

  Status ReserveFrame(uint32_t payload_bytes) override {
    if (refuse) return Status::Make(Code::kNoSpace, "the log is full");
    reserved_bytes = payload_bytes;
    return Status::Ok();
  }
  void AppendInsert(uint32_t tree, const KeySpec& spec, const Key& key, uint64_t record_id,
                    uint64_t lsn) noexcept override {
    Append(false, tree, spec, key, &record_id, 1, lsn);
  }
  void AppendDelete(uint32_t tree, const KeySpec& spec, const Key& bound, const uint64_t* ids,
                    uint32_t count, uint64_t lsn) noexcept override {
    Append(true, tree, spec, bound, ids, count, lsn);
  }

 private:
  void Append(bool is_delete, uint32_t tree, const KeySpec& spec, const Key& key,
              const uint64_t* ids, uint32_t count, uint64_t lsn) {
    frames.push_back({is_delete, tree, {key.lo, key.lo + spec.dims}, {key.hi, key.hi + spec.dims},
                      {ids, ids + count}, lsn, shared->trees[tree].entries.load()});
  }
};

Key Box(double x0, double y0, double x1, double y1) {
  Key key;
  key.lo[0] = x0;
  key.lo[1] = y0;
  key.hi[0] = x1;
  key.hi[1] = y1;
  return key;
}

class IndexDetailsTest : public ::testing::Test {
 protected:
  IndexDetailsTest() : epochs_(2), store_(IndexOptions{}, epochs_.get()), index_(&store_, &log_) {
    log_.shared = store_.shared();
  }
  uint64_t entries(uint32_t tree) { return store_.shared()->trees[tree].entries.load(); }
  Epochs epochs_;
  RecordingLog log_;
  MemoryStore store_;
  IndexDetails index_;
};

TEST_F(IndexDetailsTest, AnInsertionIsLoggedBeforeItIsApplied) {
  const Key key = Box(1, 2, 3, 4);
  ASSERT_TRUE(index_.PrepareInsert(&key, 17).ok());
  EXPECT_TRUE(index_.prepared());
  EXPECT_TRUE(log_.frames.empty());
  EXPECT_EQ(log_.reserved_bytes, 8u + 4 * 8);
  index_.Apply(900);
  EXPECT_FALSE(index_.prepared());
  ASSERT_EQ(log_.frames.size(), 1u);
  const Logged& frame = log_.frames[0];
  EXPECT_FALSE(frame.is_delete);
  EXPECT_EQ(frame.tree, kTreeMain);
  EXPECT_EQ(frame.lo, (std::vector<double>{1, 2}));
  EXPECT_EQ(frame.hi, (std::vector<double>{3, 4}));
  EXPECT_EQ(frame.ids, std::vector<uint64_t>{17});
  EXPECT_EQ(frame.lsn, 900u);
  EXPECT_EQ(frame.epoch_before, 0u);
  EXPECT_EQ(entries(kTreeMain), 1u);
  EXPECT_TRUE(index_.tree(kTreeMain)->Contains(key, 17).value());
}

TEST_F(IndexDetailsTest, TheHighestLsnIsKept) {
  const Key key = Box(1, 2, 3, 4);
  for (uint64_t lsn : {100, 300, 200, 0}) {
    ASSERT_TRUE(index_.PrepareInsert(&key, lsn).ok());
    index_.Apply(lsn);
  }
  EXPECT_EQ(store_.shared()->applied_lsn.load(), 300u);
}

TEST_F(IndexDetailsTest, NullAndUnorderedRowsLieApart) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  ASSERT_TRUE(index_.PrepareInsert(nullptr, 5).ok());
  index_.Apply(1);
  const Key unordered = Box(0, nan, 1, 1);
  ASSERT_TRUE(index_.PrepareInsert(&unordered, 6).ok());
  EXPECT_EQ(log_.reserved_bytes, 16u);
  index_.Apply(2);
  EXPECT_EQ(entries(kTreeMain), 0u);
  EXPECT_EQ(entries(kTreeNull), 2u);
  ASSERT_EQ(log_.frames.size(), 2u);
  EXPECT_EQ(log_.frames[0].lo, std::vector<double>{5});
  EXPECT_EQ(log_.frames[1].lo, std::vector<double>{-7});
  EXPECT_EQ(log_.frames[1].tree, kTreeNull);
  Key key;
  key.lo[0] = key.hi[0] = 5;
  EXPECT_TRUE(index_.tree(kTreeNull)->Contains(key, 5).value());
}

TEST_F(IndexDetailsTest, ADeletionIsLoggedWithItsBoundAndIds) {
  for (uint64_t id = 1; id <= 500; ++id) {
    const Key key = Box(double(id), 0, double(id), 1);
    ASSERT_TRUE(index_.PrepareInsert(&key, id).ok());
    index_.Apply(0);
  }
  log_.frames.clear();
  const std::vector<uint64_t> ids = {3, 40, 400, 999};
  uint32_t found = 77;
  const Key bound = Box(0, 0, 100, 1);
  ASSERT_TRUE(index_.PrepareDelete(kTreeMain, bound, ids.data(), 4, &found).ok());
  EXPECT_EQ(found, 2u);  // 400 is outside of the bound, 999 nowhere.
  EXPECT_EQ(entries(kTreeMain), 500u);
  index_.Apply(12);
  EXPECT_EQ(entries(kTreeMain), 498u);
  ASSERT_EQ(log_.frames.size(), 1u);
  EXPECT_TRUE(log_.frames[0].is_delete);
  EXPECT_EQ(log_.frames[0].ids, ids);
  EXPECT_EQ(log_.frames[0].hi, (std::vector<double>{100, 1}));
}

TEST_F(IndexDetailsTest, ADeletionThatFindsNothingLeavesNothingPrepared) {
  const uint64_t id = 1;
  uint32_t found = 77;
  ASSERT_TRUE(index_.PrepareDelete(kTreeMain, Box(0, 0, 9, 9), &id, 1, &found).ok());
  EXPECT_EQ(found, 0u);
  EXPECT_FALSE(index_.prepared());
  EXPECT_FALSE(store_.has_staged());
  EXPECT_EQ(store_.windows()->pins(), 0u);
}

TEST_F(IndexDetailsTest, WhatFailsOrIsDiscardedLeavesNoTrace) {
  const Key key = Box(1, 2, 3, 4);
  ASSERT_TRUE(index_.PrepareInsert(&key, 1).ok());
  index_.Apply(0);
  const uint32_t blocks = store_.allocator()->used_blocks();
  log_.frames.clear();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(index_.PrepareInsert(&key, 2).ok());
    index_.Discard();
    index_.Discard();  // Idempotent.
    log_.refuse = true;
    EXPECT_EQ(index_.PrepareInsert(&key, 2).code(), Code::kNoSpace);
    const uint64_t id = 1;
    uint32_t found = 77;
    EXPECT_EQ(index_.PrepareDelete(kTreeMain, key, &id, 1, &found).code(), Code::kNoSpace);
    EXPECT_EQ(found, 0u);
    log_.refuse = false;
    ASSERT_TRUE(index_.PrepareDelete(kTreeMain, key, &id, 1, &found).ok());
    EXPECT_EQ(found, 1u);
    index_.Discard();
  }
  EXPECT_FALSE(index_.prepared());
  EXPECT_TRUE(log_.frames.empty());
  EXPECT_EQ(entries(kTreeMain), 1u);
  EXPECT_EQ(store_.allocator()->used_blocks(), blocks);
  EXPECT_EQ(store_.windows()->pins(), 0u);
  EXPECT_TRUE(index_.tree(kTreeMain)->Contains(key, 1).value());
  EXPECT_FALSE(index_.tree(kTreeMain)->Contains(key, 2).value());
}

TEST_F(IndexDetailsTest, BadArgumentsAreRefused) {
  const Key reversed = Box(3, 0, 1, 1);
  EXPECT_EQ(index_.PrepareInsert(&reversed, 1).code(), Code::kInvalidArgument);
  const Key key = Box(1, 2, 3, 4);
  EXPECT_EQ(index_.PrepareInsert(&key, kRecordIdMax + 1).code(), Code::kInvalidArgument);
  EXPECT_TRUE(index_.PrepareInsert(&key, kRecordIdMax).ok());
  index_.Discard();
  std::vector<uint64_t> ids(IndexDetails::kDeleteBatchMax + 1);
  uint32_t found;
  for (uint32_t count : {0u, IndexDetails::kDeleteBatchMax + 1}) {
    EXPECT_EQ(index_.PrepareDelete(kTreeMain, key, ids.data(), count, &found).code(),
              Code::kInvalidArgument);
  }
}

TEST_F(IndexDetailsTest, ReplayIsNotLoggedAgain) {
  index_.set_logging(false);
  log_.refuse = true;
  const Key key = Box(1, 2, 3, 4);
  ASSERT_TRUE(index_.PrepareInsert(&key, 1).ok());
  index_.Apply(44);
  EXPECT_TRUE(log_.frames.empty());
  EXPECT_EQ(entries(kTreeMain), 1u);
  EXPECT_EQ(store_.shared()->applied_lsn.load(), 44u);
}

}  // namespace
}  // namespace xtree
