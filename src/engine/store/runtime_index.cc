#include "store/runtime_index.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "store/bulk_build.h"
#include "tree/checker.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

// A thread's buffers for one batch of a scan. A visitor may search again, so a second search of the
// same thread gets buffers of its own.
struct ScanBuffers {
  std::vector<uint64_t> ids;
  std::vector<double> lo;
  std::vector<double> hi;
  bool in_use = false;
  void Prepare(uint32_t dims) {
    ids.resize(kScanBatchMin);
    if (lo.size() < size_t{kScanBatchMin} * dims) {
      lo.resize(size_t{kScanBatchMin} * dims);
      hi.resize(size_t{kScanBatchMin} * dims);
    }
  }
};

class BorrowedBuffers {
 public:
  explicit BorrowedBuffers(uint32_t dims) {
    thread_local ScanBuffers shared;
    buffers_ = shared.in_use ? &own_ : &shared;
    buffers_->in_use = true;
    buffers_->Prepare(dims);
  }
  ~BorrowedBuffers() { buffers_->in_use = false; }
  BorrowedBuffers(const BorrowedBuffers&) = delete;
  ScanBuffers* operator->() { return buffers_; }

 private:
  ScanBuffers own_;
  ScanBuffers* buffers_;
};

Status NoReaderSlot() {
  return Status::Make(Code::kBusy, "too many threads read at once");
}

constexpr uint64_t kReplayNsPerOp = 2000;
constexpr uint64_t kRecoveryMsTarget = 60'000;
constexpr uint64_t kLogBytesMin = 16u << 20;
constexpr uint32_t kDirtyPercentMax = 100;
constexpr uint32_t kFoldStepBlocks = 4096;
// A millisecond or so under the writer lock.
constexpr uint64_t kTidyStepVersions = 256;
constexpr uint32_t kCompactStepNodes = 64;
// A sync waits for other committers for at most this part of what the last one took; if in vain, so many
// syncs do not.
constexpr uint64_t kGatherShare = 2;
constexpr uint32_t kImpatientSyncs = 8;

}  // namespace

// --- Operations and scans of both kinds.

Status RuntimeIndex::Insert(const Key& key, uint64_t record_id) {
  return InsertRow(&key, record_id);
}

Status RuntimeIndex::InsertNull(uint64_t record_id) {
  return InsertRow(nullptr, record_id);
}

// Beside others, if that is all it takes.
Status RuntimeIndex::InsertBeside(SharedInsertion* insertion, const Key* key, uint64_t record_id,
                                  bool* done) {
  XT_RETURN_IF_ERROR(Usable());
  XT_RETURN_IF_ERROR(insertion->Prepare(key, record_id));
  *done = insertion->prepared();
  if (*done) insertion->Apply(0);
  return Status::Ok();
}

Status RuntimeIndex::InsertRow(const Key* key, uint64_t record_id) {
  WritersShared& writers = node_store_->shared()->writers;
  uint64_t mark = 0;
  bool beside = may_share_ && writers.TakeSharedTurn();
  if (!beside) {
    if (XT_UNLIKELY(!writer_mutex_.try_lock())) {
      writers.NoteLockWait();
      beside = may_share_;
      if (!beside) writer_mutex_.lock();
    }
  }
  if (beside) {
    SharedInsertion insertion(node_store_, log_);
    for (;;) {
      if (XT_UNLIKELY(!writer_mutex_.try_lock_shared())) {
        writers.NoteLockWait();
        writer_mutex_.lock_shared();
      }
      bool done = false;
      {
        const std::shared_lock<SharedMutex> unlock(writer_mutex_, std::adopt_lock);
        XT_RETURN_IF_ERROR(InsertBeside(&insertion, key, record_id, &done));
      }
      if (done) return Status::Ok();
      if (writer_mutex_.try_lock()) break;
      writers.NoteLockWait();
      // Whoever meets a full log block first opens the next one; the others then go on beside.
      if (writer_mutex_.LockUnless([&] { return insertion.MayBeTriedAgain(); })) break;
    }
  }
  {
    const std::lock_guard<SharedMutex> unlock(writer_mutex_, std::adopt_lock);
    XT_RETURN_IF_ERROR(Usable());
    XT_RETURN_IF_ERROR(details_->PrepareInsert(key, record_id));
    details_->Apply(0);
    XT_RETURN_IF_ERROR(Applied(&mark));
  }
  return Settle(mark);
}

Status RuntimeIndex::Delete(const Key& key, uint64_t record_id, bool* found) {
  uint64_t mark = 0;
  {
    ExclusiveLock lock(&writer_mutex_);
    XT_RETURN_IF_ERROR(Usable());
    const bool point = spec().kind == KeyKind::kPoint;
    const bool unordered = IsUnordered(spec(), key.lo, point ? key.lo : key.hi);
    Key bound = key;
    if (point) std::copy(key.lo, key.lo + spec().dims, bound.hi);
    if (unordered) bound.lo[0] = bound.hi[0] = NullTreeKey(record_id, true);
    uint32_t count = 0;
    XT_RETURN_IF_ERROR(details_->PrepareDelete(unordered ? kTreeNull : kTreeMain, bound,
                                               &record_id, 1, &count));
    *found = count != 0;
    if (count == 0) return Status::Ok();
    details_->Apply(0);
    XT_RETURN_IF_ERROR(Applied(&mark));
  }
  return Settle(mark);
}

Status RuntimeIndex::SearchTree(uint32_t tree, const Predicate& predicate, const Visitor& visit) {
  XT_RETURN_IF_ERROR(Usable());
  EpochReader* reader = runtime_->reader();
  if (reader == nullptr) return NoReaderSlot();
  const uint32_t dims = node_store_->shared()->trees[tree].spec.dims;
  BorrowedBuffers buffers(dims);
  WindowScan scan(node_store_);
  XT_RETURN_IF_ERROR(scan.Begin(reader, tree, predicate));
  for (;;) {
    uint32_t count = 0;
    XT_RETURN_IF_ERROR(scan.Next(buffers->ids.data(), buffers->lo.data(), buffers->hi.data(),
                                 kScanBatchMin, false, &count));
    if (count == 0) return Status::Ok();
    for (uint32_t i = 0; i < count; ++i) {
      visit(buffers->ids[i], &buffers->lo[size_t{i} * dims], &buffers->hi[size_t{i} * dims]);
    }
  }
}

Status RuntimeIndex::Search(const Predicate& predicate, const Visitor& visit) {
  return SearchTree(kTreeMain, predicate, visit);
}

Status RuntimeIndex::SearchNull(const Visitor& visit) {
  return SearchTree(kTreeNull, Predicate::All(), visit);
}

Status RuntimeIndex::Nearest(const double* point, uint32_t k,
                             const std::function<void(uint64_t, double)>& visit) {
  XT_RETURN_IF_ERROR(Usable());
  EpochReader* reader = runtime_->reader();
  if (reader == nullptr) return NoReaderSlot();
  NearestScan scan(node_store_);
  XT_RETURN_IF_ERROR(scan.Begin(reader, kTreeMain, point, Predicate::All()));
  constexpr uint32_t kBatch = 64;
  uint64_t ids[kBatch];
  double distances[kBatch];
  while (k > 0) {
    uint32_t count = 0;
    XT_RETURN_IF_ERROR(
        scan.Next(ids, distances, nullptr, nullptr, std::min(k, kBatch), &count));
    if (count == 0) break;
    for (uint32_t i = 0; i < count; ++i) visit(ids[i], distances[i]);
    k -= count;
  }
  return Status::Ok();
}

Status RuntimeIndex::Check(std::vector<std::string>* problems) {
  ExclusiveLock lock(&writer_mutex_);
  XT_RETURN_IF_ERROR(Usable());
  WindowPin pin(node_store_->windows());
  const uint64_t epoch =
      node_store_->shared()->published_epoch.load(std::memory_order_acquire);
  for (uint32_t tree = 0; tree < kTrees; ++tree) {
    TreeReport report;
    XT_RETURN_IF_ERROR(CheckTree(node_store_, tree, epoch, true, &report));
    problems->insert(problems->end(), report.problems.begin(), report.problems.end());
  }
  return CheckStore(problems);
}

// Under the writer lock.
Status RuntimeIndex::Load(const double* lo, const double* hi, const uint64_t* record_ids,
                          uint64_t count, uint32_t threads,
                          WriteBlocks write) {
  XT_RETURN_IF_ERROR(Usable());
  if (!BulkBuild::IsEmpty(*node_store_->shared())) {
    return Status::InvalidArgument("a bulk load needs an empty index");
  }
  BulkBuild build(node_store_, threads, nullptr, std::move(write));
  XT_RETURN_IF_ERROR(build.Borrow(lo, hi, record_ids, count));
  return build.Pack();
}

Status MemoryIndex::BulkLoad(const double* lo, const double* hi, const uint64_t* record_ids,
                             uint64_t count, uint32_t threads) {
  ExclusiveLock lock(&writer_mutex_);
  return Load(lo, hi, record_ids, count, threads);
}

// --- Durable indexes.

DurableIndex::DurableIndex(DurableRuntime* runtime, const RuntimeOptions& options, FileSystem* fs,
                           Clock* clock, WindowBudget* budget, EpochShared* epochs,
                           CheckpointCoordinator* coordinator, OpenLogs* open_logs, const std::string& path)
    : DurableIndexParts(fs, budget, epochs, path),
      RuntimeIndex(runtime, &durable, durable.details(), &durable,
                   options.mode != DurabilityMode::kStrict),
      mode_(options.mode),
      policy_{options.log_bytes_fold,
              options.log_bytes_fold * 4,
              options.log_age_fold_ms,
              kDirtyPercentMax,
              std::min<uint64_t>(kLogBytesMin, options.log_bytes_fold),
              kRecoveryMsTarget,
              options.log_percent_fold,
              options.unsaved_bytes_max},
      clock_(clock),
      coordinator_(coordinator) {
  if (options.unsaved_bytes_max != 0 && fs->CanMapPrivate()) durable.windows()->KeepPrivate();
  if (open_logs != nullptr) durable.log()->KeepOpen(open_logs);
}

Status DurableIndex::Usable() const {
  if (XT_UNLIKELY(index_shared->broken.load(std::memory_order_relaxed) != 0)) {
    return Status::Make(Code::kBroken, "index \"%s\" is marked broken",
                        node_store_->windows()->path().c_str());
  }
  return Status::Ok();
}

Status DurableIndex::Close() {
  MutexLock fold_lock(&fold_mutex_);
  Status status = FinishFold();
  const uint64_t mark = durable.log()->written_mark();
  const Status synced = WaitDurable(mark);
  if (synced.ok()) Seal();
  return status.ok() ? synced : status;
}

// A commit frame that says how far the log is on disk. Without one, damage in what the last sync
// covered could not be told from a torn end. Best effort: everything is durable already.
void DurableIndex::Seal() {
  uint64_t mark;
  {
    ExclusiveLock lock(&writer_mutex_);
    // A seal must not commit what the program has not.
    if (log_ops() == 0 || durable.log_bytes() == 0 || durable.ops_since_commit() != 0 || !Usable().ok()) return;
    if (!durable.ReserveFrame(0).ok()) return;
    durable.AppendCommit();
    mark = durable.log()->written_mark();
  }
  const Status status = WaitDurable(mark);
  (void)status.ok();
}

Status DurableIndex::Applied(uint64_t* mark) {
  if (mode_ != DurabilityMode::kStrict) return Status::Ok();
  XT_RETURN_IF_ERROR(AppendCommitLocked());
  *mark = durable.log()->written_mark();
  return Status::Ok();
}

// Under the writer lock. A commit is where a capture may be taken, so a fold that is wanted begins
// here.
Status DurableIndex::AppendCommitLocked() {
  if (durable.ops_since_commit() != 0) {
    XT_RETURN_IF_ERROR(durable.ReserveFrame(0));
    durable.AppendCommit();
  }
  if (XT_UNLIKELY(fold_wanted_.load(std::memory_order_relaxed))) BeginWantedFold();
  return Status::Ok();
}

Status DurableIndex::Commit() {
  uint64_t mark;
  bool full;
  {
    ExclusiveLock lock(&writer_mutex_);
    XT_RETURN_IF_ERROR(Usable());
    XT_RETURN_IF_ERROR(AppendCommitLocked());
    mark = durable.log()->written_mark();
    full = MustFoldNow(policy_, Inputs()) && !fold_begun_;
  }
  if (mode_ != DurabilityMode::kEventual) {
    XT_RETURN_IF_ERROR(WaitDurable(mark));
  } else {
    MutexLock lock(&commit_mutex_);
    XT_RETURN_IF_ERROR(sync_error_);  // Of a flush: there will be no other.
  }
  if (XT_UNLIKELY(full)) {
    // The background does not keep up (or there is none). A failure here fails no commit.
    const Status folded = Checkpoint();
    (void)folded.ok();
  }
  return Status::Ok();
}

// Before a sync, under commit_mutex_. Those whom the last sync has released are likely to commit again at
// once. Without them the sync would serve only those who came during the last one, half of all, and the others would
// wait for it and for the next. Where they do not come, it is not tried again for a while.
void DurableIndex::GatherCommitters() {
  if (arrived_ >= expected_) return;
  if (impatience_ > 0) {
    --impatience_;
    return;
  }
  gathered_.wait_for(commit_mutex_, std::chrono::microseconds(sync_micros_ / kGatherShare),
                     [this]() XT_REQUIRES(commit_mutex_) { return arrived_ >= expected_; });
  if (arrived_ < expected_) impatience_ = kImpatientSyncs;
}

// Group commit: whoever finds nobody syncing does it for all that has been appended by then; the others
// sleep and look again, without the mutex: they are woken together, and would meet there.
Status DurableIndex::WaitDurable(uint64_t mark) {
  const std::atomic<uint64_t>& durable_mark = index_shared->log.durable_mark;
  if (durable_mark.load(std::memory_order_acquire) >= mark) return Status::Ok();
  commit_mutex_.lock();
  if (++arrived_ == expected_) gathered_.notify_one();
  const uint64_t group = group_;
  Status status;
  while (durable_mark.load(std::memory_order_acquire) < mark) {
    if (!sync_error_.ok()) {
      status = sync_error_;
      break;
    }
    if (syncing_) {
      const uint32_t seen = wakings_.load(std::memory_order_acquire);
      commit_mutex_.unlock();
      wakings_.wait(seen, std::memory_order_acquire);
      // Served, by a sync that counted it.
      if (durable_mark.load(std::memory_order_acquire) >= mark &&
          groups_served_.load(std::memory_order_relaxed) > group) {
        return status;
      }
      commit_mutex_.lock();
      continue;
    }
    syncing_ = true;
    GatherCommitters();
    const uint32_t served = std::exchange(arrived_, 0);
    ++group_;
    commit_mutex_.unlock();
    const uint64_t begin = clock_->NowMicros();
    Status synced = durable.SyncLog();
    const uint64_t took = clock_->NowMicros() - begin;
    commit_mutex_.lock();
    syncing_ = false;
    sync_micros_ = took;
    expected_ = served + arrived_;
    if (!synced.ok()) sync_error_ = std::move(synced);
    groups_served_.store(group_, std::memory_order_relaxed);
    WakeCommitters();
  }
  // Served by what had begun before it arrived, so the next sync need not count it.
  if (group == group_) --arrived_;
  commit_mutex_.unlock();
  return status;
}

Status DurableIndex::AppendCommit(uint64_t* mark) {
  ExclusiveLock lock(&writer_mutex_);
  XT_RETURN_IF_ERROR(AppendCommitLocked());
  *mark = durable.log()->written_mark();
  return Status::Ok();
}

Status DurableIndex::BeginSync(uint64_t mark, std::vector<std::string>* paths) {
  MutexLock lock(&commit_mutex_);
  if (mode_ == DurabilityMode::kEventual) return sync_error_;  // The background does it.
  while (syncing_) {
    const uint32_t seen = wakings_.load(std::memory_order_acquire);
    commit_mutex_.unlock();
    wakings_.wait(seen, std::memory_order_acquire);
    commit_mutex_.lock();
  }
  if (!sync_error_.ok()) return sync_error_;
  if (index_shared->log.durable_mark.load(std::memory_order_acquire) >= mark) return Status::Ok();
  *paths = durable.log()->Paths();
  syncing_ = true;
  return Status::Ok();
}

void DurableIndex::Synced(uint64_t mark, const Status& status) {
  if (status.ok()) durable.log()->NoteDurable(mark);
  MutexLock lock(&commit_mutex_);
  syncing_ = false;
  if (!status.ok() && sync_error_.ok()) sync_error_ = status;
  WakeCommitters();
}

// --- Folds.

// Under the writer lock, at a commit boundary. The rest is done by FinishFold, elsewhere.
void DurableIndex::BeginWantedFold() {
  if (fold_begun_ || !durable.FoldBegin().ok()) return;  // The background asks again.
  fold_begun_ = true;
  ops_at_fold_ = log_ops();
  fold_wanted_.store(false, std::memory_order_relaxed);
  oldest_op_micros_.store(0, std::memory_order_relaxed);
  if (coordinator_ != nullptr) coordinator_->Poke();
}

// Under fold_mutex_. Does what a begun fold still needs; nothing if none has begun.
Status DurableIndex::FinishFold() {
  {
    ExclusiveLock lock(&writer_mutex_);
    if (!fold_begun_) return Status::Ok();
  }
  bool done = false;
  Status status;
  while (status.ok() && !done) status = durable.FoldWrite(kFoldStepBlocks, &done);
  if (status.ok()) status = durable.FoldPublish();
  {
    ExclusiveLock lock(&writer_mutex_);
    durable.FoldEnd(status.ok(), false);
    fold_begun_ = false;
  }
  // In steps, so that nobody waits long for the lock.
  for (bool tidy = !status.ok(); !tidy;) {
    ExclusiveLock lock(&writer_mutex_);
    tidy = durable.FoldTidy(kTidyStepVersions);
  }
  // Whoever waits for a commit may find that the capture has made it durable.
  MutexLock lock(&commit_mutex_);
  WakeCommitters();
  return status;
}

// Under fold_mutex_.
Status DurableIndex::FoldNow() {
  for (;;) {
    XT_RETURN_IF_ERROR(FinishFold());
    ExclusiveLock lock(&writer_mutex_);
    if (fold_begun_) continue;  // By a commit, just now; it may lack what was committed since.
    XT_RETURN_IF_ERROR(Usable());
    fold_wanted_.store(false, std::memory_order_relaxed);
    XT_RETURN_IF_ERROR(AppendCommitLocked());
    XT_RETURN_IF_ERROR(durable.FoldBegin());
    fold_begun_ = true;
    ops_at_fold_ = log_ops();
    oldest_op_micros_.store(0, std::memory_order_relaxed);
    break;
  }
  return FinishFold();
}

// Under fold_mutex_. Moves nodes to the front of a file of which most is free.
Status DurableIndex::Compact(bool* moved) {
  const uint32_t limit = durable.CompactLimit();
  *moved = limit != UINT32_MAX;
  uint64_t position = 0;
  for (bool done = !*moved; !done;) {
    ExclusiveLock lock(&writer_mutex_);
    XT_RETURN_IF_ERROR(durable.CompactStep(kCompactStepNodes, &position, limit, &done));
  }
  return Status::Ok();
}

Status DurableIndex::Checkpoint() {
  MutexLock fold_lock(&fold_mutex_);
  XT_RETURN_IF_ERROR(FoldNow());
  bool moved;
  XT_RETURN_IF_ERROR(Compact(&moved));
  if (moved) XT_RETURN_IF_ERROR(FoldNow());
  ExclusiveLock lock(&writer_mutex_);
  node_store_->allocator()->TrimFreeExtents();
  return Status::Ok();
}

Status DurableIndex::BulkLoad(const double* lo, const double* hi, const uint64_t* record_ids,
                              uint64_t count, uint32_t threads) {
  MutexLock fold_lock(&fold_mutex_);
  XT_RETURN_IF_ERROR(FinishFold());
  ExclusiveLock lock(&writer_mutex_);
  XT_RETURN_IF_ERROR(AppendCommitLocked());
  if (fold_begun_) {
    return Status::Make(Code::kBusy, "index \"%s\" is being folded",
                        node_store_->windows()->path().c_str());
  }
  WriteBlocks write;
  if (durable.MayWriteStaged()) {
    write = [this](uint32_t first, uint32_t blocks, std::byte* data) {
      return durable.WriteStaged(first, blocks, data, true);
    };
  }
  XT_RETURN_IF_ERROR(Load(lo, hi, record_ids, count, threads, std::move(write)));
  return durable.WriteCaptureInPlace();
}

// All but the age of the oldest operation.
FoldInputs DurableIndex::Inputs() const {
  FoldInputs inputs{};
  inputs.log_bytes = durable.log_bytes();
  inputs.ops_since_fold = log_ops() - ops_at_fold_;
  inputs.data_bytes = data_bytes();
  inputs.replay_ns_per_op = kReplayNsPerOp;
  inputs.unsaved_bytes = durable.unsaved_bytes();
  return inputs;
}

FoldDecision DurableIndex::Decide() {
  FoldInputs inputs;
  {
    ExclusiveLock lock(&writer_mutex_);
    inputs = Inputs();
  }
  const uint64_t now = clock_->NowMicros();
  uint64_t oldest = oldest_op_micros_.load(std::memory_order_relaxed);
  if (inputs.log_bytes == 0) {
    oldest_op_micros_.store(0, std::memory_order_relaxed);
    oldest = 0;
  } else if (oldest == 0) {
    oldest_op_micros_.store(now, std::memory_order_relaxed);
  }
  inputs.oldest_op_age_ms = oldest != 0 ? (now - oldest) / 1000 : 0;
  return DecideFold(policy_, inputs);
}

void DurableIndex::BackgroundStep(bool flush, bool fold) {
  durable.log()->CloseIdleFile();
  if (flush) {
    const uint64_t mark = durable.log()->written_mark();
    const Status status = WaitDurable(mark);  // Latched if it fails; the next Commit reports it.
    (void)status.ok();
  }
  if (!fold) return;
  MutexLock fold_lock(&fold_mutex_);
  Status status = FinishFold();
  if (!status.ok() || Decide() == FoldDecision::kNone) return;
  bool at_boundary;
  {
    ExclusiveLock lock(&writer_mutex_);
    at_boundary = durable.ops_since_commit() == 0;
    if (at_boundary) BeginWantedFold();
  }
  // Otherwise the next commit begins it: a capture must not make uncommitted operations durable.
  if (!at_boundary) fold_wanted_.store(true, std::memory_order_relaxed);
  if (at_boundary) status = FinishFold();
}

}  // namespace xtree
