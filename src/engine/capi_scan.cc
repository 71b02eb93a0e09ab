// The C wall: scans and inspection.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "capi_internal.h"
#include "tree/checker.h"

using namespace xtree;        // NOLINT: this file is the boundary; its own names all begin with xt.
using namespace xtree::capi;  // NOLINT

struct XtScan {
  explicit XtScan(XtIndex* i) : index(i), window(&i->store), nearest(&i->store) {
    window.LimitVisits(kVisitsMax);
    nearest.LimitVisits(kVisitsMax);
  }
  static constexpr uint32_t kVisitsMax = 2048;  // A few milliseconds' worth, if nothing is found.
  enum class Kind { kNone, kWindow, kNearest };
  XtIndex* const index;
  WindowScan window;
  NearestScan nearest;
  Kind running = Kind::kNone;
  bool exhausted() const {
    return running == Kind::kWindow ? window.exhausted() : nearest.exhausted();
  }
  void End() {
    if (running == Kind::kWindow) window.End();
    if (running == Kind::kNearest) nearest.End();
    running = Kind::kNone;
  }
};

// A walk in steps (capi.h). What is wrong with record ids only while the index changes is believed if a
// second walk, for these ids alone, finds the same.
struct XtWalk {
  XtWalk(XtIndex* i, bool v) : index(i), verify(v), windows(i->store.windows()) {}
  Status Begin();
  Status Step(bool* done);
  Status Finish(bool* again);

  static constexpr uint32_t kNodesPerStep = 128;
  XtIndex* const index;
  const bool verify;
  std::vector<std::string> problems;
  std::unique_ptr<TreeWalk> trees[kTrees];

 private:
  enum class Phase { kTrees, kBlocks, kDone };
  Status Pin();
  uint64_t Operations() const {
    return index->shared->log.appended_ops.load(std::memory_order_relaxed);
  }

  const WindowPin windows;
  EpochPin pin;
  uint64_t epoch = 0;
  uint64_t operations = 0;  // As of the pin.
  Phase phase = Phase::kTrees;
  uint32_t tree = 0;
  uint32_t page = 0;
  uint32_t pages = 0;
  std::vector<DurableStore::Damage> damages;
  std::vector<uint64_t> suspects[kTrees];
  bool second = false;
};

Status XtWalk::Pin() {
  pin.Release();
  pin.Acquire(&index->runtime->reader);
  XT_ASSIGN_OR_RETURN(epoch, index->store.ReadEpoch());
  operations = Operations();
  return Status::Ok();
}

Status XtWalk::Begin() {
  XT_RETURN_IF_ERROR(Pin());
  pages = verify ? index->store.table()->pages() : 0;
  for (uint32_t t = 0; t < kTrees; ++t) {
    trees[t] = std::make_unique<TreeWalk>(&index->store, t, epoch, verify);
  }
  return Status::Ok();
}

Status XtWalk::Step(bool* done) {
  *done = false;
  if (phase == Phase::kTrees) {
    bool tree_done = trees[tree] == nullptr;
    if (!tree_done) XT_RETURN_IF_ERROR(trees[tree]->Step(kNodesPerStep, &tree_done));
    if (tree_done && ++tree == (verify ? kTrees : 1)) phase = Phase::kBlocks;
  } else if (phase == Phase::kBlocks && page < pages) {
    XT_RETURN_IF_ERROR(index->store.CheckTablePage(page, &damages, &problems));
    ++page;
  } else {
    phase = Phase::kDone;
  }
  *done = phase == Phase::kDone;
  return Status::Ok();
}

Status XtWalk::Finish(bool* again) {
  XT_ASSERT(verify && phase == Phase::kDone);
  *again = false;
  const bool unchanged =
      epoch == index->shared->published_epoch.load(std::memory_order_relaxed) &&
      operations == Operations();
  bool suspicious = false;
  for (uint32_t t = 0; t < kTrees; ++t) {
    if (trees[t] == nullptr) continue;
    XT_RETURN_IF_ERROR(trees[t]->Compare(unchanged));
    const std::vector<std::string>& found = trees[t]->report().problems;
    problems.insert(problems.end(), found.begin(), found.end());
    suspects[t] = trees[t]->suspects();
    suspicious = suspicious || !suspects[t].empty();
  }
  if (!second) XT_RETURN_IF_ERROR(index->store.CheckSpace(damages, &problems));
  if (suspicious && second) {
    for (const std::vector<uint64_t>& ids : suspects) {
      for (const uint64_t id : ids) {
        problems.push_back("record id " + std::to_string(id) + " is in the tree more than once");
      }
    }
  } else if (suspicious) {
    XT_RETURN_IF_ERROR(Pin());
    for (uint32_t t = 0; t < kTrees; ++t) {
      trees[t].reset();
      if (suspects[t].empty()) continue;
      trees[t] = std::make_unique<TreeWalk>(&index->store, t, epoch, true, &suspects[t]);
    }
    second = true;
    phase = Phase::kTrees;
    tree = 0;
    *again = true;
  }
  return Status::Ok();
}

namespace {

Status CheckTreeNumber(uint32_t tree) {
  return tree < kTrees ? Status::Ok() : Status::InvalidArgument("there is no tree %u", tree);
}

// Nearly all retired versions are leaves.
uint64_t RetainedBlocks(const IndexShared& shared) {
  const NodeLayout& leaf = NodeLayout::ExactLeaf(shared.trees[kTreeMain].spec);
  return shared.table.waiting_readers.length << leaf.base_order;
}

}  // namespace

XtScan* xt_scan_create(XtIndex* index, XtError* error) noexcept {
  XtScan* scan = nullptr;
  Guard(error, [&] {
    scan = new XtScan(index);
    return Status::Ok();
  });
  return scan;
}

void xt_scan_free(XtScan* scan) noexcept {
  if (scan != nullptr) scan->End();
  delete scan;
}

bool xt_scan_window(XtScan* scan, uint32_t tree, const XtPredicate* predicate,
                    XtError* error) noexcept {
  return GuardFiles(scan->index, OnFault::kFail, error, [&] {
    scan->End();
    XT_RETURN_IF_ERROR(Usable(scan->index));
    XT_RETURN_IF_ERROR(CheckTreeNumber(tree));
    XT_RETURN_IF_ERROR(
        scan->window.Begin(&scan->index->runtime->reader, tree, ToPredicate(predicate)));
    scan->running = XtScan::Kind::kWindow;
    return Status::Ok();
  });
}

bool xt_scan_nearest(XtScan* scan, uint32_t tree, const double* point,
                     const XtPredicate* predicate, XtError* error) noexcept {
  return GuardFiles(scan->index, OnFault::kFail, error, [&] {
    scan->End();
    XT_RETURN_IF_ERROR(Usable(scan->index));
    XT_RETURN_IF_ERROR(CheckTreeNumber(tree));
    XT_RETURN_IF_ERROR(scan->nearest.Begin(&scan->index->runtime->reader, tree, point,
                                           ToPredicate(predicate)));
    scan->running = XtScan::Kind::kNearest;
    return Status::Ok();
  });
}

int xt_scan_next(XtScan* scan, uint64_t* record_ids, double* keys_lo, double* keys_hi,
                 double* distances, uint32_t capacity, bool one_leaf, XtError* error) noexcept {
  uint32_t count = 0;
  const bool ok = GuardFiles(scan->index, OnFault::kFail, error, [&] {
    switch (scan->running) {
      case XtScan::Kind::kWindow:
        return scan->window.Next(record_ids, keys_lo, keys_hi, capacity, one_leaf, &count);
      case XtScan::Kind::kNearest:
        return scan->nearest.Next(record_ids, distances, keys_lo, keys_hi, capacity, &count);
      case XtScan::Kind::kNone:
        break;
    }
    return Status::InvalidArgument("the scan has not begun");
  });
  if (!ok) return -1;
  return count == 0 && !scan->exhausted() ? XT_SCAN_AGAIN : static_cast<int>(count);
}

void xt_scan_end(XtScan* scan) noexcept { scan->End(); }

uint64_t xt_retained_by_me(XtIndex* index) noexcept {
  uint32_t slot = 0;
  uint64_t lag = 0;
  const uint64_t retained = RetainedBlocks(*index->shared);
  if (retained == 0 || !OldestReader(index->runtime->epochs, &slot, &lag)) return 0;
  return slot == index->runtime->reader.slot_index() && lag > 0 ? retained : 0;
}

int xt_scan_leaf(XtScan* scan, uint64_t* record_ids, uint32_t capacity, XtLeaf* leaf,
                 XtError* error) noexcept {
  uint32_t count = 0;
  const bool ok = GuardFiles(scan->index, OnFault::kFail, error, [&] {
    if (scan->running != XtScan::Kind::kWindow) {
      return Status::InvalidArgument("the scan is not one of a window");
    }
    WindowScan::Leaf next;
    XT_RETURN_IF_ERROR(scan->window.NextLeaf(record_ids, capacity, &next, &count));
    if (count == 0) return Status::Ok();
    const uint32_t dims = scan->window.dims();
    leaf->id = next.id.value;
    leaf->new_parent = next.new_parent;
    std::copy(next.bounds.lo, next.bounds.lo + dims, leaf->lo);
    std::copy(next.bounds.hi, next.bounds.hi + dims, leaf->hi);
    return Status::Ok();
  });
  return ok ? static_cast<int>(count) : -1;
}

bool xt_scan_renew(XtScan* scan, XtError* error) noexcept {
  return Guard(error, [&] { return scan->window.Renew(); });
}

bool xt_scan_lost(const XtScan* scan) noexcept { return scan->window.lost(); }

uint64_t xt_scan_epoch(const XtScan* scan) noexcept { return scan->window.epoch(); }

uint64_t xt_published_epoch(const XtIndex* index) noexcept {
  return index->shared->published_epoch.load(std::memory_order_acquire);
}

bool xt_estimate(XtIndex* index, const XtPredicate* predicate, double* fraction,
                 XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    ReadGuard guard(index);
    return EstimateFraction(&index->store, kTreeMain, guard.epoch(), ToPredicate(predicate),
                            fraction);
  });
}

bool xt_sample(XtIndex* index, double place, uint64_t* record_ids, uint32_t capacity,
               uint32_t* count, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    ReadGuard guard(index);
    return SampleEntries(&index->store, kTreeMain, guard.epoch(), place, record_ids, capacity,
                         count);
  });
}

XtWalk* xt_walk_begin(XtIndex* index, bool verify, XtError* error) noexcept {
  XtWalk* walk = nullptr;
  const bool ok = GuardFiles(index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    walk = new XtWalk(index, verify);
    return walk->Begin();
  });
  if (ok) return walk;
  delete walk;
  return nullptr;
}

bool xt_walk_step(XtWalk* walk, bool* done, XtError* error) noexcept {
  return GuardFiles(walk->index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(walk->index));
    return walk->Step(done);
  });
}

bool xt_walk_finish(XtWalk* walk, bool* again, XtError* error) noexcept {
  return GuardFiles(walk->index, OnFault::kFail, error, [&] { return walk->Finish(again); });
}

void xt_walk_stats(const XtWalk* walk, XtStats* stats) noexcept {
  const IndexShared& shared = *walk->index->shared;
  const TreeReport& report = walk->trees[kTreeMain]->report();
  std::memset(stats, 0, sizeof(*stats));
  stats->entries = report.entries;
  stats->null_entries = shared.trees[kTreeNull].entries.load(std::memory_order_relaxed);
  stats->height = report.height;
  stats->levels = std::min<uint32_t>(report.height, kTreeLevelsMax);
  for (uint32_t i = 0; i < stats->levels; ++i) {
    const TreeLevelStats& level = report.levels[i];
    stats->level[i] = XtLevelStats{level.nodes, level.supernodes, level.entries, level.capacity,
                                   level.blocks};
  }
  stats->file_blocks = shared.allocator.file_blocks.load(std::memory_order_relaxed);
  stats->used_blocks = shared.allocator.used_blocks.load(std::memory_order_relaxed);
  stats->log_bytes = shared.log.bytes.load(std::memory_order_relaxed);
  stats->log_file_blocks = shared.log.file_blocks.load(std::memory_order_relaxed);
  stats->published_epoch = shared.published_epoch.load(std::memory_order_relaxed);
  stats->capture_epoch = shared.capture.durable_epoch.load(std::memory_order_relaxed);
  stats->capture_lsn = shared.capture.capture_lsn.load(std::memory_order_relaxed);
  stats->applied_lsn = shared.applied_lsn.load(std::memory_order_relaxed);
  stats->retired_versions = walk->index->store.retired_versions();
  stats->folds = shared.capture.folds.load(std::memory_order_relaxed);
  stats->active_shards = shared.table.active_shards.load(std::memory_order_relaxed);
  stats->windows_mapped = walk->index->runtime->budget.windows_mapped();
  stats->retained_blocks = RetainedBlocks(shared);
  stats->has_reader = OldestReader(walk->index->runtime->epochs, &stats->oldest_reader,
                                   &stats->oldest_reader_lag);
  // Each under its latch, which a look at statistics is not worth.
  const auto read = [](const uint64_t& word) {
    return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_relaxed);
  };
  for (const LeafLatch& leaf : shared.writers.leaves) {
    stats->shared_inserts += read(leaf.appends);
    stats->latch_waits += read(leaf.waits);
  }
  stats->latch_waits += read(shared.log.latch_waits);
  stats->exclusive_retries = shared.writers.exclusive_turns.load(std::memory_order_relaxed);
  stats->lock_waits = shared.writers.lock_waits.load(std::memory_order_relaxed);
}

const char* xt_walk_problem(const XtWalk* walk, uint32_t i) noexcept {
  return i < walk->problems.size() ? walk->problems[i].c_str() : nullptr;
}

uint32_t xt_walk_problems(const XtWalk* walk) noexcept {
  return static_cast<uint32_t>(walk->problems.size());
}

void xt_walk_free(XtWalk* walk) noexcept { delete walk; }

bool xt_contains(XtIndex* index, const double* lo, const double* hi, uint64_t record_id,
                 bool* found, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&]() -> Status {
    XT_RETURN_IF_ERROR(Usable(index));
    WindowPin pin(index->store.windows());
    const KeySpec& spec = index->shared->trees[kTreeMain].spec;
    const bool unordered = lo != nullptr && IsUnordered(spec, lo, hi);
    uint32_t tree = kTreeMain;
    Key key;
    if (lo == nullptr || unordered) {
      tree = kTreeNull;
      key.lo[0] = key.hi[0] = NullTreeKey(record_id, unordered);
    } else {
      key = MakeKey(spec, lo, hi);
    }
    XT_ASSIGN_OR_RETURN(*found, index->store.details()->tree(tree)->Contains(key, record_id));
    return Status::Ok();
  });
}

bool xt_level_boxes(XtIndex* index, uint32_t level, uint64_t boxes_max, double** boxes,
                    uint64_t* count, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    std::vector<double> collected;
    {
      ReadGuard guard(index);
      XT_RETURN_IF_ERROR(
          CollectBoxes(&index->store, kTreeMain, guard.epoch(), level, boxes_max, &collected));
    }
    const size_t bytes = collected.size() * sizeof(double);
    *boxes = static_cast<double*>(std::malloc(std::max<size_t>(bytes, 1)));
    if (*boxes == nullptr) throw std::bad_alloc();
    if (bytes != 0) std::memcpy(*boxes, collected.data(), bytes);
    *count = collected.size() / (2 * index->shared->trees[kTreeMain].spec.dims);
    return Status::Ok();
  });
}
