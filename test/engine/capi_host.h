// What the tests of the C wall share: a host in miniature, boxes and questions.
#pragma once

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

namespace xtree::testing {

constexpr uint32_t kSlots = 8;

inline XtPredicate Everything() {
  XtPredicate p;
  for (int d = 0; d < XT_DIMS_MAX; ++d) {
    p.lo_min[d] = p.hi_min[d] = -INFINITY;
    p.lo_max[d] = p.hi_max[d] = INFINITY;
  }
  p.nan_matches = true;
  return p;
}

// What the host's registry would hold for one index, and one process's handles on it.
class Host {
 public:
  explicit Host(std::string directory, bool logged = true)
      : data_(directory + "/rel"), log_(directory + "/rel_vm"), logged_(logged) {
    epochs_ = std::calloc(1, xt_epoch_shared_bytes(kSlots));
    xt_epoch_shared_init(epochs_, kSlots);
    runtime_ = xt_runtime_create(epochs_, 0, 16, &error_);
    Open();
  }
  ~Host() {
    Close();
    xt_runtime_free(runtime_);
    std::free(epochs_);
  }
  void Open() {
    shared_ = std::aligned_alloc(xt_index_shared_alignment(), xt_index_shared_bytes());
    std::memset(shared_, 0, xt_index_shared_bytes());
    index_ = xt_index_open(runtime_, shared_, data_.c_str(), logged_ ? log_.c_str() : nullptr,
                           &error_);
  }
  void Close() {
    xt_index_close(index_);
    std::vector<uint64_t> refs(200);
    const uint32_t count = xt_chunk_refs(shared_, refs.data(), 200);
    for (uint32_t i = 0; i < count; ++i) std::free(reinterpret_cast<void*>(refs[i]));
    std::free(shared_);
  }
  // A new handle on the same shared memory.
  void Reopen() {
    xt_index_close(index_);
    index_ = xt_index_open(runtime_, shared_, data_.c_str(), logged_ ? log_.c_str() : nullptr,
                           &error_);
    XtChunkRequest request;
    while (xt_chunk_missing(index_, &request)) {
      xt_chunk_provide(index_, request.array, request.level, request.ref,
                       reinterpret_cast<void*>(request.ref));
    }
  }
  // Loses everything volatile, as a crash of the server does.
  bool Restart(uint64_t redo_lsn = 0, uint32_t timeline = 1) {
    Close();
    Open();
    return Load(redo_lsn, timeline);
  }
  bool Load(uint64_t redo_lsn, uint32_t timeline) {
    XtTimelineEnd ends[8];
    for (uint32_t i = 1; i < timeline; ++i) ends[i - 1] = XtTimelineEnd{i, 0, redo_lsn};
    XtLoadPolicy policy{timeline, timeline - 1, ends, ~uint64_t{0}, identity_, {}, true};
    bool done = false;
    while (!done) {
      if (!Repeat([&] { return xt_load(index_, &policy, 1000, &done, &error_); })) return false;
    }
    return true;
  }
  bool Create(const XtSpec& spec) {
    return Repeat([&] { return xt_create(index_, &spec, &identity_, 1, &error_); });
  }
  // Provides memory for as long as the call asks for it.
  template <class Call>
  bool Repeat(Call&& call) {
    for (;;) {
      if (call()) return true;
      if (error_.code != XT_NEED_MEMORY) return false;
      XtChunkRequest want;
      xt_chunk_wanted(index_, &want);
      void* chunk = std::calloc(1, want.bytes);
      xt_chunk_provide(index_, want.array, want.level, reinterpret_cast<uint64_t>(chunk), chunk);
    }
  }
  bool Insert(const double* lo, const double* hi, uint64_t id, uint64_t lsn) {
    if (!Repeat([&] { return xt_prepare_insert(index_, lo, hi, id, &error_); })) return false;
    xt_apply(index_, lsn);
    return true;
  }
  bool Fold() {
    uint64_t lsn;
    if (!Repeat([&] { return xt_fold_begin(index_, &lsn, &error_); })) return false;
    bool done = false;
    bool ok = true;
    while (ok && !done) ok = xt_fold_write(index_, 64, &done, &error_);
    ok = ok && xt_fold_publish(index_, &error_);
    xt_fold_end(index_, ok);
    return ok;
  }
  // XT_OK, or what a scan of everything fails with.
  int ScanError() {
    XtScan* scan = xt_scan_create(index_, &error_);
    const XtPredicate all = Everything();
    std::vector<uint64_t> batch(XT_SCAN_BATCH_MIN);
    int count = xt_scan_window(scan, XT_TREE_MAIN, &all, &error_) ? 1 : -1;
    while (count > 0 || count == XT_SCAN_AGAIN) {
      count = xt_scan_next(scan, batch.data(), nullptr, nullptr, nullptr, XT_SCAN_BATCH_MIN, false,
                           &error_);
    }
    xt_scan_free(scan);
    return count == 0 ? XT_OK : error_.code;
  }
  std::vector<uint64_t> Window(uint32_t tree, const XtPredicate& predicate) {
    XtScan* scan = xt_scan_create(index_, &error_);
    std::vector<uint64_t> ids, batch(XT_SCAN_BATCH_MIN);
    EXPECT_TRUE(xt_scan_window(scan, tree, &predicate, &error_)) << error_.message;
    int count;
    while ((count = xt_scan_next(scan, batch.data(), nullptr, nullptr, nullptr, XT_SCAN_BATCH_MIN,
                                 false, &error_)) > 0) {
      ids.insert(ids.end(), batch.begin(), batch.begin() + count);
    }
    EXPECT_EQ(count, 0) << error_.message;
    xt_scan_free(scan);
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  bool FinishWalk(XtWalk* walk) {
    bool again = true;
    while (again) {
      bool done = false;
      while (!done) {
        if (!xt_walk_step(walk, &done, &error_)) return false;
      }
      if (!xt_walk_finish(walk, &again, &error_)) return false;
    }
    return true;
  }
  void ExpectSound() {
    XtWalk* walk = xt_walk_begin(index_, true, &error_);
    ASSERT_NE(walk, nullptr) << error_.message;
    ASSERT_TRUE(FinishWalk(walk)) << error_.message;
    EXPECT_EQ(xt_walk_problems(walk), 0u) << xt_walk_problem(walk, 0);
    xt_walk_free(walk);
  }

  XtIndex* index_ = nullptr;
  XtRuntime* runtime_ = nullptr;
  XtError error_{};
  XtIdentity identity_{77, 1663, 5, 16400, 0};
  std::string data_;
  std::string log_;

 private:
  void* epochs_;
  void* shared_ = nullptr;
  bool logged_;
};

// Boxes that intersect lo..hi in two dimensions.
inline XtPredicate Intersects(double x0, double y0, double x1, double y1) {
  XtPredicate p = Everything();
  p.lo_max[0] = x1;
  p.lo_max[1] = y1;
  p.hi_min[0] = x0;
  p.hi_min[1] = y0;
  return p;
}

struct Box {
  double lo[2];
  double hi[2];
};

inline std::vector<Box> RandomBoxes(size_t count, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> place(0, 1000), size(0, 5);
  std::vector<Box> boxes(count);
  for (Box& b : boxes) {
    for (int d = 0; d < 2; ++d) {
      b.lo[d] = place(random);
      b.hi[d] = b.lo[d] + size(random);
    }
  }
  return boxes;
}

inline std::vector<uint64_t> Matching(const std::vector<Box>& boxes, double x0, double y0, double x1,
                               double y1) {
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const Box& b = boxes[i];
    if (b.lo[0] <= x1 && b.hi[0] >= x0 && b.lo[1] <= y1 && b.hi[1] >= y0) ids.push_back(i);
  }
  return ids;
}

class CapiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/xtree_capi_XXXXXX";
    directory_ = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  static constexpr XtSpec kBoxes{2, XT_F64, XT_BOX, 90};
  std::string directory_;
};

}  // namespace xtree::testing
