// The C wall: scans and inspection.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "capi_internal.h"
#include "tree/checker.h"

using namespace xtree;        // NOLINT: this file is the boundary; its own names all begin with xt.
using namespace xtree::capi;  // NOLINT

struct XtScan {
  explicit XtScan(XtIndex* i) : index(i), window(&i->store), nearest(&i->store) {}
  enum class Kind { kNone, kWindow, kNearest };
  XtIndex* const index;
  WindowScan window;
  NearestScan nearest;
  Kind running = Kind::kNone;
  void End() {
    if (running == Kind::kWindow) window.End();
    if (running == Kind::kNearest) nearest.End();
    running = Kind::kNone;
  }
};

namespace {

Status CheckTreeNumber(uint32_t tree) {
  return tree < kTrees ? Status::Ok() : Status::InvalidArgument("there is no tree %u", tree);
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
  return Guard(error, [&] {
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
  return Guard(error, [&] {
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
  const bool ok = Guard(error, [&] {
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
  return ok ? static_cast<int>(count) : -1;
}

void xt_scan_end(XtScan* scan) noexcept { scan->End(); }

int xt_scan_leaf(XtScan* scan, uint64_t* record_ids, uint32_t capacity, XtLeaf* leaf,
                 XtError* error) noexcept {
  uint32_t count = 0;
  const bool ok = Guard(error, [&] {
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
  return Guard(error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    ReadGuard guard(index);
    return EstimateFraction(&index->store, kTreeMain, guard.epoch(), ToPredicate(predicate),
                            fraction);
  });
}

bool xt_stats(XtIndex* index, XtStats* stats, XtError* error) noexcept {
  return Guard(error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    std::memset(stats, 0, sizeof(*stats));
    const IndexShared& shared = *index->shared;
    TreeReport report;
    {
      ReadGuard guard(index);
      XT_RETURN_IF_ERROR(CheckTree(&index->store, kTreeMain, guard.epoch(), false, &report));
    }
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
    stats->retired_versions = index->store.retired_versions();
    stats->folds = shared.capture.folds.load(std::memory_order_relaxed);
    stats->active_shards = shared.table.active_shards.load(std::memory_order_relaxed);
    stats->windows_mapped = index->runtime->budget.windows_mapped();
    return Status::Ok();
  });
}

int xt_check(XtIndex* index, XtError* error) noexcept {
  const bool ok = Guard(error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    index->problems.clear();
    ReadGuard guard(index);
    for (uint32_t tree = 0; tree < kTrees; ++tree) {
      TreeReport report;
      XT_RETURN_IF_ERROR(CheckTree(&index->store, tree, guard.epoch(), true, &report));
      for (std::string& problem : report.problems) index->problems.push_back(std::move(problem));
    }
    return index->store.CheckBlocks(&index->problems);
  });
  return ok ? static_cast<int>(index->problems.size()) : -1;
}

const char* xt_check_problem(XtIndex* index, int i) noexcept {
  if (i < 0 || static_cast<size_t>(i) >= index->problems.size()) return nullptr;
  return index->problems[static_cast<size_t>(i)].c_str();
}

bool xt_contains(XtIndex* index, const double* lo, const double* hi, uint64_t record_id,
                 bool* found, XtError* error) noexcept {
  return Guard(error, [&]() -> Status {
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

bool xt_level_boxes(XtIndex* index, uint32_t level, double** boxes, uint64_t* count,
                    XtError* error) noexcept {
  return Guard(error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    std::vector<double> collected;
    {
      ReadGuard guard(index);
      XT_RETURN_IF_ERROR(
          CollectBoxes(&index->store, kTreeMain, guard.epoch(), level, &collected));
    }
    const size_t bytes = collected.size() * sizeof(double);
    *boxes = static_cast<double*>(std::malloc(std::max<size_t>(bytes, 1)));
    if (*boxes == nullptr) throw std::bad_alloc();
    if (bytes != 0) std::memcpy(*boxes, collected.data(), bytes);
    *count = collected.size() / (2 * index->shared->trees[kTreeMain].spec.dims);
    return Status::Ok();
  });
}
