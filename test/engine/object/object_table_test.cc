// Goal: handles are never given out twice, a reused handle has another tag, histories stay whole in
// whatever order their records go, and pages survive the way to disk and back.
// Method: a table over heap chunks beside simple models; allocating threads.
#include "object/object_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace xtree {
namespace {

class TableFixture {
 public:
  explicit TableFixture(uint32_t pages) : table(&shared, &entries, &versions, &infos) {
    entries.Attach(&shared.entries);
    versions.Attach(&shared.versions);
    infos.Attach(&shared.page_infos);
    Grow(&entries, uint64_t{pages} * kTablePageEntries);
    Grow(&infos, pages);
    Grow(&versions, 1);
  }
  ~TableFixture() {
    for (void* chunk : chunks) std::free(chunk);
  }
  template <class Array>
  void Grow(Array* array, uint64_t needed) {
    for (uint32_t level = 0; array->capacity() < needed; ++level) {
      void* chunk = std::calloc(1, Array::LevelBytes(level));
      chunks.push_back(chunk);
      array->Provide(level, 0, chunk);
    }
  }
  void Publish(NodeId id, uint32_t block) {
    entries[id.handle()].word.store(MakeWord(block, 0, id.tag(), kWordLive | kWordVerified));
  }
  uint32_t AddVersion(NodeId id, uint32_t block) {
    const uint32_t record = table.TakeRecord();
    if (record == 0) return 0;
    table.record(record).node_id = id.value;
    table.record(record).word = MakeWord(block, 0, id.tag(), kWordLive);
    table.LinkHistory(record);
    return record;
  }
  std::vector<uint32_t> History(NodeId id) {
    std::vector<uint32_t> records;
    for (uint32_t r = entries[id.handle()].history.load(); r != 0;
         r = table.record(r).older.load()) {
      records.push_back(r);
    }
    return records;
  }

  std::vector<void*> chunks;
  ObjectTableShared shared{};
  EntryArray entries;
  VersionArray versions;
  PageInfoArray infos;
  ObjectTable table;
};

TEST(ObjectTable, HandsOutDistinctHandlesUntilItMustGrow) {
  TableFixture f(1);
  std::set<uint64_t> handles;
  const uint64_t capacity = f.entries.capacity() / kTablePageEntries * kTablePageEntries;
  NodeId id;
  for (uint64_t i = 0; i < capacity; ++i) {
    ASSERT_TRUE(f.table.AllocateHandle(&id));
    EXPECT_TRUE(id.valid());
    EXPECT_TRUE(handles.insert(id.handle()).second);
    EXPECT_TRUE(f.table.Exists(id.handle()));
  }
  EXPECT_FALSE(f.table.AllocateHandle(&id));
  const uint32_t needed = f.table.PagesForHandles(1);
  EXPECT_EQ(needed, f.table.pages() + 1);
}

TEST(ObjectTable, AReusedHandleHasAnotherTagAndNeverTagZero) {
  TableFixture f(1);
  NodeId id;
  ASSERT_TRUE(f.table.AllocateHandle(&id));
  const uint64_t handle = id.handle();
  uint16_t last = id.tag();
  for (int i = 0; i < 70000; ++i) {
    f.Publish(id, 7);
    f.table.MakeFree(handle);
    f.table.FreeHandle(handle);
    ASSERT_TRUE(f.table.AllocateHandle(&id));
    ASSERT_EQ(id.handle(), handle);
    ASSERT_NE(id.tag(), last);
    ASSERT_NE(id.tag(), 0);
    last = id.tag();
  }
}

TEST(ObjectTable, ADiscardedHandleComesBackUnderTheSameName) {
  TableFixture f(1);
  NodeId a, b;
  ASSERT_TRUE(f.table.AllocateHandle(&a));
  f.table.FreeHandle(a.handle());  // Never published, so nobody can know its name.
  ASSERT_TRUE(f.table.AllocateHandle(&b));
  EXPECT_EQ(a, b);
}

TEST(ObjectTable, ThreadsAllocateFromTheirOwnShards) {
  constexpr int kThreads = 4;
  constexpr int kHandles = 3000;
  TableFixture f(kThreads * 4);
  std::vector<std::vector<NodeId>> ids(kThreads);
  std::vector<std::thread> threads;
  std::atomic<int> ready{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      NodeId id;
      ASSERT_TRUE(f.table.AllocateHandle(&id));
      ids[t].push_back(id);
      for (++ready; ready.load() < kThreads;) std::this_thread::yield();  // All alive at once.
      for (int i = 1; i < kHandles; ++i) {
        ASSERT_TRUE(f.table.AllocateHandle(&id));
        ids[t].push_back(id);
        if (i % 3 == 0) {
          f.table.FreeHandle(ids[t].back().handle());
          ids[t].pop_back();
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::set<uint64_t> handles;
  std::set<uint32_t> shards;
  for (auto& list : ids) {
    shards.insert(list[0].shard());
    for (NodeId id : list) {
      EXPECT_EQ(id.shard(), list[0].shard());
      EXPECT_TRUE(handles.insert(id.handle()).second);
    }
  }
  EXPECT_EQ(shards.size(), size_t{kThreads});
  EXPECT_EQ(f.shared.active_shards.load(), uint32_t{kThreads});
}

TEST(ObjectTable, ShortThreadsOneAfterTheOtherShareOneShard) {
  std::set<uint32_t> shards;
  for (int i = 0; i < 10; ++i) {
    std::thread([&] { shards.insert(ThreadShard()); }).join();
  }
  EXPECT_EQ(shards.size(), 1u);
}

TEST(ObjectTable, RecordsAreReusedAndEndWhenTheArrayDoes) {
  TableFixture f(1);
  std::set<uint32_t> records;
  for (uint32_t r; (r = f.table.TakeRecord()) != 0;) EXPECT_TRUE(records.insert(r).second);
  EXPECT_EQ(records.size(), f.versions.capacity());
  f.table.GiveRecord(5);
  f.table.GiveRecord(9);
  EXPECT_EQ(f.table.TakeRecord(), 9u);
  EXPECT_EQ(f.table.TakeRecord(), 5u);
  EXPECT_EQ(f.table.TakeRecord(), 0u);
}

TEST(ObjectTable, AHistoryLosesItsRecordsInAnyOrder) {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    TableFixture f(1);
    NodeId id;
    ASSERT_TRUE(f.table.AllocateHandle(&id));
    std::vector<uint32_t> records;
    for (uint32_t i = 0; i < 4; ++i) records.push_back(f.AddVersion(id, i));
    std::vector<uint32_t> expected(records.rbegin(), records.rend());
    EXPECT_EQ(f.History(id), expected);
    for (int victim : order) {
      f.table.UnlinkHistory(records[static_cast<size_t>(victim)]);
      expected.erase(std::find(expected.begin(), expected.end(),
                               records[static_cast<size_t>(victim)]));
      EXPECT_EQ(f.History(id), expected);
    }
    EXPECT_TRUE(f.table.HandleIsDone(id.handle()));
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(ObjectTable, QueuesKeepTheirOrderThroughPushPopAndPrepend) {
  TableFixture f(1);
  std::mt19937 random(1);
  std::deque<uint32_t> free;
  for (uint32_t r; (r = f.table.TakeRecord()) != 0;) free.push_back(r);
  VersionQueue queues[2] = {};
  std::deque<uint32_t> models[2];
  for (int step = 0; step < 20000; ++step) {
    const uint32_t q = random() % 2;
    switch (random() % 5) {
      case 0: case 1:
        if (free.empty()) break;
        f.table.Push(&queues[q], free.front());
        models[q].push_back(free.front());
        free.pop_front();
        break;
      case 2: case 3:
        if (models[q].empty()) break;
        ASSERT_EQ(queues[q].head, models[q].front());
        f.table.PopFront(&queues[q]);
        free.push_back(models[q].front());
        models[q].pop_front();
        break;
      default:
        if (random() % 20 != 0) break;
        f.table.Prepend(&queues[q], &queues[1 - q]);
        models[1 - q].insert(models[1 - q].begin(), models[q].begin(), models[q].end());
        models[q].clear();
    }
    for (uint32_t i = 0; i < 2; ++i) {
      ASSERT_EQ(queues[i].length, models[i].size());
      ASSERT_EQ(queues[i].head, models[i].empty() ? 0 : models[i].front());
      ASSERT_EQ(queues[i].tail, models[i].empty() ? 0 : models[i].back());
    }
  }
}

TEST(ObjectTable, PagesSurviveTheWayToDiskAndBack) {
  TableFixture f(3);
  std::vector<NodeId> ids;
  NodeId id;
  for (uint32_t i = 0; i < 2 * kTablePageEntries; ++i) {
    ASSERT_TRUE(f.table.AllocateHandle(&id));
    ids.push_back(id);
    f.Publish(id, i + 2);
  }
  // One freed for good, one dead that readers may still resolve.
  f.table.MakeFree(ids[10].handle());
  f.table.FreeHandle(ids[10].handle());
  f.entries[ids[20].handle()].word.fetch_or(kWordDead);

  TableFixture g(3);
  for (uint32_t page = 0; page < 2; ++page) {
    EntryWord words[kTablePageEntries];
    f.table.EncodePage(page, words);
    for (EntryWord word : words) EXPECT_FALSE(word & (kWordVerified | kWordDead));
    g.table.AdoptPage(f.table.page_info(page).shard, 100 + page, words);
  }
  EXPECT_EQ(g.table.pages(), 2u);
  EXPECT_EQ(g.shared.live_nodes.load(), ids.size() - 2);
  EXPECT_EQ(g.table.page_info(1).disk_block, 102u);
  EXPECT_EQ(g.table.page_info(1).dirty.load(), 0u);
  for (uint32_t i = 0; i < ids.size(); ++i) {
    const EntryWord word = g.entries[ids[i].handle()].word.load();
    EXPECT_EQ(WordTag(word), ids[i].tag());
    EXPECT_EQ((word & kWordLive) != 0, i != 10 && i != 20);
    if (word & kWordLive) {
      EXPECT_EQ(WordBlock(word), i + 2);
    }
  }
  // The two free ones come back first, lowest first, under new tags; then the table claims a page.
  ASSERT_TRUE(g.table.AllocateHandle(&id));
  std::set<uint64_t> reused = {id.handle()};
  EXPECT_EQ(id.tag(), 2);
  ASSERT_TRUE(g.table.AllocateHandle(&id));
  reused.insert(id.handle());
  EXPECT_EQ(reused, (std::set<uint64_t>{ids[10].handle(), ids[20].handle()}));
  ASSERT_TRUE(g.table.AllocateHandle(&id));
  EXPECT_EQ(id.handle(), 2u * kTablePageEntries);
}

}  // namespace
}  // namespace xtree
