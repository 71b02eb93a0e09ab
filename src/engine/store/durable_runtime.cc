#include "store/durable_runtime.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <set>

#include "base/mutex.h"
#include "checkpoint/checkpoint_coordinator.h"
#include "store/runtime_index.h"

namespace xtree {
namespace {

constexpr uint32_t kReaderSlots = 512;
constexpr uint32_t kBackgroundIntervalMs = 100;

// The reader slots of one runtime. Threads hold it weakly, since they may outlive the runtime.
struct EpochDomain {
  EpochDomain() {
    shared = static_cast<EpochShared*>(
        std::aligned_alloc(64, (EpochShared::BytesFor(kReaderSlots) + 63) & ~uint64_t{63}));
    if (shared == nullptr) throw std::bad_alloc();
    InitEpochShared(shared, kReaderSlots);
  }
  ~EpochDomain() { std::free(shared); }
  EpochDomain(const EpochDomain&) = delete;
  EpochShared* shared;
};

// A thread's slots, one per runtime that it has read from; given back when the thread ends.
struct ThreadReaders {
  struct Claim {
    std::weak_ptr<EpochDomain> domain;
    const EpochDomain* key;
    std::unique_ptr<EpochReader> reader;
  };
  std::vector<Claim> claims;

  ~ThreadReaders() {
    for (Claim& claim : claims) {
      if (auto domain = claim.domain.lock()) {
        ReleaseEpochSlot(domain->shared, claim.reader->slot_index());
      }
    }
  }
  EpochReader* For(const std::shared_ptr<EpochDomain>& domain) {
    for (Claim& claim : claims) {
      // A new runtime may have the address of one that is gone.
      if (claim.key == domain.get() && !claim.domain.expired()) return claim.reader.get();
    }
    std::erase_if(claims, [](const Claim& claim) { return claim.domain.expired(); });
    claims.reserve(claims.size() + 1);
    uint32_t slot;
    if (!ClaimEpochSlot(domain->shared, &slot)) return nullptr;
    claims.push_back(Claim{domain, domain.get(),
                           std::make_unique<EpochReader>(domain->shared, slot)});
    return claims.back().reader.get();
  }
};

// A name becomes a file name, beside "NAME_log" and "NAME.1".
Status CheckName(const std::string& name) {
  bool valid = !name.empty() && name.size() <= 200 && !name.ends_with("_log");
  for (const char c : name) {
    valid = valid && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-');
  }
  if (valid) return Status::Ok();
  return Status::InvalidArgument("\"%s\" is not an index name: up to 200 letters, digits, \"_\" and "
                                 "\"-\", not ending in \"_log\"", name.c_str());
}

// Removes PATH and its later segments. The first goes first: without it the rest is no index.
Status RemoveFiles(FileSystem* fs, const std::string& path) {
  uint32_t files = 1;
  const auto segment = [&](uint32_t i) {
    return i == 0 ? path : path + "." + std::to_string(i);
  };
  while (fs->Stat(segment(files).c_str()).ok()) ++files;
  Status first = fs->Remove(path.c_str());
  if (!first.ok() && first.code() != Code::kNotFound) return first;
  // For good, before anything else goes: it must not come back without the rest.
  XT_RETURN_IF_ERROR(fs->SyncDirectory(path.c_str()));
  for (uint32_t i = files; i-- > 1;) XT_RETURN_IF_ERROR(fs->Remove(segment(i).c_str()));
  return Status::Ok();
}

// Without background work nobody would close the log of an index to which no commits come.
uint32_t LogsOpenMax(const RuntimeOptions& options) {
  constexpr uint32_t kLogsOpenMax = 8;
  if (options.logs_open_max != UINT32_MAX) return options.logs_open_max;
  return options.background_checkpoints || options.mode == DurabilityMode::kEventual ? kLogsOpenMax : 0;
}

class RuntimeImpl final : public DurableRuntime {
 public:
  explicit RuntimeImpl(const RuntimeOptions& options)
      : options_(options),
        fs_(options.fs != nullptr ? options.fs : PosixFileSystem()),
        clock_(options.clock != nullptr ? options.clock : SystemClock()),
        domain_(std::make_shared<EpochDomain>()),
        budget_(options.windows_max),
        open_logs_(LogsOpenMax(options)) {}

  ~RuntimeImpl() override {
    if (coordinator_ != nullptr) coordinator_->Stop();
    for (auto& [name, index] : durable_) {
      const Status status = index->Close();
      (void)status.ok();  // What was committed is on disk, or its Commit has failed.
    }
  }

  Status Start();
  Result<Index*> CreateIndex(const std::string& name, const IndexOptions& options) override;
  Result<Index*> OpenIndex(const std::string& name) override;
  Status CloseIndex(const std::string& name) override;
  Status DropIndex(const std::string& name) override;
  Status CommitAll() override;
  EpochReader* reader() override {
    thread_local ThreadReaders readers;
    return readers.For(domain_);
  }
  uint32_t windows_mapped() const override { return budget_.windows_mapped(); }
  WindowStats window_stats() override { return budget_.stats(); }

 private:
  // Who closes or drops an index still writes to its files. While this lives nobody else does either to an index of
  // the name, opens it or creates it.
  class NameTurn {
   public:
    NameTurn(RuntimeImpl* runtime, const std::string& name) : runtime_(*runtime), name_(name) {
      MutexLock lock(&runtime_.mutex_);
      runtime_.AwaitName(name_);
      runtime_.taken_names_.insert(name_);
    }
    ~NameTurn() {
      MutexLock lock(&runtime_.mutex_);
      runtime_.taken_names_.erase(name_);
      runtime_.name_given_back_.notify_all();
    }
    NameTurn(const NameTurn&) = delete;

   private:
    RuntimeImpl& runtime_;
    const std::string& name_;
  };

  bool in_memory() const { return options_.mode == DurabilityMode::kInMemory; }
  std::string PathOf(const std::string& name) const { return options_.directory + "/" + name; }
  std::shared_ptr<DurableIndex> NewDurable(const std::string& name) {
    return std::make_shared<DurableIndex>(this, options_, fs_, clock_, &budget_, domain_->shared,
                                          coordinator_.get(), &open_logs_, PathOf(name));
  }
  void AwaitName(const std::string& name) XT_REQUIRES(mutex_) {
    name_given_back_.wait(mutex_, [&]() XT_REQUIRES(mutex_) { return !taken_names_.contains(name); });
  }
  Status CloseOpen(const std::string& name) XT_EXCLUDES(mutex_);
  Result<bool> Exists(const std::string& path);
  void BackgroundTick();
  void SyncFiles(std::vector<SyncRequest>* batch) XT_EXCLUDES(queue_mutex_);

  const RuntimeOptions options_;
  FileSystem* const fs_;
  Clock* const clock_;
  std::unique_ptr<DirectoryLock> directory_lock_;
  const std::shared_ptr<EpochDomain> domain_;
  WindowBudget budget_;
  OpenLogs open_logs_;
  std::unique_ptr<CheckpointCoordinator> coordinator_;  // Null without background work.
  uint64_t last_flush_micros_ = 0;                      // The background thread's.

  Mutex mutex_;  // Guards the maps. Never held while files are synced, except to create or open.
  std::map<std::string, std::shared_ptr<DurableIndex>> durable_ XT_GUARDED_BY(mutex_);
  std::map<std::string, std::unique_ptr<MemoryIndex>> memory_ XT_GUARDED_BY(mutex_);
  std::set<std::string> taken_names_ XT_GUARDED_BY(mutex_);
  std::condition_variable_any name_given_back_;

  Mutex queue_mutex_;
  std::unique_ptr<IoQueue> queue_ XT_GUARDED_BY(queue_mutex_);
};

Status RuntimeImpl::Start() {
  if (in_memory()) return Status::Ok();
  if (options_.directory.empty()) {
    return Status::InvalidArgument("durable indexes need a directory");
  }
  if (!fs_->Stat(options_.directory.c_str()).ok()) {
    XT_RETURN_IF_ERROR(fs_->CreateDirectory(options_.directory.c_str()));
    XT_RETURN_IF_ERROR(fs_->SyncDirectory(options_.directory.c_str()));
  }
  XT_ASSIGN_OR_RETURN(directory_lock_, fs_->LockDirectory(options_.directory.c_str()));
  const bool flusher = options_.mode == DurabilityMode::kEventual;
  if (!options_.background_checkpoints && !flusher) return Status::Ok();
  const uint32_t interval_ms =
      flusher ? std::min(options_.flush_interval_ms, kBackgroundIntervalMs) : kBackgroundIntervalMs;
  coordinator_ = std::make_unique<CheckpointCoordinator>(std::max(interval_ms, 1u),
                                                         [this] { BackgroundTick(); });
  coordinator_->Start();
  return Status::Ok();
}

void RuntimeImpl::BackgroundTick() {
  std::vector<std::shared_ptr<DurableIndex>> indexes;
  {
    MutexLock lock(&mutex_);
    for (auto& [name, index] : durable_) indexes.push_back(index);
  }
  const uint64_t now = clock_->NowMicros();
  const bool flush = options_.mode == DurabilityMode::kEventual &&
                     now - last_flush_micros_ >= uint64_t{options_.flush_interval_ms} * 1000;
  if (flush) last_flush_micros_ = now;
  for (auto& index : indexes) index->BackgroundStep(flush, options_.background_checkpoints);
}

// Whether a creation was completed there: then both superblocks, or one that was damaged since, are
// not zero.
Result<bool> RuntimeImpl::Exists(const std::string& path) {
  auto info = fs_->Stat(path.c_str());
  if (!info.ok()) {
    if (info.status().code() == Code::kNotFound) return false;
    return info.status();
  }
  constexpr uint64_t kBytes = kSuperblockSlots * kBlockBytes;
  if (info->size_bytes < kBytes) return info->size_bytes != 0;
  XT_ASSIGN_OR_RETURN(std::byte* slots, fs_->Map(path.c_str(), kBytes, false));
  bool exists = false;
  for (uint32_t slot = 0; slot < kSuperblockSlots; ++slot) {
    const Status status = CheckSuperblock(slots + slot * kBlockBytes, slot, path.c_str());
    exists = exists || status.code() != Code::kNotFound;
  }
  fs_->Unmap(slots, kBytes);
  return exists;
}

Result<Index*> RuntimeImpl::CreateIndex(const std::string& name, const IndexOptions& options) {
  XT_RETURN_IF_ERROR(CheckName(name));
  MutexLock lock(&mutex_);
  const auto exists = [&] {
    return Status::InvalidArgument("index \"%s\" already exists", name.c_str());
  };
  if (in_memory()) {
    if (memory_.contains(name)) return exists();
    IndexShared probe{};
    XT_RETURN_IF_ERROR(NodeStore::InitShared(&probe, options));
    auto index = std::make_unique<MemoryIndex>(this, options, domain_->shared);
    return memory_.emplace(name, std::move(index)).first->second.get();
  }
  AwaitName(name);
  if (durable_.contains(name)) return exists();
  XT_ASSIGN_OR_RETURN(const bool there, Exists(PathOf(name)));
  if (there) return exists();
  auto index = NewDurable(name);
  XT_RETURN_IF_ERROR(index->Create(options));
  return durable_.emplace(name, std::move(index)).first->second.get();
}

Result<Index*> RuntimeImpl::OpenIndex(const std::string& name) {
  XT_RETURN_IF_ERROR(CheckName(name));
  MutexLock lock(&mutex_);
  if (in_memory()) {
    auto found = memory_.find(name);
    if (found != memory_.end()) return found->second.get();
    return Status::NotFound("there is no index \"%s\"", name.c_str());
  }
  AwaitName(name);
  auto found = durable_.find(name);
  if (found != durable_.end()) return found->second.get();
  auto index = NewDurable(name);
  XT_RETURN_IF_ERROR(index->Open());
  return durable_.emplace(name, std::move(index)).first->second.get();
}

Status RuntimeImpl::CloseIndex(const std::string& name) {
  if (in_memory()) return Status::Ok();  // It would be gone; DropIndex says so.
  const NameTurn turn(this, name);
  return CloseOpen(name);
}

Status RuntimeImpl::CloseOpen(const std::string& name) {
  std::shared_ptr<DurableIndex> index;
  {
    MutexLock lock(&mutex_);
    auto found = durable_.find(name);
    if (found == durable_.end()) {
      return Status::NotFound("index \"%s\" is not open", name.c_str());
    }
    index = std::move(found->second);
    durable_.erase(found);
  }
  const Status status = index->Close();
  // A tick of the background may hold it for a moment longer.
  while (index.use_count() > 1) clock_->SleepMicros(100);
  return status;
}

Status RuntimeImpl::DropIndex(const std::string& name) {
  XT_RETURN_IF_ERROR(CheckName(name));
  if (in_memory()) {
    MutexLock lock(&mutex_);
    if (memory_.erase(name) != 0) return Status::Ok();
    return Status::NotFound("there is no index \"%s\"", name.c_str());
  }
  const NameTurn turn(this, name);
  const Status closed = CloseOpen(name);
  (void)closed.ok();  // It goes whether or not it was open, or could be synced.
  const std::string path = PathOf(name);
  XT_ASSIGN_OR_RETURN(const bool there, Exists(path));
  if (!there) return Status::NotFound("there is no index \"%s\"", name.c_str());
  XT_RETURN_IF_ERROR(RemoveFiles(fs_, path));
  XT_RETURN_IF_ERROR(RemoveFiles(fs_, path + "_log"));
  return fs_->SyncDirectory(path.c_str());
}

void RuntimeImpl::SyncFiles(std::vector<SyncRequest>* batch) {
  MutexLock lock(&queue_mutex_);
  if (options_.queue != nullptr) {
    options_.queue->SyncAll(batch);
  } else if (options_.fs != nullptr) {
    for (SyncRequest& request : *batch) request.status = fs_->Sync(request.path.c_str());
  } else {
    if (queue_ == nullptr) queue_ = NewIoQueue(nullptr);
    queue_->SyncAll(batch);
  }
}

Status RuntimeImpl::CommitAll() {
  struct Pending {
    std::shared_ptr<DurableIndex> index;
    uint64_t mark = 0;
    size_t first = 0;
    size_t count = 0;
  };
  std::vector<Pending> pending;
  {
    MutexLock lock(&mutex_);
    for (auto& [name, index] : durable_) pending.push_back(Pending{index});
  }
  Status result;
  const auto failed = [&](const Status& status) {
    if (result.ok()) result = status;
    return !status.ok();
  };
  // First all frames: an index that is being loaded must not keep others from their syncs.
  std::erase_if(pending, [&](Pending& p) { return failed(p.index->AppendCommit(&p.mark)); });
  std::vector<SyncRequest> batch;
  for (Pending& p : pending) {
    std::vector<std::string> paths;
    if (failed(p.index->BeginSync(p.mark, &paths))) continue;
    p.first = batch.size();
    p.count = paths.size();
    for (std::string& path : paths) batch.push_back(SyncRequest{std::move(path), Status()});
  }
  if (batch.empty()) return result;
  SyncFiles(&batch);
  for (Pending& p : pending) {
    if (p.count == 0) continue;
    Status status;
    for (size_t i = p.first; i < p.first + p.count; ++i) {
      if (status.ok()) status = batch[i].status;
    }
    p.index->Synced(p.mark, status);
    (void)failed(status);
  }
  return result;
}

}  // namespace

Result<std::unique_ptr<DurableRuntime>> DurableRuntime::Open(const RuntimeOptions& options) {
  auto runtime = std::make_unique<RuntimeImpl>(options);
  XT_RETURN_IF_ERROR(runtime->Start());
  return Result<std::unique_ptr<DurableRuntime>>(std::move(runtime));
}

}  // namespace xtree
