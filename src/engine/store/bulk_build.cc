#include "store/bulk_build.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "tree/parallel.h"

namespace xtree {
namespace {

BulkOptions OptionsFor(const StoreInterface* store, uint32_t threads,
                       const volatile int* const* cancel, WriteBlocks write) {
  BulkOptions options;
  options.write = std::move(write);
  options.leaf_fill_percent = store->shared()->leaf_fill_percent;
  options.threads = threads;
  for (int i = 0; cancel != nullptr && i < 2; ++i) options.cancel[i] = cancel[i];
  return options;
}

}  // namespace

BulkBuild::BulkBuild(StoreInterface* store, uint32_t threads, const volatile int* const* cancel,
                     WriteBlocks write)
    : spec_(store->shared()->trees[kTreeMain].spec), threads_(std::max(1u, threads)),
      main_(store, kTreeMain, OptionsFor(store, threads, cancel, std::move(write))),
      nulls_(store, kTreeNull, OptionsFor(store, threads, cancel, {})) {}

bool BulkBuild::IsEmpty(const IndexShared& shared) {
  for (const TreeShared& tree : shared.trees) {
    if (tree.root.load(std::memory_order_relaxed) != 0) return false;
  }
  return true;
}

Status BulkBuild::AddUnkeyed(uint64_t record_id, bool unordered) {
  const double key = NullTreeKey(record_id, unordered);
  return nulls_.Add(&key, nullptr, &record_id, 1);
}

// Hands runs of ordered keys to `add`, and the unordered ones between them to the other tree.
template <class AddRun>
Status BulkBuild::AddRouted(const double* lo, const double* hi, const uint64_t* record_ids,
                            uint32_t count, AddRun&& add) {
  const auto at = [&](const double* corner, uint32_t i) {
    return corner != nullptr ? corner + uint64_t{i} * spec_.dims : nullptr;
  };
  uint32_t first = 0;
  for (uint32_t i = 0; i <= count; ++i) {
    if (i < count && !IsUnordered(spec_, at(lo, i), at(hi, i))) continue;
    if (first < i) {
      XT_RETURN_IF_ERROR(add(at(lo, first), at(hi, first), record_ids + first, i - first));
    }
    if (i < count) XT_RETURN_IF_ERROR(AddUnkeyed(record_ids[i], true));
    first = i + 1;
  }
  return Status::Ok();
}

Status BulkBuild::Add(const double* lo, const double* hi, const uint64_t* record_ids,
                      uint32_t count) {
  return AddRouted(lo, hi, record_ids, count, [this](auto... run) { return main_.Add(run...); });
}

Status BulkBuild::Borrow(const double* lo, const double* hi, const uint64_t* record_ids,
                         uint64_t count) {
  const uint32_t dims = spec_.dims;
  std::atomic<bool> ordered{true};
  RunThreads(threads_, [&](uint32_t t) {
    const uint64_t end = count * (t + 1) / threads_;
    for (uint64_t i = count * t / threads_; i < end; ++i) {
      if (!IsUnordered(spec_, lo + i * dims, hi != nullptr ? hi + i * dims : nullptr)) continue;
      ordered.store(false, std::memory_order_relaxed);
      break;
    }
  });
  if (ordered.load(std::memory_order_relaxed)) return main_.Borrow(lo, hi, record_ids, count);
  constexpr uint64_t kBatch = 1u << 20;
  for (uint64_t first = 0; first < count; first += kBatch) {
    XT_RETURN_IF_ERROR(Add(lo + first * dims, hi != nullptr ? hi + first * dims : nullptr,
                           record_ids + first,
                           static_cast<uint32_t>(std::min(kBatch, count - first))));
  }
  return Status::Ok();
}

Status BulkBuild::AddSorted(const double* lo, const double* hi, const uint64_t* record_ids,
                            uint32_t count) {
  return AddRouted(lo, hi, record_ids, count,
                   [this](auto... run) { return main_.AddSorted(run...); });
}

Status BulkBuild::Pack() {
  if (!main_packed_) {
    XT_RETURN_IF_ERROR(main_.Finish());
    main_packed_ = true;
  }
  if (!nulls_packed_) {
    XT_RETURN_IF_ERROR(nulls_.Finish());
    nulls_packed_ = true;
  }
  return Status::Ok();
}

}  // namespace xtree
