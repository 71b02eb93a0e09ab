// Goal: a file that is cut short under a running server makes calls fail and nothing else: no crash, no
// answer out of zeros, no change that is lost in silence. And: what must not be left half done is not,
// where memory or patience ends.
// Method: the host in miniature; files are truncated between and within calls.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "capi_host.h"
#include "segment/block.h"

using namespace xtree::testing;  // NOLINT

namespace {

class CapiFaultTest : public CapiTest {
 protected:
  // An index of 20,000 boxes whose nodes are all captured.
  void Fill(Host* host) {
    ASSERT_TRUE(host->Create(kBoxes)) << host->error_.message;
    boxes_ = RandomBoxes(20000, 11);
    for (size_t i = 0; i < boxes_.size(); ++i) {
      ASSERT_TRUE(host->Insert(boxes_[i].lo, boxes_[i].hi, i, 100 + i)) << host->error_.message;
    }
    ASSERT_TRUE(host->Fold()) << host->error_.message;
  }
  std::vector<Box> boxes_;
};

TEST_F(CapiFaultTest, EveryReaderFailsOnAFileThatWasCutShortAndSaysWhich) {
  Host host(directory_);
  Fill(&host);
  const uint64_t size = std::filesystem::file_size(host.data_);
  for (const uint64_t keep : {size / 2, size / 8, uint64_t{16384}, uint64_t{0}}) {
    SCOPED_TRACE(keep);
    std::filesystem::resize_file(host.data_, keep);
    host.Reopen();
    EXPECT_EQ(host.ScanError(), XT_CORRUPTION);
    EXPECT_NE(std::string(host.error_.message).find(host.data_), std::string::npos)
        << host.error_.message;
    EXPECT_TRUE(xt_faulted(host.index_));
    // The handle refuses what it could still answer, until it is opened anew.
    double fraction;
    const XtPredicate all = Everything();
    EXPECT_FALSE(xt_estimate(host.index_, &all, &fraction, &host.error_));
    EXPECT_EQ(host.ScanError(), XT_CORRUPTION);

    host.Reopen();
    EXPECT_FALSE(xt_faulted(host.index_));
    XtWalk* walk = xt_walk_begin(host.index_, true, &host.error_);
    if (walk != nullptr) {
      EXPECT_FALSE(host.FinishWalk(walk));
      xt_walk_free(walk);
    }
    EXPECT_EQ(host.error_.code, XT_CORRUPTION);
    host.Reopen();
    double* rectangles = nullptr;
    uint64_t count = 0;
    if (!xt_level_boxes(host.index_, 0, 100000, &rectangles, &count, &host.error_)) {
      EXPECT_EQ(host.error_.code, XT_CORRUPTION);
    }
    std::free(rectangles);
    EXPECT_FALSE(xt_is_broken(host.index_));  // Nobody has lost a change.
  }
}

TEST_F(CapiFaultTest, AScanThatIsUnderWayFailsAtItsNextBatch) {
  Host host(directory_);
  Fill(&host);
  XtScan* scan = xt_scan_create(host.index_, &host.error_);
  const XtPredicate all = Everything();
  std::vector<uint64_t> batch(XT_SCAN_BATCH_MIN);
  ASSERT_TRUE(xt_scan_window(scan, XT_TREE_MAIN, &all, &host.error_));
  ASSERT_GT(xt_scan_next(scan, batch.data(), nullptr, nullptr, nullptr, XT_SCAN_BATCH_MIN, false,
                         &host.error_), 0);
  std::filesystem::resize_file(host.data_, 0);
  EXPECT_EQ(xt_scan_next(scan, batch.data(), nullptr, nullptr, nullptr, XT_SCAN_BATCH_MIN, false,
                         &host.error_), -1);
  EXPECT_EQ(host.error_.code, XT_CORRUPTION);
  xt_scan_free(scan);
}

TEST_F(CapiFaultTest, AChangeThatMeetsTheFaultIsRefusedAndTheIndexIsBrokenInMemory) {
  Host host(directory_);
  Fill(&host);
  std::filesystem::resize_file(host.data_, 32768);
  size_t inserted = 0;
  while (inserted < 1000 &&
         host.Insert(boxes_[inserted].lo, boxes_[inserted].hi, 50000 + inserted, 30000 + inserted)) {
    ++inserted;
  }
  EXPECT_LT(inserted, 1000u);
  EXPECT_EQ(host.error_.code, XT_CORRUPTION) << host.error_.message;
  EXPECT_TRUE(xt_is_broken(host.index_));
  host.Reopen();
  EXPECT_EQ(host.ScanError(), XT_BROKEN);
}

TEST_F(CapiFaultTest, AnOperationWhoseLogFrameIsLostBreaksTheIndexOnDiskToo) {
  Host host(directory_);
  Fill(&host);
  ASSERT_TRUE(host.Insert(boxes_[0].lo, boxes_[0].hi, 50000, 40000));
  ASSERT_TRUE(xt_prepare_insert(host.index_, boxes_[1].lo, boxes_[1].hi, 50001, &host.error_));
  std::filesystem::resize_file(host.log_, 0);
  xt_apply(host.index_, 40001);
  ASSERT_TRUE(xt_faulted(host.index_));
  EXPECT_TRUE(xt_is_broken(host.index_));
  xt_fault(host.index_, &host.error_);
  EXPECT_EQ(host.error_.code, XT_CORRUPTION) << host.error_.message;
  ASSERT_TRUE(xt_mark_broken(host.index_, &host.error_)) << host.error_.message;
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_BROKEN);
}

TEST_F(CapiFaultTest, AFoldThatMeetsTheFaultPublishesNothing) {
  Host host(directory_);
  Fill(&host);
  for (size_t i = 0; i < 3000; ++i) {
    ASSERT_TRUE(host.Insert(boxes_[i].lo, boxes_[i].hi, 50000 + i, 30000 + i));
  }
  std::filesystem::resize_file(host.data_, 32768);
  EXPECT_FALSE(host.Fold());
  EXPECT_EQ(host.error_.code, XT_CORRUPTION) << host.error_.message;
  EXPECT_TRUE(xt_is_broken(host.index_));
}

TEST_F(CapiFaultTest, AFileCanBeMarkedBrokenWithoutAHandle) {
  Host host(directory_);
  Fill(&host);
  ASSERT_TRUE(xt_mark_file_broken(host.data_.c_str(), &host.error_)) << host.error_.message;
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_BROKEN);
  EXPECT_FALSE(xt_mark_file_broken((directory_ + "/none").c_str(), &host.error_));
  EXPECT_EQ(host.error_.code, XT_NOT_FOUND);
}

TEST_F(CapiFaultTest, AFoldThatCouldNotBeEndedIsEndedByTheNext) {
  for (const bool published : {false, true}) {
    SCOPED_TRACE(published);
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    Host host(directory_);
    Fill(&host);
    ASSERT_TRUE(host.Insert(boxes_[0].lo, boxes_[0].hi, 50000, 40000));
    uint64_t lsn = 0;
    bool done = false;
    ASSERT_TRUE(host.Repeat([&] { return xt_fold_begin(host.index_, &lsn, &host.error_); }));
    while (!done) ASSERT_TRUE(xt_fold_write(host.index_, 64, &done, &host.error_));
    if (published) {
      ASSERT_TRUE(xt_fold_publish(host.index_, &host.error_));
    }
    xt_fold_suspend(host.index_, published);
    // The index goes on meanwhile.
    ASSERT_TRUE(host.Insert(boxes_[1].lo, boxes_[1].hi, 50001, 40001)) << host.error_.message;
    EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes_.size() + 2);
    ASSERT_TRUE(host.Fold()) << host.error_.message;
    EXPECT_EQ(xt_log_bytes(host.index_), 0u);
    host.ExpectSound();
    ASSERT_TRUE(host.Restart()) << host.error_.message;
    EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes_.size() + 2);
    host.ExpectSound();
  }
}

TEST_F(CapiFaultTest, AFoldWhoseProcessHasGoneIsEndedByAnother) {
  // Begun, some of it written, all of it, and published.
  for (const int stage : {0, 1, 2, 3}) {
    SCOPED_TRACE(stage);
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    Host host(directory_);
    Fill(&host);
    for (size_t i = 0; i < 2000; ++i) {
      ASSERT_TRUE(host.Insert(boxes_[i].lo, boxes_[i].hi, 50000 + i, 30000 + i));
    }
    uint64_t lsn = 0;
    bool done = false;
    ASSERT_TRUE(host.Repeat([&] { return xt_fold_begin(host.index_, &lsn, &host.error_); }));
    if (stage == 1) {
      ASSERT_TRUE(xt_fold_write(host.index_, 4, &done, &host.error_));
    }
    while (stage >= 2 && !done) ASSERT_TRUE(xt_fold_write(host.index_, 64, &done, &host.error_));
    if (stage == 3) {
      ASSERT_TRUE(xt_fold_publish(host.index_, &host.error_));
    }
    xt_fold_suspend(host.index_, stage == 3);
    host.Reopen();  // The process has gone.
    for (size_t i = 0; i < 200; ++i) {
      ASSERT_TRUE(host.Insert(boxes_[i].lo, boxes_[i].hi, 60000 + i, 60000 + i)) << host.error_.message;
    }
    ASSERT_TRUE(host.Fold()) << host.error_.message;
    EXPECT_EQ(xt_log_bytes(host.index_), 0u);
    host.ExpectSound();  // Which finds space that nothing refers to.
    for (size_t i = 200; i < 400; ++i) {
      ASSERT_TRUE(host.Insert(boxes_[i].lo, boxes_[i].hi, 60000 + i, 60000 + i)) << host.error_.message;
    }
    ASSERT_TRUE(host.Fold()) << host.error_.message;
    host.ExpectSound();
    ASSERT_TRUE(host.Restart()) << host.error_.message;
    EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes_.size() + 2400);
    host.ExpectSound();
  }
}

// Blocks of nodes in the file: by kind, those without a stamp.
std::map<xtree::BlockKind, std::set<uint32_t>> UnstampedNodes(const std::string& path) {
  std::map<xtree::BlockKind, std::set<uint32_t>> blocks;
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes(xtree::kBlockBytes);
  for (uint32_t b = 0; file.read(bytes.data(), xtree::kBlockBytes); ++b) {
    xtree::BlockHeader header;
    std::memcpy(static_cast<void*>(&header), bytes.data(), sizeof(header));
    const bool node = header.kind == xtree::BlockKind::kInner ||
                      header.kind == xtree::BlockKind::kLeaf || xtree::IsDecimalLeaf(header.kind);
    if (node && xtree::BlockLsn(header) == xtree::kLsnUnstamped) blocks[header.kind].insert(b);
  }
  return blocks;
}

TEST_F(CapiFaultTest, WhoTakesOverAFoldTakesTheStampsOfNodesOfAllKindsBack) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  // Leaves of both layouts: half of the keys are decimal, and lie apart from the others.
  boxes_ = RandomBoxes(8000, 13);
  for (size_t i = 0; i < boxes_.size() / 2; ++i) {
    for (double* corner : {boxes_[i].lo, boxes_[i].hi}) {
      for (int d = 0; d < 2; ++d) corner[d] = std::round(corner[d]) - 10000;
    }
  }
  for (size_t i = 0; i < boxes_.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes_[i].lo, boxes_[i].hi, i, 100 + i)) << host.error_.message;
  }
  const auto before = UnstampedNodes(host.data_);
  uint64_t lsn = 0;
  bool done = false;
  ASSERT_TRUE(host.Repeat([&] { return xt_fold_begin(host.index_, &lsn, &host.error_); }));
  while (!done) ASSERT_TRUE(xt_fold_write(host.index_, 64, &done, &host.error_));
  // What the fold has stamped. (Old versions that wait to be freed are none of its business.)
  auto stamped = before;
  for (const auto& [kind, blocks] : UnstampedNodes(host.data_)) {
    for (const uint32_t block : blocks) stamped[kind].erase(block);
  }
  ASSERT_FALSE(stamped[xtree::BlockKind::kInner].empty());
  ASSERT_FALSE(stamped[xtree::BlockKind::kLeaf].empty());
  ASSERT_TRUE(std::any_of(stamped.begin(), stamped.end(), [](const auto& blocks) {
    return xtree::IsDecimalLeaf(blocks.first) && !blocks.second.empty();
  }));
  xt_fold_suspend(host.index_, false);
  host.Reopen();  // The process has gone.
  // The next fold first takes this one over. Until it writes, no node that may be changed in place says that it is stamped.
  done = false;
  ASSERT_TRUE(host.Repeat([&] { return xt_fold_begin(host.index_, &lsn, &host.error_); }));
  auto after = UnstampedNodes(host.data_);
  for (const auto& [kind, blocks] : stamped) {
    for (const uint32_t block : blocks) {
      EXPECT_TRUE(after[kind].count(block)) << "block " << block << " of kind " << static_cast<int>(kind);
    }
  }
  while (!done) ASSERT_TRUE(xt_fold_write(host.index_, 64, &done, &host.error_));
  ASSERT_TRUE(xt_fold_publish(host.index_, &host.error_));
  xt_fold_end(host.index_, true);
  host.ExpectSound();
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes_.size());
  host.ExpectSound();
}

TEST_F(CapiFaultTest, AFoldWhoseProcessHasGoneMayBeLeftToARestart) {
  Host host(directory_);
  Fill(&host);
  uint64_t lsn = 0;
  ASSERT_TRUE(host.Repeat([&] { return xt_fold_begin(host.index_, &lsn, &host.error_); }));
  xt_fold_suspend(host.index_, false);
  host.Reopen();  // As if the process had gone.
  ASSERT_TRUE(host.Insert(boxes_[0].lo, boxes_[0].hi, 50000, 40000)) << host.error_.message;
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  ASSERT_TRUE(host.Fold()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes_.size() + 1);
  host.ExpectSound();
}

TEST_F(CapiFaultTest, AWalkBesideChangesFindsNothingWrong) {
  Host host(directory_);
  Fill(&host);
  uint64_t lsn = 50000;
  uint64_t next = 30000;
  for (int round = 0; round < 6; ++round) {
    SCOPED_TRACE(round);
    XtWalk* walk = xt_walk_begin(host.index_, true, &host.error_);
    ASSERT_NE(walk, nullptr) << host.error_.message;
    bool again = true;
    int steps = 0;
    while (again) {
      for (bool done = false; !done; ++steps) {
        ASSERT_TRUE(host.Repeat([&] { return xt_walk_step(walk, &done, &host.error_); }))
            << host.error_.message;
        // Deletes rows and uses their ids again at once, for other keys; captures what there is.
        for (int i = 0; i < 20; ++i) {
          const uint64_t id = (steps * 131 + i * 977 + round) % boxes_.size();
          const double all_lo[2] = {-INFINITY, -INFINITY}, all_hi[2] = {INFINITY, INFINITY};
          uint32_t found = 0;
          ASSERT_TRUE(host.Repeat([&] {
            return xt_prepare_delete(host.index_, XT_TREE_MAIN, all_lo, all_hi, &id, 1, nullptr, &found,
                                     &host.error_);
          }));
          if (found > 0) xt_apply(host.index_, ++lsn);
          const Box& key = boxes_[(id + 7919) % boxes_.size()];
          ASSERT_TRUE(host.Insert(key.lo, key.hi, id, ++lsn));
          ASSERT_TRUE(host.Insert(boxes_[id].hi, boxes_[id].hi, next++, ++lsn));
        }
        if (steps % 40 == 39) {
          ASSERT_TRUE(host.Fold()) << host.error_.message;
        }
      }
      ASSERT_TRUE(xt_walk_finish(walk, &again, &host.error_)) << host.error_.message;
    }
    EXPECT_GT(steps, 3);
    EXPECT_EQ(xt_walk_problems(walk), 0u) << xt_walk_problem(walk, 0);
    xt_walk_free(walk);
  }
  host.ExpectSound();
}

TEST_F(CapiFaultTest, ACancelledPackEndsSoonAndLeavesAnIndexThatCanBeEmptied) {
  for (const bool before : {true, false}) {
    SCOPED_TRACE(before);
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    Host host(directory_);
    ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
    volatile int flag = before ? 1 : 0;
    const volatile int* const cancel[2] = {nullptr, &flag};
    XtBuild* build = xt_build_begin(host.index_, 2, cancel, &host.error_);
    ASSERT_NE(build, nullptr) << host.error_.message;
    const auto boxes = RandomBoxes(before ? 50000 : 600000, 12);
    for (size_t i = 0; i < boxes.size(); ++i) {
      ASSERT_TRUE(xt_build_add(build, boxes[i].lo, boxes[i].hi, &i, 1, &host.error_));
    }
    std::thread canceller([&] {
      if (!before) usleep(2000);
      __atomic_store_n(const_cast<int*>(&flag), 1, __ATOMIC_RELAXED);
    });
    EXPECT_FALSE(host.Repeat([&] { return xt_build_pack(build, 5555, &host.error_); }));
    EXPECT_EQ(host.error_.code, XT_CANCELLED) << host.error_.message;
    canceller.join();
    xt_build_free(build);
    EXPECT_EQ(xt_entries(host.index_, XT_TREE_MAIN), 0u);
    EXPECT_TRUE(host.Window(XT_TREE_MAIN, Everything()).empty());
    host.ExpectSound();
  }
}

TEST_F(CapiFaultTest, AScanThatFindsNothingReturnsNowAndThen) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  // Two lines of boxes with a gap between them, in which the question lies. Every leaf has boxes of both.
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 600000; ++i) {
    const double x = static_cast<double>(i / 2), y = static_cast<double>(i % 2);
    lo.insert(lo.end(), {x, y});
    hi.insert(hi.end(), {x + 0.5, y + 1.0 / 3});  // Not decimal, so that there are many leaves.
    ids.push_back(i);
  }
  const volatile int* const none[2] = {nullptr, nullptr};
  XtBuild* build = xt_build_begin(host.index_, 2, none, &host.error_);
  ASSERT_NE(build, nullptr);
  ASSERT_TRUE(xt_build_add(build, lo.data(), hi.data(), ids.data(), ids.size(), &host.error_));
  ASSERT_TRUE(host.Repeat([&] { return xt_build_pack(build, 5555, &host.error_); }));
  xt_build_free(build);
  const XtPredicate gap = Intersects(0, 0.5, 300000, 0.75);
  XtScan* scan = xt_scan_create(host.index_, &host.error_);
  std::vector<uint64_t> batch(XT_SCAN_BATCH_MIN);
  const double point[2] = {1000, 0.6};
  for (const bool nearest : {false, true}) {
    SCOPED_TRACE(nearest);
    ASSERT_TRUE(nearest ? xt_scan_nearest(scan, XT_TREE_MAIN, point, &gap, &host.error_)
                        : xt_scan_window(scan, XT_TREE_MAIN, &gap, &host.error_));
    int count, again = 0;
    do {
      count = xt_scan_next(scan, batch.data(), nullptr, nullptr, nullptr, XT_SCAN_BATCH_MIN, false,
                           &host.error_);
      again += count == XT_SCAN_AGAIN;
    } while (count == XT_SCAN_AGAIN);
    EXPECT_EQ(count, 0) << host.error_.message;
    EXPECT_GT(again, 0);
  }
  xt_scan_free(scan);
}

}  // namespace
