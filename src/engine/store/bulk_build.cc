#include "store/bulk_build.h"

namespace xtree {
namespace {

BulkOptions OptionsFor(const StoreInterface* store, uint32_t threads,
                       const volatile int* const* cancel) {
  BulkOptions options;
  options.leaf_fill_percent = store->shared()->leaf_fill_percent;
  options.threads = threads;
  for (int i = 0; cancel != nullptr && i < 2; ++i) options.cancel[i] = cancel[i];
  return options;
}

}  // namespace

BulkBuild::BulkBuild(StoreInterface* store, uint32_t threads, const volatile int* const* cancel)
    : spec_(store->shared()->trees[kTreeMain].spec),
      main_(store, kTreeMain, OptionsFor(store, threads, cancel)),
      nulls_(store, kTreeNull, OptionsFor(store, threads, cancel)) {}

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
