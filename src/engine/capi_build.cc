// The C wall: bulk builds.
#include "capi_internal.h"
#include "store/bulk_build.h"

using namespace xtree;        // NOLINT: this file is the boundary; its own names all begin with xt.
using namespace xtree::capi;  // NOLINT

namespace {

WriteBlocks WriterOf(XtIndex* index) {
  if (!index->store.MayWriteStaged()) return {};
  return [index](uint32_t first, uint32_t blocks, std::byte* data) {
    return index->store.WriteStaged(first, blocks, data, false);
  };
}

}  // namespace

struct XtBuild {
  XtBuild(XtIndex* i, uint32_t threads, const volatile int* const* cancel)
      : index(i), build(&i->store, threads, cancel, WriterOf(i)) {}
  XtIndex* const index;
  BulkBuild build;
};

XtBuild* xt_build_begin(XtIndex* index, uint32_t threads, const volatile int* const cancel[2],
                        XtError* error) noexcept {
  XtBuild* build = nullptr;
  GuardFiles(index, OnFault::kFail, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    if (!BulkBuild::IsEmpty(*index->shared)) {
      return Status::InvalidArgument("a bulk build needs an empty index");
    }
    build = new XtBuild(index, threads, cancel);
    return Status::Ok();
  });
  return build;
}

bool xt_build_add(XtBuild* build, const double* lo, const double* hi, const uint64_t* record_ids,
                  uint32_t count, XtError* error) noexcept {
  return GuardFiles(build->index, OnFault::kFail, error,
                    [&] { return build->build.Add(lo, hi, record_ids, count); });
}

bool xt_build_add_null(XtBuild* build, uint64_t record_id, XtError* error) noexcept {
  return GuardFiles(build->index, OnFault::kFail, error,
                    [&] { return build->build.AddNull(record_id); });
}

uint64_t xt_build_memory_bytes(const XtBuild* build) noexcept {
  return build->build.memory_bytes();
}

uint32_t xt_build_take(XtBuild* build, double* lo, double* hi, uint64_t* record_ids,
                       uint32_t capacity) noexcept {
  uint32_t taken = 0;
  Guard(nullptr, [&] {
    taken = build->build.main()->TakeAdded(lo, hi, record_ids, capacity);
    return Status::Ok();
  });
  return taken;
}

void xt_build_curve_keys(XtBuild* build, const double* bounds_lo, const double* bounds_hi,
                         const double* lo, const double* hi, uint32_t count,
                         uint64_t* keys) noexcept {
  const KeySpec& spec = build->build.spec();
  for (uint32_t i = 0; i < count; ++i) {
    const double* entry_lo = lo + uint64_t{i} * spec.dims;
    const double* entry_hi = hi != nullptr ? hi + uint64_t{i} * spec.dims : entry_lo;
    keys[i] = BulkLoader::CurveKey(spec, bounds_lo, bounds_hi, entry_lo, entry_hi);
  }
}

bool xt_build_add_sorted(XtBuild* build, const double* lo, const double* hi,
                         const uint64_t* record_ids, uint32_t count, XtError* error) noexcept {
  return GuardFiles(build->index, OnFault::kFail, error,
                    [&] { return build->build.AddSorted(lo, hi, record_ids, count); });
}

bool xt_build_pack(XtBuild* build, uint64_t lsn, XtError* error) noexcept {
  return GuardFiles(build->index, OnFault::kFail, error, [&] {
    auto& applied = build->index->shared->applied_lsn;
    if (lsn > applied.load(std::memory_order_relaxed)) {
      applied.store(lsn, std::memory_order_relaxed);
    }
    return build->build.Pack();
  });
}

bool xt_build_finish(XtBuild* build, bool synced, uint32_t blocks_max, bool* done,
                     XtError* error) noexcept {
  return GuardFiles(build->index, OnFault::kFail, error, [&] {
    XT_ASSERT(build->build.packed());
    return build->index->store.CaptureStep(blocks_max, synced, done);
  });
}

void xt_build_free(XtBuild* build) noexcept { delete build; }
