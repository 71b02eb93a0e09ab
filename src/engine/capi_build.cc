// The C wall: bulk builds.
#include "capi_internal.h"

using namespace xtree;        // NOLINT: this file is the boundary; its own names all begin with xt.
using namespace xtree::capi;  // NOLINT

// Keys go to the main loader; NULL and unordered ones to the other, under their NullTreeKey.
struct XtBuild {
  XtBuild(XtIndex* i, const BulkOptions& options)
      : index(i), spec(i->shared->trees[kTreeMain].spec), main(&i->store, kTreeMain, options),
        nulls(&i->store, kTreeNull, options) {}
  XtIndex* const index;
  const KeySpec spec;
  BulkLoader main;
  BulkLoader nulls;
  bool main_packed = false;
  bool nulls_packed = false;
};

namespace {

Status AddNull(XtBuild* build, uint64_t record_id, bool unordered) {
  const double key = NullTreeKey(record_id, unordered);
  return build->nulls.Add(&key, nullptr, &record_id, 1);
}

// Hands runs of ordered keys to `add`, and the unordered ones between them to the other tree.
template <class Add>
Status AddRouted(XtBuild* build, const double* lo, const double* hi, const uint64_t* record_ids,
                 uint32_t count, Add&& add) {
  const uint32_t dims = build->spec.dims;
  const auto at = [&](const double* corner, uint32_t i) {
    return corner != nullptr ? corner + uint64_t{i} * dims : nullptr;
  };
  uint32_t first = 0;
  for (uint32_t i = 0; i <= count; ++i) {
    if (i < count && !IsUnordered(build->spec, at(lo, i), at(hi, i))) continue;
    if (first < i) {
      XT_RETURN_IF_ERROR(add(at(lo, first), at(hi, first), record_ids + first, i - first));
    }
    if (i < count) XT_RETURN_IF_ERROR(AddNull(build, record_ids[i], true));
    first = i + 1;
  }
  return Status::Ok();
}

}  // namespace

XtBuild* xt_build_begin(XtIndex* index, uint32_t threads, XtError* error) noexcept {
  XtBuild* build = nullptr;
  Guard(error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    for (const TreeShared& tree : index->shared->trees) {
      if (tree.root.load(std::memory_order_relaxed) != 0) {
        return Status::InvalidArgument("a bulk build needs an empty index");
      }
    }
    BulkOptions options;
    options.leaf_fill_percent = index->shared->leaf_fill_percent;
    options.threads = threads;
    build = new XtBuild(index, options);
    return Status::Ok();
  });
  return build;
}

bool xt_build_add(XtBuild* build, const double* lo, const double* hi, const uint64_t* record_ids,
                  uint32_t count, XtError* error) noexcept {
  return Guard(error, [&] {
    return AddRouted(build, lo, hi, record_ids, count,
                     [&](const double* l, const double* h, const uint64_t* ids, uint32_t n) {
                       return build->main.Add(l, h, ids, n);
                     });
  });
}

bool xt_build_add_null(XtBuild* build, uint64_t record_id, XtError* error) noexcept {
  return Guard(error, [&] { return AddNull(build, record_id, false); });
}

uint64_t xt_build_memory_bytes(const XtBuild* build) noexcept {
  return build->main.memory_bytes() + build->nulls.memory_bytes();
}

uint32_t xt_build_take(XtBuild* build, double* lo, double* hi, uint64_t* record_ids,
                       uint32_t capacity) noexcept {
  uint32_t taken = 0;
  Guard(nullptr, [&] {
    taken = build->main.TakeAdded(lo, hi, record_ids, capacity);
    return Status::Ok();
  });
  return taken;
}

void xt_build_curve_keys(XtBuild* build, const double* bounds_lo, const double* bounds_hi,
                         const double* lo, const double* hi, uint32_t count,
                         uint64_t* keys) noexcept {
  const uint32_t dims = build->spec.dims;
  for (uint32_t i = 0; i < count; ++i) {
    const double* entry_lo = lo + uint64_t{i} * dims;
    const double* entry_hi = hi != nullptr ? hi + uint64_t{i} * dims : entry_lo;
    keys[i] = BulkLoader::CurveKey(build->spec, bounds_lo, bounds_hi, entry_lo, entry_hi);
  }
}

bool xt_build_add_sorted(XtBuild* build, const double* lo, const double* hi,
                         const uint64_t* record_ids, uint32_t count, XtError* error) noexcept {
  return Guard(error, [&] {
    return AddRouted(build, lo, hi, record_ids, count,
                     [&](const double* l, const double* h, const uint64_t* ids, uint32_t n) {
                       return build->main.AddSorted(l, h, ids, n);
                     });
  });
}

bool xt_build_pack(XtBuild* build, XtError* error) noexcept {
  return Guard(error, [&] {
    if (!build->main_packed) {
      XT_RETURN_IF_ERROR(build->main.Finish());
      build->main_packed = true;
    }
    if (!build->nulls_packed) {
      XT_RETURN_IF_ERROR(build->nulls.Finish());
      build->nulls_packed = true;
    }
    return Status::Ok();
  });
}

bool xt_build_finish(XtBuild* build, uint64_t lsn, XtError* error) noexcept {
  return Guard(error, [&] {
    XT_ASSERT(build->main_packed && build->nulls_packed);
    auto& applied = build->index->shared->applied_lsn;
    if (lsn > applied.load(std::memory_order_relaxed)) {
      applied.store(lsn, std::memory_order_relaxed);
    }
    return build->index->store.WriteCaptureInPlace();
  });
}

void xt_build_free(XtBuild* build) noexcept { delete build; }
