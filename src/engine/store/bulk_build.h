// BulkBuild: bulk loads an index: keys into the main tree, NULL and unordered ones into the other.
//
// Ownership:  borrows the store.
// Threads:    as BulkLoader: one caller, who holds the writer lock until the build is gone.
// Durability: none; the owner writes a capture afterwards (DurableStore::WriteCaptureInPlace).
// Errors:     Pack returns kNeedMemory if a chunk must be provided first; then it is called again. After
//             kCancelled the build can only be dropped.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/bulk_loader.h"

namespace xtree {

class BulkBuild {
 public:
  // REQUIRES: the index is empty.
  // `cancel`, `write`: see BulkOptions; null, or two words that outlive the build.
  BulkBuild(StoreInterface* store, uint32_t threads, const volatile int* const* cancel = nullptr,
            WriteBlocks write = {});

  static bool IsEmpty(const IndexShared& shared);

  // `lo`, `hi`: dims doubles an entry; `hi` may be null for points.
  Status Add(const double* lo, const double* hi, const uint64_t* record_ids, uint32_t count);
  // In place of all that: these, in the caller's arrays, which must stay as they are until Pack has succeeded.
  // What has an unordered key among them is copied nevertheless.
  Status Borrow(const double* lo, const double* hi, const uint64_t* record_ids, uint64_t count);
  // Entries that come in the order of their curve keys.
  Status AddSorted(const double* lo, const double* hi, const uint64_t* record_ids, uint32_t count);
  Status AddNull(uint64_t record_id) { return AddUnkeyed(record_id, false); }
  uint64_t memory_bytes() const { return main_.memory_bytes() + nulls_.memory_bytes(); }
  BulkLoader* main() { return &main_; }
  const KeySpec& spec() const { return spec_; }
  Status Pack();
  bool packed() const { return main_packed_ && nulls_packed_; }

 private:
  Status AddUnkeyed(uint64_t record_id, bool unordered);
  template <class AddRun>
  Status AddRouted(const double* lo, const double* hi, const uint64_t* record_ids, uint32_t count,
                   AddRun&& add);

  const KeySpec spec_;
  const uint32_t threads_;
  BulkLoader main_;
  BulkLoader nulls_;
  bool main_packed_ = false;
  bool nulls_packed_ = false;
};

}  // namespace xtree
