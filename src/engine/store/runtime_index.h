// The indexes of a DurableRuntime: what Index promises, over a MemoryStore or a DurableStore.
//
// Locks, in this order: fold_mutex_ (one fold at a time), writer_mutex_ (one writer; or several that share
// it, to insert only), commit_mutex_ (who syncs the log). No file is synced under the writers'.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "checkpoint/checkpoint_coordinator.h"
#include "store/durable_runtime.h"
#include "store/memory_store.h"
#include "store/shared_insertion.h"
#include "tree/bulk_loader.h"

namespace xtree {

// What both kinds share: operations through IndexDetails, scans.
class RuntimeIndex : public Index {
 public:
  Status Insert(const Key& key, uint64_t record_id) override;
  Status InsertNull(uint64_t record_id) override;
  Status Delete(const Key& key, uint64_t record_id, bool* found) override;
  Status Search(const Predicate& predicate, const Visitor& visit) override;
  Status SearchNull(const Visitor& visit) override;
  Status Nearest(const double* point, uint32_t k,
                 const std::function<void(uint64_t, double)>& visit) override;
  Status Check(std::vector<std::string>* problems) override;

 protected:
  // `may_share`: an insertion needs nothing more under the writer lock than itself (Applied does nothing).
  RuntimeIndex(DurableRuntime* runtime, NodeStore* node_store, IndexDetails* details,
               OperationLog* log, bool may_share)
      : runtime_(runtime), node_store_(node_store), details_(details), log_(log),
        may_share_(may_share) {}
  // Takes the lock in one of two ways, which clang's analysis cannot follow.
  Status InsertRow(const Key* key, uint64_t record_id)
      XT_THREAD_ATTRIBUTE(no_thread_safety_analysis);
  Status InsertBeside(SharedInsertion* insertion, const Key* key, uint64_t record_id, bool* done)
      XT_THREAD_ATTRIBUTE(requires_shared_capability(writer_mutex_));
  Status SearchTree(uint32_t tree, const Predicate& predicate, const Visitor& visit);
  const KeySpec& spec() const { return node_store_->shared()->trees[kTreeMain].spec; }
  // Kinds of store differ in what follows an applied operation: Applied under the writer lock, then
  // Settle(mark) without it.
  virtual Status Applied(uint64_t* mark) XT_REQUIRES(writer_mutex_) = 0;
  virtual Status Settle(uint64_t mark) = 0;
  virtual Status CheckStore(std::vector<std::string>* problems) = 0;
  virtual Status Usable() const = 0;
  Status Load(const double* lo, const double* hi, const uint64_t* record_ids, uint64_t count,
              uint32_t threads, WriteBlocks write = {})
      XT_REQUIRES(writer_mutex_);

  DurableRuntime* const runtime_;
  NodeStore* const node_store_;
  IndexDetails* const details_;
  OperationLog* const log_;          // Null: memory.
  const bool may_share_;
  SharedMutex writer_mutex_;
};

struct MemoryIndexParts {
  MemoryStore memory;
  IndexDetails memory_details;
  MemoryIndexParts(const IndexOptions& options, EpochShared* epochs)
      : memory(options, epochs), memory_details(&memory, nullptr) {}
};

class MemoryIndex final : private MemoryIndexParts, public RuntimeIndex {
 public:
  MemoryIndex(DurableRuntime* runtime, const IndexOptions& options, EpochShared* epochs)
      : MemoryIndexParts(options, epochs), RuntimeIndex(runtime, &memory, &memory_details, nullptr, true) {}
  Status BulkLoad(const double* lo, const double* hi, const uint64_t* record_ids, uint64_t count,
                  uint32_t threads) override;
  Status Commit() override { return Status::Ok(); }
  Status Checkpoint() override { return Status::Ok(); }
  StoreInterface* store() override { return &memory; }

 private:
  Status Applied(uint64_t*) override { return Status::Ok(); }
  Status Settle(uint64_t) override { return Status::Ok(); }
  Status CheckStore(std::vector<std::string>*) override { return Status::Ok(); }
  Status Usable() const override { return Status::Ok(); }
};

struct DurableIndexParts {
  std::unique_ptr<IndexShared> index_shared;
  DurableStore durable;
  DurableIndexParts(FileSystem* fs, WindowBudget* budget, EpochShared* epochs,
                    const std::string& path)
      : index_shared(new IndexShared()),
        durable(index_shared.get(), fs, budget, epochs, path, path + "_log", ChunkSource::kHeap) {}
};

class DurableIndex final : private DurableIndexParts, public RuntimeIndex {
 public:
  // `coordinator` may be null: then folds happen only in Checkpoint and past the hard limit.
  DurableIndex(DurableRuntime* runtime, const RuntimeOptions& options, FileSystem* fs, Clock* clock,
               WindowBudget* budget, EpochShared* epochs, CheckpointCoordinator* coordinator,
               OpenLogs* open_logs, const std::string& path);
  Status Create(const IndexOptions& options) { return durable.Create(options, Identity{}, 1); }
  Status Open() { return durable.Load(LoadPolicy{}); }
  Status Close();  // Ends a running fold; syncs what is committed.

  Status BulkLoad(const double* lo, const double* hi, const uint64_t* record_ids, uint64_t count,
                  uint32_t threads) override;
  Status Commit() override;
  Status Checkpoint() override;
  StoreInterface* store() override { return &durable; }

  // For CommitAll: writes the commit frame; `mark` is what must become durable.
  Status AppendCommit(uint64_t* mark);
  // Then: which files the caller has to sync for that. If there are any, nobody else syncs them until Synced, which
  // must follow.
  Status BeginSync(uint64_t mark, std::vector<std::string>* paths);
  void Synced(uint64_t mark, const Status& status);
  // One round of background work: `flush` syncs the log, `fold` folds if it is time.
  void BackgroundStep(bool flush, bool fold);

 private:
  Status Applied(uint64_t* mark) override XT_REQUIRES(writer_mutex_);
  Status Settle(uint64_t mark) override { return mark != 0 ? WaitDurable(mark) : Status::Ok(); }
  Status CheckStore(std::vector<std::string>* problems) override {
    return durable.CheckBlocks(problems);
  }
  Status Usable() const override;
  Status AppendCommitLocked() XT_REQUIRES(writer_mutex_);
  void Seal() XT_EXCLUDES(writer_mutex_);
  Status WaitDurable(uint64_t mark) XT_EXCLUDES(commit_mutex_);
  void GatherCommitters() XT_REQUIRES(commit_mutex_);
  void WakeCommitters() {
    wakings_.fetch_add(1, std::memory_order_release);
    wakings_.notify_all();
  }
  FoldInputs Inputs() const XT_REQUIRES(writer_mutex_);
  FoldDecision Decide() XT_EXCLUDES(writer_mutex_);
  void BeginWantedFold() XT_REQUIRES(writer_mutex_);
  Status FinishFold() XT_REQUIRES(fold_mutex_) XT_EXCLUDES(writer_mutex_);
  Status FoldNow() XT_REQUIRES(fold_mutex_) XT_EXCLUDES(writer_mutex_);
  Status Compact(bool* moved) XT_REQUIRES(fold_mutex_) XT_EXCLUDES(writer_mutex_);
  uint64_t log_ops() const {
    return index_shared->log.appended_ops.load(std::memory_order_relaxed);
  }

  uint64_t data_bytes() const {
    const auto& allocator = index_shared->allocator;
    return uint64_t{allocator.used_blocks.load(std::memory_order_relaxed)} * kBlockBytes;
  }

  const DurabilityMode mode_;
  const FoldPolicy policy_;
  Clock* const clock_;
  CheckpointCoordinator* const coordinator_;

  Mutex fold_mutex_;                 // Held by whoever runs FoldWrite and FoldPublish.
  std::atomic<bool> fold_wanted_{false};  // The next commit begins a fold.
  bool fold_begun_ XT_GUARDED_BY(writer_mutex_) = false;  // It waits for FinishFold.
  uint64_t ops_at_fold_ XT_GUARDED_BY(writer_mutex_) = 0;
  std::atomic<uint64_t> oldest_op_micros_{0};  // When the background first saw an unfolded one.

  Mutex commit_mutex_;
  std::atomic<uint32_t> wakings_{0};  // Slept on until it changes.
  std::atomic<uint64_t> groups_served_{0};  // Syncs ended.
  // Somebody syncs the log. Nobody else does then: of pages that are lost the kernel may tell only one of them.
  bool syncing_ XT_GUARDED_BY(commit_mutex_) = false;
  std::condition_variable_any gathered_;  // For who is about to sync.
  uint64_t group_ XT_GUARDED_BY(commit_mutex_) = 0;        // Syncs begun: who arrives joins the next.
  uint32_t arrived_ XT_GUARDED_BY(commit_mutex_) = 0;      // Committers of the next, who syncs included.
  uint32_t expected_ XT_GUARDED_BY(commit_mutex_) = 0;     // Those of the last, and who came during it.
  uint64_t sync_micros_ XT_GUARDED_BY(commit_mutex_) = 0;  // What the last took.
  uint32_t impatience_ XT_GUARDED_BY(commit_mutex_) = 0;   // Syncs to come that wait for nobody.
  Status sync_error_ XT_GUARDED_BY(commit_mutex_);  // Latched: a failed sync is never retried.
};

}  // namespace xtree
