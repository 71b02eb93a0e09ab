// Goal: under a host, whose WAL is what makes commits durable, a crash at any operation followed by
// the host's redo gives back exactly what the surviving WAL says: no operation short, no ghost (an
// operation in the index's log whose WAL record was lost), also when LSNs are used again.
// Method: a host in miniature (WAL, checkpoints that sync the log, folds, redo, timelines) around a
// DurableStore on the simulated disk; power cuts at random operations, redo included, one after
// another on the same files. Sessions that insert beside each other get their LSNs in one order and apply
// in another, with redo points and power cuts in between.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "store/crash_script.h"
#include "store/durable_store.h"
#include "store/shared_insertion.h"
#include "tree/checker.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr uint64_t kSystemId = 77;
constexpr char kData[] = "/base/16400";
constexpr char kLog[] = "/base/16400_vm";

// Zeroed memory of one type, aligned for it.
template <class T>
class Zeroed {
 public:
  explicit Zeroed(size_t bytes = sizeof(T))
      : memory_(::operator new(bytes, std::align_val_t{64})) {
    std::memset(memory_, 0, bytes);
  }
  ~Zeroed() { ::operator delete(memory_, std::align_val_t{64}); }
  Zeroed(const Zeroed&) = delete;
  T* get() { return static_cast<T*>(memory_); }

 private:
  void* const memory_;
};

// One life of the server: shared memory and the open index.
class Server {
 public:
  explicit Server(FileSystem* fs)
      : epochs_(EpochShared::BytesFor(4)),
        store_(shared_.get(), fs, &budget_, epochs_.get(), kData, kLog, ChunkSource::kHeap) {
    InitEpochShared(epochs_.get(), 4);
  }
  DurableStore* store() { return &store_; }
  uint64_t applied_lsn() { return shared_.get()->applied_lsn.load(); }

  State Read() {
    State state;
    EpochReader reader(epochs_.get(), 0);
    WindowScan scan(&store_);
    Status status = scan.Begin(&reader, kTreeMain, Predicate::All());
    std::vector<uint64_t> ids(kScanBatchMin);
    for (uint32_t count = 1; status.ok() && count > 0;) {
      status = scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &count);
      for (uint32_t i = 0; status.ok() && i < count; ++i) {
        EXPECT_TRUE(state.insert(ids[i]).second) << "id " << ids[i] << " twice";
      }
    }
    EXPECT_TRUE(status.ok()) << status.message();
    return state;
  }
  void ExpectSound() {
    std::vector<std::string> problems;
    TreeReport report;
    WindowPin pin(store_.windows());
    const uint64_t epoch = shared_.get()->published_epoch.load();
    EXPECT_TRUE(CheckTree(&store_, kTreeMain, epoch, true, &report).ok());
    EXPECT_TRUE(store_.CheckBlocks(&problems).ok());
    problems.insert(problems.end(), report.problems.begin(), report.problems.end());
    for (const std::string& problem : problems) ADD_FAILURE() << problem;
  }

 private:
  Zeroed<IndexShared> shared_;
  Zeroed<EpochShared> epochs_;
  WindowBudget budget_{8};
  DurableStore store_;
};

class HostCrashTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  struct Record {
    uint64_t lsn;   // Its end.
    Step step;
  };

  HostCrashTest() : fs_(GetParam() + SeedOffset()), random_(GetParam() + SeedOffset()) {}

  bool Chance(uint64_t of) { return random_.Below(of) == 0; }

  // Prepares, writes the WAL record, applies; false if the disk is gone.
  bool Operate(Server* server) {
    Step step{Step::kInsert, next_id_, 0};
    if (model_.size() > 250 || (!model_.empty() && Chance(4))) {
      auto victim = model_.lower_bound(random_.Below(next_id_));
      step = {Step::kDelete, victim == model_.end() ? *model_.begin() : *victim, 0};
    }
    if (!Prepare(server, step)) return false;
    if (step.kind == Step::kInsert) ++next_id_;
    NextLsn();
    wal_.push_back(Record{lsn_, step});
    ApplyToModel(step, &model_);
    server->store()->details()->Apply(lsn_);
    if (Chance(6)) flushed_ = lsn_;  // Somebody's commit.
    return true;
  }
  uint64_t NextLsn() { return lsn_ += 8 + random_.Below(3) * 8; }
  // Several sessions insert beside each other. `redo`: null, or where a redo point is put somewhere in
  // between; then all of them apply, since a checkpoint waits for them. False: the power fails now.
  bool InsertTogether(Server* server, uint64_t* redo) {
    struct Session {
      std::unique_ptr<SharedInsertion> insertion;
      Step step;
      uint64_t lsn;
    };
    std::vector<Session> sessions;
    for (uint64_t i = 0; i < 2 + random_.Below(4); ++i) {
      Session session{std::make_unique<SharedInsertion>(server->store(), server->store()),
                      Step{Step::kInsert, next_id_, 0}, 0};
      const Key key = KeyOf(next_id_);
      const Status status = session.insertion->Prepare(&key, next_id_);
      EXPECT_TRUE(status.ok() || fs_.crashed()) << status.message();
      if (!session.insertion->prepared()) continue;
      ++next_id_;
      sessions.push_back(std::move(session));
    }
    // The order of LSNs is that of `sessions`; who has one may apply before a later one is given.
    std::vector<Session*> to_apply;
    const bool cut = redo == nullptr && Chance(12);
    size_t given = 0;
    for (size_t applied = 0; applied < sessions.size();) {
      if (redo != nullptr && Chance(3)) *redo = lsn_;
      if (given < sessions.size() && (to_apply.empty() || !Chance(3))) {
        Session& session = sessions[given++];
        session.lsn = NextLsn();
        wal_.push_back(Record{session.lsn, session.step});
        ApplyToModel(session.step, &model_);
        to_apply.push_back(&session);
        continue;
      }
      if (cut && Chance(3)) break;
      const size_t next = random_.Below(to_apply.size());
      out_of_order_ += next != 0;
      to_apply[next]->insertion->Apply(to_apply[next]->lsn);
      to_apply.erase(to_apply.begin() + static_cast<long>(next));
      ++applied;
      ++together_;
      if (Chance(6)) flushed_ = lsn_;
    }
    for (Session& session : sessions) session.insertion->Discard();  // Those whom the cut has hit.
    return !cut;
  }
  bool Prepare(Server* server, const Step& step) {
    IndexDetails* details = server->store()->details();
    const Key key = KeyOf(step.id);
    uint32_t found = 0;
    const Status status = step.kind == Step::kInsert
                              ? details->PrepareInsert(&key, step.id)
                              : details->PrepareDelete(kTreeMain, key, &step.id, 1, &found);
    EXPECT_TRUE(status.ok() || fs_.crashed()) << status.message();
    EXPECT_TRUE(!status.ok() || step.kind == Step::kInsert || found == 1) << step.id;
    return status.ok();
  }
  void Fold(Server* server) {
    DurableStore* store = server->store();
    if (!store->FoldBegin().ok()) return;
    for (uint64_t i = random_.Below(4); i > 0; --i) {
      if (!Operate(server)) break;
    }
    flushed_ = std::max(flushed_, store->fold_lsn());
    bool done = false;
    Status status;
    while (status.ok() && !done) status = store->FoldWrite(3, &done);
    if (status.ok()) status = store->FoldPublish();
    store->FoldEnd(status.ok());
    EXPECT_TRUE(status.ok() || fs_.crashed()) << status.message();
  }
  // Fixes the redo point, lets others work, syncs what was asked to be synced, completes.
  void Checkpoint(Server* server) {
    uint64_t redo = lsn_;
    for (uint64_t i = random_.Below(4); i > 0; --i) {
      if (!Operate(server)) return;
    }
    if (Chance(2)) InsertTogether(server, &redo);
    if (Chance(4)) Fold(server);
    const Status status = fs_.Sync(kLog);
    if (!status.ok() && status.code() != Code::kNotFound) return;
    redo_ = redo;
    flushed_ = std::max(flushed_, redo);
  }
  void Work(Server* server) {
    while (!fs_.crashed()) {
      const uint64_t dice = random_.Below(40);
      if (dice == 0) {
        Fold(server);
      } else if (dice <= 2) {
        Checkpoint(server);
      } else if (dice <= 12) {
        if (!InsertTogether(server, nullptr)) return;
      } else if (!Operate(server)) {
        return;
      }
    }
  }
  // The power has failed: some of the WAL that nobody flushed is lost, and its LSNs come again.
  void LoseWal() {
    const uint64_t end = flushed_ + random_.Below(lsn_ - flushed_ + 1);
    while (!wal_.empty() && wal_.back().lsn > end) wal_.pop_back();
    lsn_ = flushed_ = wal_.empty() ? 1000 : std::max(flushed_, wal_.back().lsn);
    timelines_.push_back(TimelineEnd{timeline_, 0, redo_});
    ++timeline_;
    model_.clear();
    for (const Record& record : wal_) ApplyToModel(record.step, &model_);
  }
  // Start-up: load, then redo from the redo point on. False if the disk is gone again.
  bool Recover(Server* server) {
    LoadPolicy policy;
    policy.host = true;
    policy.current_timeline = timeline_;
    policy.timelines = timelines_.data();
    policy.timeline_count = static_cast<uint32_t>(timelines_.size());
    policy.lsn_max = lsn_;
    policy.identity = identity_;
    const Status status = server->store()->Load(policy);
    if (fs_.crashed()) return false;
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) return false;
    EXPECT_LE(server->applied_lsn(), lsn_);
    for (const Record& record : wal_) {
      if (record.lsn <= redo_ || record.lsn <= server->applied_lsn()) continue;
      if (!Prepare(server, record.step)) return false;
      server->store()->details()->Apply(record.lsn);
    }
    return !fs_.crashed();
  }
  SimFileSystem fs_;
  SimRandom random_;
  const Identity identity_{kSystemId, 1663, 5, 16400, 0};
  std::vector<Record> wal_;
  State model_;              // What all of the WAL leaves.
  std::vector<TimelineEnd> timelines_;
  uint32_t timeline_ = 1;
  uint64_t lsn_ = 1000;
  uint64_t flushed_ = 1000;  // The WAL up to here survives.
  uint64_t redo_ = 1000;     // Of the last completed checkpoint.
  uint64_t next_id_ = 1;
  uint64_t together_ = 0;      // Insertions beside others, and those
  uint64_t out_of_order_ = 0;  // applied before one of a lower LSN.
};

TEST_P(HostCrashTest, RedoGivesBackWhatTheWalSays) {
  {
    Server server(&fs_);
    ASSERT_TRUE(server.store()->Create(SmallOptions(), identity_, timeline_).ok());
    fs_.CrashAtOperation(random_.Below(60));
    Work(&server);
  }
  for (uint64_t cycle = 0; cycle < 40 * LengthFactor(); ++cycle) {
    SCOPED_TRACE(::testing::Message() << "cycle=" << cycle << " timeline=" << timeline_
                                      << " redo=" << redo_ << " after " << fs_.crash_operation());
    LoseWal();
    fs_.Restart(random_.Next());
    const bool crash_in_redo = Chance(4);
    if (crash_in_redo) fs_.CrashAtOperation(random_.Below(12));
    Server server(&fs_);
    const bool recovered = Recover(&server);
    if (HasFailure()) return;
    if (recovered) {
      ASSERT_EQ(server.Read(), model_);
      server.ExpectSound();
      if (HasFailure()) return;
      if (!Chance(3)) Checkpoint(&server);  // At the end of recovery; or killed before.
    }
    if (!crash_in_redo) fs_.CrashAtOperation(random_.Below(60));
    Work(&server);
    if (HasFailure()) return;
  }
  EXPECT_EQ(fs_.violations(), std::vector<std::string>());
  EXPECT_GT(together_, 50u);
  EXPECT_GT(out_of_order_, 10u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, HostCrashTest, ::testing::Range<uint64_t>(1, XT_TSAN ? 2 : 9));

}  // namespace
}  // namespace xtree
