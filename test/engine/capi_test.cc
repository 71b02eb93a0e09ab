// Goal: the C wall does end to end what the access method needs, as another process would see it.
// Method: every test goes through capi.h only, with zeroed memory standing in for the host's shared
// memory; a "restart" throws that memory away and loads the files again.
#include "capi.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "capi_host.h"

using namespace xtree::testing;  // NOLINT

namespace {

constexpr const volatile int* kNoCancel[2] = {nullptr, nullptr};

TEST_F(CapiTest, InsertedEntriesAreFoundAndSurviveARestartThroughTheLog) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  const auto boxes = RandomBoxes(5000, 1);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 100 + i)) << host.error_.message;
  }
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Intersects(100, 100, 200, 200)),
            Matching(boxes, 100, 100, 200, 200));
  host.ExpectSound();
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(xt_applied_lsn(host.index_), 100 + boxes.size() - 1);
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes.size());
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Intersects(100, 100, 200, 200)),
            Matching(boxes, 100, 100, 200, 200));
  host.ExpectSound();
}

TEST_F(CapiTest, AFoldMakesTheLogSuperfluousAndLaterOperationsFollowIt) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  const auto boxes = RandomBoxes(6000, 2);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 100 + i)) << host.error_.message;
    if (i % 1500 == 1499 && i < 5000) {
      ASSERT_TRUE(host.Fold()) << host.error_.message;
      EXPECT_EQ(xt_log_bytes(host.index_), 0u);
      host.ExpectSound();
    }
  }
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes.size());
  host.ExpectSound();
  ASSERT_TRUE(host.Fold()) << host.error_.message;
  std::filesystem::remove(host.log_);
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Intersects(1, 1, 500, 500)),
            Matching(boxes, 1, 1, 500, 500));
  host.ExpectSound();
}

TEST_F(CapiTest, OperationsBeyondTheRedoPointAreGhosts) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  const auto boxes = RandomBoxes(300, 3);
  for (size_t i = 0; i < 200; ++i) ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1000 + i));
  // The record that ends exactly at the redo point counts.
  ASSERT_TRUE(host.Restart(1099, 2)) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), 100u);
  EXPECT_EQ(xt_applied_lsn(host.index_), 1099u);
  // LSNs are used again by the new timeline.
  for (size_t i = 200; i < 300; ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1100 + i - 200));
  }
  ASSERT_TRUE(host.Restart(1099, 2)) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), 200u);
  host.ExpectSound();
  // A timeline that the history does not know.
  EXPECT_FALSE(host.Restart(1099, 1));
  EXPECT_EQ(host.error_.code, XT_BROKEN) << host.error_.message;
}

TEST_F(CapiTest, ABulkBuildIsDurableOnceItIsFinishedAndTakesInsertionsAfterwards) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  auto boxes = RandomBoxes(50000, 4);
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < boxes.size(); ++i) {
    lo.insert(lo.end(), boxes[i].lo, boxes[i].lo + 2);
    hi.insert(hi.end(), boxes[i].hi, boxes[i].hi + 2);
    ids.push_back(i);
  }
  lo[2 * 7] = NAN;  // Entry 7 is unordered.
  XtBuild* build = xt_build_begin(host.index_, 2, kNoCancel, &host.error_);
  ASSERT_NE(build, nullptr) << host.error_.message;
  ASSERT_TRUE(xt_build_add(build, lo.data(), hi.data(), ids.data(), ids.size(), &host.error_));
  ASSERT_TRUE(xt_build_add_null(build, 60000, &host.error_));
  ASSERT_TRUE(host.Repeat([&] { return xt_build_pack(build, 5555, &host.error_); }))
      << host.error_.message;
  for (bool done = false; !done;) {
    ASSERT_TRUE(host.Repeat([&] { return xt_build_finish(build, true, 64, &done, &host.error_); }))
        << host.error_.message;
  }
  xt_build_free(build);
  host.ExpectSound();
  EXPECT_EQ(xt_entries(host.index_, XT_TREE_MAIN), boxes.size() - 1);
  EXPECT_EQ(xt_entries(host.index_, XT_TREE_NULL), 2u);
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(xt_applied_lsn(host.index_), 5555u);
  auto expected = Matching(boxes, 300, 300, 420, 420);
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Intersects(300, 300, 420, 420)), expected);
  EXPECT_EQ(host.Window(XT_TREE_NULL, Everything()), (std::vector<uint64_t>{7, 60000}));
  const double a[2] = {310, 310}, b[2] = {311, 311};
  ASSERT_TRUE(host.Insert(a, b, 70000, 6000)) << host.error_.message;
  ASSERT_TRUE(host.Insert(nullptr, nullptr, 70001, 6001)) << host.error_.message;
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  expected.push_back(70000);
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Intersects(300, 300, 420, 420)), expected);
  EXPECT_EQ(host.Window(XT_TREE_NULL, Everything()), (std::vector<uint64_t>{7, 60000, 70001}));
  host.ExpectSound();
}

TEST_F(CapiTest, DeletionsAreReplayedToo) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes)) << host.error_.message;
  const auto boxes = RandomBoxes(3000, 5);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1 + i));
  }
  ASSERT_TRUE(host.Fold());
  const double all_lo[2] = {-INFINITY, -INFINITY}, all_hi[2] = {INFINITY, INFINITY};
  uint64_t lsn = 4000;
  for (size_t first = 0; first < 2000; first += 500) {
    std::vector<uint64_t> dead;
    for (size_t i = first; i < first + 500; ++i) dead.push_back(i);
    uint32_t found = 0;
    ASSERT_TRUE(host.Repeat([&] {
      return xt_prepare_delete(host.index_, XT_TREE_MAIN, all_lo, all_hi, dead.data(),
                               dead.size(), nullptr, &found, &host.error_);
    })) << host.error_.message;
    EXPECT_EQ(found, 500u);
    xt_apply(host.index_, ++lsn);
  }
  host.ExpectSound();
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  const auto left = host.Window(XT_TREE_MAIN, Everything());
  ASSERT_EQ(left.size(), 1000u);
  EXPECT_EQ(left.front(), 2000u);
  host.ExpectSound();
  bool found = true;
  ASSERT_TRUE(xt_contains(host.index_, boxes[5].lo, boxes[5].hi, 5, &found, &host.error_));
  EXPECT_FALSE(found);
  ASSERT_TRUE(xt_contains(host.index_, boxes[2500].lo, boxes[2500].hi, 2500, &found,
                          &host.error_));
  EXPECT_TRUE(found);
}

TEST_F(CapiTest, NearestScansComeInOrderOfDistance) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  const auto boxes = RandomBoxes(2000, 6);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1 + i));
  }
  XtScan* scan = xt_scan_create(host.index_, &host.error_);
  const double point[2] = {500, 500};
  const XtPredicate all = Everything();
  ASSERT_TRUE(xt_scan_nearest(scan, XT_TREE_MAIN, point, &all, &host.error_));
  uint64_t ids[100];
  double distances[100];
  double last = 0;
  size_t seen = 0;
  int count;
  while ((count = xt_scan_next(scan, ids, nullptr, nullptr, distances, 100, false,
                               &host.error_)) > 0) {
    for (int i = 0; i < count; ++i, ++seen) {
      EXPECT_GE(distances[i], last);
      last = distances[i];
    }
  }
  EXPECT_EQ(count, 0);
  EXPECT_EQ(seen, boxes.size());
  xt_scan_free(scan);
}

TEST_F(CapiTest, ABrokenIndexNeverAnswers) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  const double a[2] = {1, 1};
  ASSERT_TRUE(host.Insert(a, a, 1, 10));
  ASSERT_TRUE(xt_mark_broken(host.index_, &host.error_));
  EXPECT_TRUE(xt_is_broken(host.index_));
  XtScan* scan = xt_scan_create(host.index_, &host.error_);
  const XtPredicate all = Everything();
  EXPECT_FALSE(xt_scan_window(scan, XT_TREE_MAIN, &all, &host.error_));
  EXPECT_EQ(host.error_.code, XT_BROKEN);
  xt_scan_free(scan);
  EXPECT_FALSE(host.Insert(a, a, 2, 11));
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_BROKEN);
}

TEST_F(CapiTest, AnotherSystemOrALaterCaptureThanTheServersLogIsBroken) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  const double a[2] = {1, 1};
  ASSERT_TRUE(host.Insert(a, a, 1, 1000));
  ASSERT_TRUE(host.Fold());
  ++host.identity_.system_id;
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_BROKEN);
  --host.identity_.system_id;
  host.Close();
  host.Open();
  XtLoadPolicy policy{1, 0, nullptr, 999, host.identity_, {}, true};
  bool done = false;
  EXPECT_FALSE(host.Repeat([&] { return xt_load(host.index_, &policy, 1000, &done, &host.error_); }));
  EXPECT_EQ(host.error_.code, XT_BROKEN);
}

TEST_F(CapiTest, ACopyOfFilesAtRestIsAdoptedAndOneWithALogIsBroken) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  const double a[2] = {1, 1};
  ASSERT_TRUE(host.Insert(a, a, 1, 1000));
  ++host.identity_.relation;
  EXPECT_FALSE(host.Restart());  // The log holds an operation.
  EXPECT_EQ(host.error_.code, XT_BROKEN);
  --host.identity_.relation;
  ASSERT_TRUE(host.Restart());
  ASSERT_TRUE(host.Fold());
  ++host.identity_.relation;
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(xt_entries(host.index_, XT_TREE_MAIN), 1u);
  // From now on it is its own: operations are kept over a restart, and another fold too.
  ASSERT_TRUE(host.Insert(a, a, 2, 2000));
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(xt_entries(host.index_, XT_TREE_MAIN), 2u);
  ASSERT_TRUE(host.Fold());
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(xt_entries(host.index_, XT_TREE_MAIN), 2u);
  --host.identity_.relation;
  ASSERT_TRUE(host.Insert(a, a, 3, 3000));
  EXPECT_FALSE(host.Restart());
}

TEST_F(CapiTest, MissingEmptyAndForeignFilesAreToldApart) {
  Host host(directory_);
  EXPECT_FALSE(host.Load(0, 1));
  EXPECT_EQ(host.error_.code, XT_NOT_FOUND);
  std::FILE* file = std::fopen(host.data_.c_str(), "w");
  ASSERT_NE(file, nullptr);
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_NOT_FOUND);
  for (int i = 0; i < 40000; ++i) std::fputc('x', file);
  std::fclose(file);
  EXPECT_FALSE(host.Restart());
  EXPECT_EQ(host.error_.code, XT_CORRUPTION);
}

TEST_F(CapiTest, TheEmptyImageIsALoadableIndex) {
  Host host(directory_);
  std::vector<char> pages(2 * 8192);
  const XtSpec spec{3, XT_F32, XT_POINT, 70};
  ASSERT_TRUE(xt_empty_image(&spec, &host.identity_, pages.data(), &host.error_));
  std::FILE* file = std::fopen(host.data_.c_str(), "w");
  ASSERT_EQ(std::fwrite(pages.data(), 1, pages.size(), file), pages.size());
  std::fclose(file);
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  XtSpec loaded;
  xt_spec(host.index_, &loaded);
  EXPECT_EQ(loaded.dims, 3);
  EXPECT_EQ(loaded.kind, XT_POINT);
  EXPECT_EQ(loaded.coord, XT_F32);
  EXPECT_EQ(loaded.leaf_fill_percent, 70);
  const double p[3] = {1, 2, 3};
  ASSERT_TRUE(host.Insert(p, nullptr, 9, 1)) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()), std::vector<uint64_t>{9});
}

TEST_F(CapiTest, AnEmptyIndexIsSmallAndItsLogComesWithTheFirstInsertion) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  EXPECT_LT(std::filesystem::file_size(host.data_), 128u << 10);
  EXPECT_FALSE(std::filesystem::exists(host.log_));
  const double a[2] = {1, 1};
  ASSERT_TRUE(host.Insert(a, a, 1, 1000));
  EXPECT_LT(std::filesystem::file_size(host.log_), 128u << 10);
  EXPECT_EQ(xt_log_file_segment(host.index_), 0u);
}

TEST_F(CapiTest, TouchedPagesVerifyOnceTheCallerHasStampedThem) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  xt_track_touched(host.index_, true);
  const auto boxes = RandomBoxes(2000, 7);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1 + i));
    if (i == 1000) {
      ASSERT_TRUE(host.Fold());
    }
  }
  XtTouched touched;
  bool log_seen = false, data_seen = false;
  while (xt_touched_next(host.index_, &touched)) {
    auto* lsn = static_cast<uint32_t*>(touched.page);
    lsn[0] = 0;
    lsn[1] = 12345;
    (touched.in_log ? log_seen : data_seen) = true;
  }
  EXPECT_TRUE(log_seen);
  EXPECT_TRUE(data_seen);
  // A crash while the pages of a capture are handed out, not stamped yet, must not cost them.
  ASSERT_TRUE(host.Fold());
  while (xt_touched_next(host.index_, &touched)) {
  }
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes.size());
  host.ExpectSound();
  ASSERT_TRUE(host.Fold());
  ASSERT_TRUE(host.Restart()) << host.error_.message;
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes.size());
  host.ExpectSound();
}

TEST_F(CapiTest, StatisticsDescribeTheTreeAndItsFiles) {
  Host host(directory_);
  ASSERT_TRUE(host.Create(kBoxes));
  const auto boxes = RandomBoxes(3000, 8);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 1 + i));
  }
  XtStats stats;
  XtWalk* walk = xt_walk_begin(host.index_, false, &host.error_);
  ASSERT_NE(walk, nullptr) << host.error_.message;
  for (bool done = false; !done;) {
    ASSERT_TRUE(xt_walk_step(walk, &done, &host.error_)) << host.error_.message;
  }
  xt_walk_stats(walk, &stats);
  xt_walk_free(walk);
  EXPECT_EQ(stats.entries, boxes.size());
  EXPECT_EQ(stats.height, 2u);
  EXPECT_EQ(stats.levels, 2u);
  EXPECT_EQ(stats.level[1].nodes, 1u);
  EXPECT_EQ(stats.level[0].entries, boxes.size());
  EXPECT_EQ(stats.log_bytes, boxes.size() * 64);
  EXPECT_EQ(stats.applied_lsn, boxes.size());
  double* rectangles = nullptr;
  uint64_t count = 0;
  ASSERT_TRUE(xt_level_boxes(host.index_, 0, 1000, &rectangles, &count, &host.error_));
  EXPECT_EQ(count, stats.level[0].nodes);
  std::free(rectangles);
  double fraction = -1;
  const XtPredicate half = Intersects(0, 0, 1000, 500);
  ASSERT_TRUE(xt_estimate(host.index_, &half, &fraction, &host.error_));
  EXPECT_NEAR(fraction, 0.5, 0.2);
}

TEST_F(CapiTest, TemporaryIndexesHaveNoLog) {
  Host host(directory_, false);
  ASSERT_TRUE(host.Create(kBoxes));
  const auto boxes = RandomBoxes(1000, 9);
  for (size_t i = 0; i < boxes.size(); ++i) {
    ASSERT_TRUE(host.Insert(boxes[i].lo, boxes[i].hi, i, 0));
  }
  EXPECT_EQ(host.Window(XT_TREE_MAIN, Everything()).size(), boxes.size());
  EXPECT_FALSE(std::filesystem::exists(host.log_));
  ASSERT_TRUE(host.Fold()) << host.error_.message;
  host.ExpectSound();
}

TEST_F(CapiTest, ABatchOfSyncsReportsEachFile) {
  const std::string there = directory_ + "/there", gone = directory_ + "/gone";
  std::fclose(std::fopen(there.c_str(), "w"));
  const char* paths[] = {there.c_str(), gone.c_str()};
  int status[2] = {-1, -1};
  xt_sync_files(paths, status, 2);
  EXPECT_EQ(status[0], XT_OK);
  EXPECT_EQ(status[1], XT_NOT_FOUND);
  XtError why = {};
  const std::string name = xt_io_queue_name(&why);
  EXPECT_TRUE(name == "io_uring" || name == "portable") << name;
  EXPECT_EQ(why.message[0] == '\0', name == "io_uring") << why.message;
}

TEST_F(CapiTest, ImpossibleOptionsAreRefused) {
  Host host(directory_);
  EXPECT_FALSE(host.Create(XtSpec{33, XT_F64, XT_BOX, 90}));
  EXPECT_EQ(host.error_.code, XT_INVALID_ARGUMENT);
  EXPECT_FALSE(host.Create(XtSpec{2, XT_F64, XT_BOX, 5}));
  EXPECT_EQ(host.error_.code, XT_INVALID_ARGUMENT);
}

}  // namespace
