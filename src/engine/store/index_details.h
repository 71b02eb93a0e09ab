// IndexDetails: one index as its user sees it: keys, NULLs, operations in two halves, scans, bulk
// load. It binds the trees to a store and, for a durable store, each operation to the log.
//
// Rows whose key is NULL, and those whose key has a NaN coordinate, live in a tree of their own under
// their NullTreeKey (tree/geometry.h), so that a deletion finds them without a walk.
//
// Threads:  Prepare/Apply/Discard and bulk load under the writer lock; scans anywhere.
// Windows:  pinned from a Prepare to its Apply or Discard.
// Errors:   a Prepare that fails changes nothing. Apply cannot fail.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/packed_coords.h"
#include "tree/xtree.h"

namespace xtree {

struct IndexOptions {
  KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  uint32_t leaf_fill_percent = 85;
};

// The payload of the log frame of an insertion.
struct InsertPayload {
  uint32_t bytes;
  std::byte data[sizeof(uint64_t) + kPackedBytesMax];
};

// Where an operation is logged before it is applied; null for memory.
class OperationLog {
 public:
  virtual ~OperationLog() = default;
  // Makes sure that a frame of this payload can be appended.
  virtual Status ReserveFrame(uint32_t payload_bytes) = 0;
  virtual void AppendInsert(uint32_t tree, const KeySpec& spec, const Key& key,
                            uint64_t record_id, uint64_t lsn) noexcept = 0;
  virtual void AppendDelete(uint32_t tree, const KeySpec& spec, const Key& bound,
                            const uint64_t* record_ids, uint32_t count, uint64_t lsn) noexcept = 0;
  // The same for writers beside each other (store/shared_insertion.h), under the writer lock taken shared.
  // False: alone only, as a log may always say. Whoever has got true appends or takes it back.
  // `payload` is what will be appended, so that no more room is promised than is taken.
  virtual bool ReserveInsertShared(const KeySpec&, const Key&, uint64_t /* record_id */, InsertPayload*) {
    return false;
  }
  virtual void UnreserveInsertShared(const InsertPayload&) noexcept {}
  virtual void AppendInsertShared(uint32_t /* tree */, const InsertPayload&, uint64_t /* lsn */) noexcept {}
  // Names the block that has the last frame. Without any lock.
  virtual uint64_t LastBlock() const noexcept { return 0; }
};

// Which tree a row belongs to, and its key there (only the first `dims` of each corner are set). `key`
// null: the row's key is NULL. kInvalidArgument: no such record id, or a box with lo > hi.
Status RouteRow(const IndexShared& shared, const Key* key, uint64_t record_id, uint32_t* tree,
                Key* routed);
// Of the log frame of an insertion: at most.
inline uint32_t InsertPayloadBytes(const KeySpec& spec) {
  return static_cast<uint32_t>(sizeof(uint64_t)) +
         PackedBytes(kPackedF64, spec.dims, spec.kind == KeyKind::kPoint);
}

class IndexDetails {
 public:
  IndexDetails(StoreInterface* store, OperationLog* log);

  // `key` null: the row's key is NULL. kInvalidArgument: no such record id, or a box with lo > hi.
  Status PrepareInsert(const Key* key, uint64_t record_id);
  // Hints, under the writer lock as well: insertions that come soon, and then a walk on all their paths, so that what
  // they will read is in the cache (tree/paths_ahead.h).
  void ExpectInsert(const Key& key, uint64_t record_id);
  void WalkAhead();
  // REQUIRES: 1 <= count <= kDeleteBatchMax. Borrows record_ids (in any order) until Apply or Discard.
  // In kTreeNull the keys are NullTreeKey values. If `found` is 0 there is nothing to apply, and nothing to discard.
  Status PrepareDelete(uint32_t tree, const Key& bound, const uint64_t* record_ids, uint32_t count,
                       uint32_t* found, LeafHint hint = {});
  // Logs, then applies what was prepared. `lsn`: the host's end LSN, 0 if none.
  void Apply(uint64_t lsn) noexcept;
  void Discard() noexcept;
  bool prepared() const { return pending_.active; }
  // While recovery applies what the log holds already, it is not logged again.
  void set_logging(bool logging) { logging_ = logging; }

  XTree* tree(uint32_t i) { return &trees_[i]; }
  StoreInterface* store() const { return store_; }

  static constexpr uint32_t kDeleteBatchMax = 900;

 private:
  struct PendingOp {
    uint32_t tree;
    bool is_delete;
    bool active;
    Key key;                    // Only the first `dims` of each corner are set.
    uint64_t record_id;
    const uint64_t* record_ids;
    uint32_t count;
  };
  class Preparation;
  Status ReserveLog(uint32_t payload_bytes);
  void Finish() noexcept;

  StoreInterface* const store_;
  OperationLog* const log_;
  XTree trees_[kTrees];
  PendingOp pending_{};
  bool logging_ = true;
};

}  // namespace xtree
