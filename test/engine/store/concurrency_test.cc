// Goal: readers that take no lock see one epoch as a whole, however the writer publishes, frees and
// reclaims beside them, and never a reused extent.
// Method: a root node lists accounts; every change moves money between them, opens some and closes
// some. A reader adds up all accounts of its epoch: the sum is always the same, and every account is
// filled with a pattern of its own throughout. Meant for the thread sanitizer, too.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/macros.h"
#include "store/memory_store.h"
#include "support/epochs.h"

namespace xtree {
namespace {

constexpr uint64_t kMoney = 1'000'000;
constexpr uint32_t kAccountsMax = 300;
constexpr uint32_t kWords = kBlockPayloadBytes / sizeof(uint64_t);
#if XT_TSAN || defined(__SANITIZE_ADDRESS__)
constexpr int kChanges = 1500;
#else
constexpr int kChanges = 6000;
#endif

uint64_t* Words(BlockHeader* block) { return reinterpret_cast<uint64_t*>(block + 1); }

uint64_t Pattern(NodeId id, uint64_t balance, uint32_t word) {
  return (id.value ^ balance * 0x9e3779b97f4a7c15) + word;
}

void WriteAccount(NodeRef node, uint64_t balance) {
  for (uint32_t b = 0; b < 1u << node.order; ++b) {
    uint64_t* words = Words(node.block(b));
    words[0] = balance;
    for (uint32_t w = 1; w < kWords; ++w) words[w] = Pattern(node.id, balance, w);
  }
}

class Bank {
 public:
  explicit Bank(NodeStore* store) : store_(*store) {
    NodeRef root = store_.StageNew(kTreeMain, 1, 0).value();
    NodeRef first = store_.StageNew(kTreeMain, 0, 0).value();
    root_ = root.id;
    accounts_.push_back(first.id);
    balances_.push_back(kMoney);
    WriteAccount(first, kMoney);
    FillRoot(root.node);
    store_.Publish();
  }

  // One random change, published or discarded.
  void Change(std::mt19937* random) {
    const size_t from = (*random)() % accounts_.size();
    const uint32_t kind = (*random)() % 8;
    const uint32_t order = (*random)() % 3;
    const bool discard = (*random)() % 10 == 0;
    const auto accounts = accounts_;
    const auto balances = balances_;
    const uint64_t amount = balances_[from] / 3;
    if (kind == 0 && accounts_.size() < kAccountsMax) {
      NodeRef opened = store_.StageNew(kTreeMain, 0, order).value();
      WriteAccount(opened, amount);
      Set(from, balances_[from] - amount, order);
      accounts_.push_back(opened.id);
      balances_.push_back(amount);
      StageRoot();
    } else if (kind == 1 && accounts_.size() > 1) {
      const size_t to = (from + 1) % accounts_.size();
      Set(to, balances_[to] + balances_[from], order);
      XT_ASSERT(store_.StageFree(accounts_[from]).ok());
      accounts_.erase(accounts_.begin() + static_cast<long>(from));
      balances_.erase(balances_.begin() + static_cast<long>(from));
      StageRoot();
    } else if (accounts_.size() > 1) {
      const size_t to = (from + 1 + (*random)() % (accounts_.size() - 1)) % accounts_.size();
      Set(from, balances_[from] - amount, order);
      Set(to, balances_[to] + amount, order);
    }
    if (discard) {
      store_.Discard();
      accounts_ = accounts;
      balances_ = balances;
    } else {
      store_.Publish();
    }
  }

  // Moves the captures, as folds do: some versions must then wait for them.
  void Capture(bool publish) {
    CaptureShared& capture = store_.shared()->capture;
    const uint64_t epoch = store_.shared()->published_epoch.load();
    capture.pending_epoch.store(epoch);
    if (publish) {
      capture.durable_epoch.store(epoch);
      store_.ReleaseCaptured();
    }
  }

  // What a reader sees: the sum over all accounts of its epoch, or a complaint.
  void Audit(EpochReader* reader) {
    WindowPin windows(store_.windows());
    EpochPin pin;
    pin.Acquire(reader);
    const uint64_t epoch = store_.ReadEpoch().value();
    NodeRef root = store_.Lookup(root_, epoch).value();
    const uint64_t count = Words(root.node)[0];
    ASSERT_LE(count, kAccountsMax);
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= count; ++i) {
      const NodeId id{Words(root.node)[i]};
      auto account = store_.Lookup(id, epoch);
      ASSERT_TRUE(account.ok()) << account.status().message();
      ASSERT_EQ(account->node->node_id, id.value);
      ASSERT_LE(account->node->birth_epoch, epoch);
      for (uint32_t b = 0; b < 1u << account->order; ++b) {
        const uint64_t* words = Words(account->block(b));
        if (b == 0) sum += words[0];
        for (uint32_t w = 1; w < kWords; w += 13) {
          ASSERT_EQ(words[w], Pattern(id, words[0], w)) << "epoch " << epoch;
        }
      }
    }
    ASSERT_EQ(sum, kMoney) << "epoch " << epoch;
    ASSERT_EQ(store_.Lookup(root_, epoch).value().node, root.node);  // It stays as it was.
  }

  NodeStore* store() { return &store_; }
  size_t accounts() const { return accounts_.size(); }

 private:
  void Set(size_t i, uint64_t balance, uint32_t order) {
    WriteAccount(store_.StageVersion(accounts_[i], kTreeMain, 0, order).value(), balance);
    balances_[i] = balance;
  }
  void StageRoot() { FillRoot(store_.StageVersion(root_, kTreeMain, 1, 0).value().node); }
  void FillRoot(BlockHeader* node) {
    Words(node)[0] = accounts_.size();
    for (size_t i = 0; i < accounts_.size(); ++i) Words(node)[i + 1] = accounts_[i].value;
  }

  NodeStore& store_;
  NodeId root_;
  std::vector<NodeId> accounts_;
  std::vector<uint64_t> balances_;
};

TEST(Concurrency, EveryReaderSeesOneEpochAsAWhole) {
  constexpr uint32_t kReaders = 3;
  Epochs epochs(kReaders + 1);
  MemoryStore store(IndexOptions{}, epochs.get());
  Bank bank(&store);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> audits{0};
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < kReaders; ++r) {
    threads.emplace_back([&, r] {
      EpochReader reader(epochs.get(), r);
      while (!stop.load(std::memory_order_relaxed)) {
        bank.Audit(&reader);
        audits.fetch_add(1, std::memory_order_relaxed);
        if (::testing::Test::HasFatalFailure()) return;
      }
    });
  }
  std::mt19937 random(20);
  for (int change = 0; change < kChanges; ++change) {
    bank.Change(&random);
    if (change % 97 == 0) bank.Capture(change % 2 == 0);
    if (change % 16 == 0) std::this_thread::yield();
  }
  while (audits.load() < 10) std::this_thread::yield();
  stop.store(true);
  for (auto& thread : threads) thread.join();

  // Nothing was lost on the way: without readers and captures only the live accounts are left.
  bank.store()->shared()->capture.pending_epoch.store(0);
  bank.store()->shared()->capture.durable_epoch.store(0);
  bank.store()->ReleaseCaptured();
  bank.store()->Reclaim(UINT64_MAX);
  EXPECT_EQ(bank.store()->retired_versions(), 0u);
  EXPECT_EQ(bank.store()->shared()->table.live_nodes.load(), bank.accounts() + 1);
}

// A reader that holds its epoch for long must find all of it again at the end.
TEST(Concurrency, ALongReaderKeepsItsWholeEpoch) {
  Epochs epochs(2);
  MemoryStore store(IndexOptions{}, epochs.get());
  Bank bank(&store);
  std::mt19937 random(21);
  for (int i = 0; i < 500; ++i) bank.Change(&random);
  EpochReader old_reader(epochs.get(), 0);
  EpochPin old_pin;
  old_pin.Acquire(&old_reader);
  const uint64_t old_epoch = bank.store()->ReadEpoch().value();
  std::atomic<bool> stop{false};
  std::thread reader_thread([&] {
    EpochReader reader(epochs.get(), 1);
    while (!stop.load(std::memory_order_relaxed)) bank.Audit(&reader);
  });
  for (int i = 0; i < kChanges / 10; ++i) bank.Change(&random);
  stop.store(true);
  reader_thread.join();
  EXPECT_GT(bank.store()->ReadEpoch().value(), old_epoch);
  EXPECT_GT(bank.store()->retired_versions(), 0u);
  old_pin.Release();
  bank.store()->Reclaim(UINT64_MAX);
  EXPECT_EQ(bank.store()->retired_versions(), 0u);
}

// Two indexes in files, room for one window, and a third handle that asks for room all the time: the
// windows of both are really unmapped whenever no pin is held, so that a use without one faults.
TEST(Concurrency, IndexesThatCompeteForWindowsStayWhole) {
  char directory[] = "/tmp/xtree_windows_XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  WindowBudget budget(1);
  Epochs epochs(4);
  std::unique_ptr<IndexShared> shared[2];
  std::unique_ptr<NodeStore> stores[2];
  std::unique_ptr<Bank> banks[2];
  std::string paths[2];
  for (int i = 0; i < 2; ++i) {
    paths[i] = std::string(directory) + "/" + std::to_string(i);
    shared[i] = std::make_unique<IndexShared>();
    stores[i] = std::make_unique<NodeStore>(shared[i].get(), PosixFileSystem(), &budget,
                                            epochs.get(), paths[i], ChunkSource::kHeap);
    ASSERT_TRUE(NodeStore::InitShared(shared[i].get(), IndexOptions{}).ok());
    ASSERT_TRUE(stores[i]->ReserveSegments(0).ok());
    ASSERT_TRUE(stores[i]->allocator()->CreateFile().ok());
    banks[i] = std::make_unique<Bank>(stores[i].get());
  }
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Bank& bank = *banks[t % 2];
      if (t < 2) {
        std::mt19937 random(t);
        for (int i = 0; i < kChanges / 20; ++i) bank.Change(&random);
      } else {
        EpochReader reader(epochs.get(), t);
        for (int i = 0; i < kChanges / 100; ++i) bank.Audit(&reader);
      }
    });
  }
  std::atomic<bool> stop{false};
  std::thread evictor([&] {
    WindowManager other(PosixFileSystem(), &budget, paths[0]);
    while (!stop.load(std::memory_order_relaxed) || budget.evictions() < 10) {
      EXPECT_TRUE(other.EnsureMapped(0).ok());
      other.DropAll();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  for (auto& thread : threads) thread.join();
  stop.store(true);
  for (auto& bank : banks) {
    while (budget.evictions() < 10) {
      EpochReader reader(epochs.get(), 0);
      bank->Audit(&reader);
    }
  }
  evictor.join();
  EXPECT_LE(budget.windows_mapped(), 2u);
  for (int i = 0; i < 2; ++i) {
    EpochReader reader(epochs.get(), 0);
    banks[i]->Audit(&reader);
    stores[i].reset();
    EXPECT_TRUE(PosixFileSystem()->Remove(paths[i].c_str()).ok());
  }
  EXPECT_EQ(budget.windows_mapped(), 0u);
  rmdir(directory);
}

// Blocks that come from disk are verified by whoever meets them first, maybe by several at once.
TEST(Concurrency, ReadersThatVerifyTheSameBlockAgree) {
  constexpr int kNodes = 50;
  class Loaded : public NodeStore {
   public:
    using NodeStore::NodeStore;
    void Unverify(NodeId id) {
      NodeRef node = LookupNewest(id).value();
      for (uint32_t i = 0; i < 1u << node.order; ++i) StampBlock(node.block(i), 1);
      entries_[id.handle()].word.fetch_and(~kWordVerified);
    }
  };
  MemoryFileSystem fs;
  WindowBudget budget(10);
  Epochs epochs(4);
  IndexShared shared{};
  Loaded store(&shared, &fs, &budget, epochs.get(), "data", ChunkSource::kHeap);
  ASSERT_TRUE(NodeStore::InitShared(&shared, IndexOptions{}).ok());
  ASSERT_TRUE(store.ReserveSegments(0).ok() && store.allocator()->CreateFile().ok());
  std::vector<NodeId> ids;
  for (uint32_t i = 0; i < kNodes; ++i) {
    ids.push_back(store.StageNew(kTreeMain, 0, i % 3).value().id);
  }
  store.Publish();
  for (NodeId id : ids) store.Unverify(id);
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < 3; ++r) {
    threads.emplace_back([&, r] {
      EpochReader reader(epochs.get(), r);
      EpochPin pin;
      pin.Acquire(&reader);
      WindowPin windows(store.windows());
      const uint64_t epoch = store.ReadEpoch().value();
      for (NodeId id : ids) EXPECT_TRUE(store.Lookup(id, epoch).ok());
    });
  }
  // Meanwhile the writer replaces some of them.
  for (int i = 0; i < kNodes; i += 5) {
    ASSERT_TRUE(store.StageVersion(ids[static_cast<size_t>(i)], kTreeMain, 0, 0).ok());
    store.Publish();
  }
  for (auto& thread : threads) thread.join();
  for (NodeId id : ids) EXPECT_NE(store.TryLookup(id, ~uint64_t{0}).node, nullptr);
}

}  // namespace
}  // namespace xtree
