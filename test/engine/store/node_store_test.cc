// Goal: a change is there as a whole or not at all; versions live exactly as long as a reader or a
// capture needs them; a failed or discarded change leaves no trace; handles in other processes
// attach what has grown.
// Method: single changes examined from every epoch; random changes beside a model that remembers all
// epochs; every growth and chunk request made to fail.
#include "store/node_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "support/owned_store.h"

namespace xtree {
namespace {

class NodeStoreTest : public ::testing::Test {
 protected:
  NodeStoreTest() : store_(index_.Open()) { index_.Create(store_.get()); }

  NodeRef New(uint8_t level, uint32_t order) {
    return index_.Retry(store_.get(), [&] { return store_->StageNew(kTreeMain, level, order); })
        .value();
  }
  NodeRef Version(NodeId id, uint32_t order) {
    return index_.Retry(store_.get(), [&] { return store_->StageVersion(id, kTreeMain, 0, order); })
        .value();
  }
  void Free(NodeId id) {
    XT_ASSERT(index_.Retry(store_.get(), [&] { return store_->StageFree(id); }).ok());
  }
  void ReclaimAll() { store_->Reclaim(UINT64_MAX); }
  CaptureShared& capture() { return index_.shared.capture; }
  uint32_t used() { return store_->allocator()->used_blocks(); }

  OwnedIndex index_;
  std::unique_ptr<NodeStore> store_;
};

TEST_F(NodeStoreTest, StagedBlocksCarryTheirIdentity) {
  const NodeRef node = New(3, 2);
  for (uint32_t i = 0; i < 4; ++i) {
    const BlockHeader* block = node.block(i);
    EXPECT_EQ(block->kind, BlockKind::kInner);
    EXPECT_EQ(block->level, 3);
    EXPECT_EQ(block->order, 2);
    EXPECT_EQ(block->extent_index, i);
    EXPECT_EQ(block->node_id, node.id.value);
    EXPECT_EQ(block->birth_epoch, 2u);
    EXPECT_EQ(block->count, 0u);
    EXPECT_EQ(block->block_number, node.node->block_number + i);
    EXPECT_EQ(BlockLsn(*block), kLsnUnstamped);
  }
  EXPECT_EQ(New(0, 0).node->kind, BlockKind::kLeaf);
  store_->Discard();
}

TEST_F(NodeStoreTest, NothingIsVisibleBeforePublicationAndAllAfterIt) {
  const NodeId a = New(0, 0).id;
  store_->Publish();
  const uint64_t before = store_->ReadEpoch().value();
  EpochReader reader(index_.epochs.get(), 1);
  EpochPin pin;
  pin.Acquire(&reader);
  Version(a, 1).node->count = 5;
  const NodeId b = New(0, 0).id;
  EXPECT_TRUE(store_->has_staged());
  EXPECT_EQ(store_->LookupNewest(a)->node->count, 0u);
  EXPECT_EQ(store_->LookupNewest(b).status().code(), Code::kCorruption);
  EXPECT_EQ(store_->ReadEpoch().value(), before);
  store_->Publish();
  EXPECT_FALSE(store_->has_staged());
  EXPECT_EQ(store_->ReadEpoch().value(), before + 1);
  EXPECT_EQ(store_->LookupNewest(a)->node->count, 5u);
  EXPECT_TRUE(store_->LookupNewest(b).ok());
  EXPECT_EQ(store_->Lookup(a, before)->node->count, 0u);
  EXPECT_EQ(store_->Lookup(b, before).status().code(), Code::kNotFound);
}

TEST_F(NodeStoreTest, DiscardGivesEverythingBack) {
  const NodeId a = New(0, 0).id;
  const NodeId b = New(1, 1).id;
  store_->Publish();
  const uint32_t blocks = used();
  NodeId first_try;
  for (int round = 0; round < 300; ++round) {
    const NodeId fresh = New(0, 3).id;
    if (round == 0) first_try = fresh;
    EXPECT_EQ(fresh, first_try);  // Nobody learned its name, so it is the next one again.
    Version(a, 2);
    Free(b);
    store_->Discard();
    EXPECT_EQ(used(), blocks);
    EXPECT_EQ(store_->retired_versions(), 0u);
  }
  EXPECT_TRUE(store_->LookupNewest(a).ok());
  EXPECT_TRUE(store_->LookupNewest(b).ok());
  EXPECT_LE(index_.shared.table.versions_used, 8u);
}

TEST_F(NodeStoreTest, ReusedExtentsAreZerosBehindTheirHeaders) {
  const NodeId a = New(0, 0).id;
  store_->Publish();
  for (int i = 0; i < 200; ++i) {
    const NodeRef node = Version(a, 0);
    const auto* bytes = reinterpret_cast<const std::byte*>(node.node);
    for (uint32_t k = sizeof(BlockHeader); k < kBlockBytes; ++k) {
      ASSERT_EQ(bytes[k], std::byte{0});
    }
    std::memset(node.node + 1, 0x77, kBlockPayloadBytes);
    store_->Publish();
  }
  EXPECT_LT(used(), 60u);  // And they are reused.
}

TEST_F(NodeStoreTest, AReaderKeepsItsVersionsAndOnlyThose) {
  const NodeId a = New(0, 0).id;
  const NodeId b = New(0, 0).id;
  store_->Publish();
  EpochReader reader(index_.epochs.get(), 1);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t epoch = store_->ReadEpoch().value();
  store_->LookupNewest(a)->node->count = 11;
  for (int i = 0; i < 50; ++i) {
    Version(a, 0).node->count = 1000;
    store_->Publish();
  }
  Free(b);
  store_->Publish();
  EXPECT_EQ(store_->retired_versions(), 51u);
  EXPECT_EQ(store_->Lookup(a, epoch)->node->count, 11u);
  EXPECT_TRUE(store_->Lookup(b, epoch).ok());
  pin.Release();
  // The next publications notice that the reader is gone.
  for (int i = 0; i < 64; ++i) {
    Version(a, 0);
    store_->Publish();
  }
  EXPECT_LT(store_->retired_versions(), 16u);
  EXPECT_EQ(store_->LookupNewest(b).status().code(), Code::kCorruption);
}

TEST_F(NodeStoreTest, AFreedHandleComesBackUnderAnotherName) {
  const NodeId a = New(0, 0).id;
  const NodeId other = New(0, 0).id;
  store_->Publish();
  Free(a);
  store_->Publish();
  for (int i = 0; i < 32; ++i) {
    Version(other, 0);
    store_->Publish();
  }
  const NodeId next = New(0, 0).id;
  EXPECT_EQ(next.handle(), a.handle());
  EXPECT_NE(next.tag(), a.tag());
  store_->Publish();
  EXPECT_TRUE(store_->LookupNewest(next).ok());
  EXPECT_EQ(store_->LookupNewest(a).status().code(), Code::kCorruption);
}

TEST_F(NodeStoreTest, ACaptureKeepsItsVersionsUntilItIsReplaced) {
  const NodeId a = New(0, 0).id;
  const NodeId b = New(0, 0).id;
  store_->Publish();
  const uint32_t block_a = store_->LookupNewest(a)->node->block_number;
  // A fold begins, writes, and is published; changes go on meanwhile.
  const uint64_t captured = store_->ReadEpoch().value();
  capture().pending_epoch.store(captured);
  for (int i = 0; i < 40; ++i) {
    Version(a, 0);
    if (i == 20) Free(b);
    store_->Publish();
  }
  // Only the captured ones are kept: those in between are in no capture.
  EXPECT_EQ(index_.shared.table.waiting_capture.length, 2u);
  EXPECT_EQ(store_->Lookup(a, captured)->node->block_number, block_a);
  capture().durable_epoch.store(captured);
  store_->ReleaseCaptured();
  ReclaimAll();
  EXPECT_EQ(index_.shared.table.waiting_capture.length, 2u);  // It is the durable one now.

  const uint64_t next = store_->ReadEpoch().value();
  capture().pending_epoch.store(next);
  capture().durable_epoch.store(next);
  const uint32_t blocks = used();
  store_->ReleaseCaptured();
  ReclaimAll();
  EXPECT_EQ(index_.shared.table.waiting_capture.length, 0u);
  EXPECT_LE(used(), blocks - 2);
}

TEST_F(NodeStoreTest, AFailedFoldLeavesThePreviousCaptureInForce) {
  const NodeId a = New(0, 0).id;
  store_->Publish();
  const uint64_t durable = store_->ReadEpoch().value();
  capture().durable_epoch.store(durable);
  capture().pending_epoch.store(durable);
  Version(a, 0);
  store_->Publish();
  capture().pending_epoch.store(store_->ReadEpoch().value());  // A fold begins...
  for (int i = 0; i < 16; ++i) {
    Version(a, 0);
    store_->Publish();
  }
  EXPECT_EQ(index_.shared.table.waiting_capture.length, 2u);
  capture().pending_epoch.store(durable);                      // ...and fails.
  store_->ReleaseCaptured();
  ReclaimAll();
  EXPECT_EQ(index_.shared.table.waiting_capture.length, 1u);
  EXPECT_TRUE(store_->Lookup(a, durable).ok());
}

// The last version of a freed node can go long before an older one that is captured; its handle
// must not name another node while the older one is in its history.
TEST_F(NodeStoreTest, AHandleWaitsForTheOldestVersionOfItsNode) {
  const NodeId a = New(0, 0).id;
  const NodeId other = New(0, 0).id;
  store_->Publish();
  capture().pending_epoch.store(store_->ReadEpoch().value());
  capture().durable_epoch.store(store_->ReadEpoch().value());
  Version(a, 0);
  store_->Publish();
  Free(a);
  store_->Publish();
  for (int i = 0; i < 40; ++i) {
    Version(other, 0);
    store_->Publish();
  }
  EXPECT_NE(New(0, 0).id.handle(), a.handle());
  store_->Publish();
  capture().pending_epoch.store(store_->ReadEpoch().value());
  capture().durable_epoch.store(store_->ReadEpoch().value());
  store_->ReleaseCaptured();
  for (int i = 0; i < 16; ++i) {
    Version(other, 0);
    store_->Publish();
  }
  EXPECT_EQ(New(0, 0).id.handle(), a.handle());
  store_->Publish();
}

TEST_F(NodeStoreTest, ChangedEntriesMarkTheirTablePages) {
  std::vector<NodeId> ids;
  for (uint32_t i = 0; i < 2 * kTablePageEntries + 10; ++i) ids.push_back(New(0, 0).id);
  store_->Publish();
  ObjectTable* table = store_->table();
  ASSERT_EQ(table->pages(), 3u);
  const auto dirty = [&](uint32_t page) { return table->page_info(page).dirty.load() != 0; };
  for (uint32_t page = 0; page < 3; ++page) {
    EXPECT_TRUE(dirty(page));
    table->page_info(page).dirty.store(0);
  }
  Version(ids[kTablePageEntries + 5], 0);
  store_->Publish();
  EXPECT_FALSE(dirty(0));
  EXPECT_TRUE(dirty(1));
  Free(ids[3]);
  store_->Discard();
  EXPECT_FALSE(dirty(0));
  Free(ids[3]);
  store_->Publish();
  EXPECT_TRUE(dirty(0));
  EntryWord words[kTablePageEntries];
  table->EncodePage(0, words);
  EXPECT_FALSE(words[ids[3].handle()] & kWordLive);
  EXPECT_TRUE(words[ids[4].handle()] & kWordLive);
}

TEST_F(NodeStoreTest, AFullDiskLeavesTheChangeAsItWas) {
  const NodeId a = New(0, 0).id;
  store_->Publish();
  index_.fs.bytes_max = uint64_t{store_->allocator()->file_blocks()} * kBlockBytes;
  uint32_t staged = 0;
  for (;; ++staged) {
    auto node = store_->StageNew(kTreeMain, 0, 0);
    if (!node.ok()) {
      EXPECT_EQ(node.status().code(), Code::kNoSpace);
      break;
    }
  }
  auto version =
      index_.Retry(store_.get(), [&] { return store_->StageVersion(a, kTreeMain, 0, 0); });
  EXPECT_EQ(version.status().code(), Code::kNoSpace);
  EXPECT_EQ(store_->StageNew(kTreeMain, 0, 5).status().code(), Code::kNoSpace);
  EXPECT_EQ(used(), 2 + 1 + staged);
  store_->Publish();  // What was staged before is whole.
  EXPECT_EQ(index_.shared.table.live_nodes.load(), 1u + staged);
  Free(a);
  store_->Publish();
  index_.fs.bytes_max = UINT64_MAX;
  EXPECT_TRUE(store_->StageNew(kTreeMain, 0, 5).ok());
  store_->Discard();
}

TEST_F(NodeStoreTest, ReservedNodesNeedNothingMore) {
  ASSERT_TRUE(index_.Retry(store_.get(), [&] { return store_->ReserveNodes(5000, 1, false); }).ok());
  index_.fs.bytes_max = 0;
  index_.fs.fail_map = true;
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(store_->StageNew(kTreeMain, 0, 1).ok());
  store_->Publish();
  EXPECT_EQ(index_.shared.table.live_nodes.load(), 5000u);
}

TEST_F(NodeStoreTest, AVersionThatCannotBeMappedWaits) {
  const NodeId a = New(0, 0).id;
  store_->Publish();
  EpochReader reader(index_.epochs.get(), 1);
  EpochPin pin;
  pin.Acquire(&reader);
  Version(a, 0);
  store_->Publish();
  pin.Release();
  store_->windows()->DropAll();
  index_.fs.fail_map = true;
  EXPECT_EQ(store_->Reclaim(10), 0u);
  EXPECT_EQ(store_->retired_versions(), 1u);
  index_.fs.fail_map = false;
  EXPECT_EQ(store_->Reclaim(10), 1u);
  EXPECT_EQ(store_->retired_versions(), 0u);
}

TEST_F(NodeStoreTest, OtherHandlesAttachWhatHasGrown) {
  auto other = index_.Open();
  const uint64_t epoch = other->ReadEpoch().value();
  std::vector<NodeId> ids;
  for (int i = 0; i < 3000; ++i) ids.push_back(New(0, 0).id);
  store_->Publish();
  EXPECT_EQ(other->ReadEpoch().status().code(), Code::kNeedMemory);
  EXPECT_EQ(other->LookupNewest(ids.back()).status().code(), Code::kNeedMemory);
  index_.Attach(other.get());
  EXPECT_GT(other->ReadEpoch().value(), epoch);
  EXPECT_TRUE(other->LookupNewest(ids.back()).ok());
  // It can also write, in its turn, and the first one sees it.
  ASSERT_TRUE(index_.Retry(other.get(), [&] {
                      return other->StageVersion(ids[7], kTreeMain, 0, 1);
                    }).ok());
  other->Publish();
  EXPECT_EQ(store_->LookupNewest(ids[7])->order, 1u);
}

// A scan that has begun must not fail for good when the writer adds version records in a chunk that
// the scan's process does not know yet.
TEST_F(NodeStoreTest, AScanAttachesVersionChunksOnItsWay) {
  std::vector<NodeId> ids;
  for (int i = 0; i < 1000; ++i) ids.push_back(New(0, 0).id);
  store_->Publish();
  auto other = index_.Open();
  EpochReader reader(index_.epochs.get(), 1);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t epoch = other->ReadEpoch().value();
  for (NodeId id : ids) {
    Version(id, 0);
    store_->Publish();
  }
  int attached = 0;
  for (NodeId id : ids) {
    auto node = other->Lookup(id, epoch);
    if (!node.ok()) {
      ASSERT_EQ(node.status().code(), Code::kNeedMemory);
      index_.Attach(other.get());
      ++attached;
      node = other->Lookup(id, epoch);
    }
    ASSERT_TRUE(node.ok());
    EXPECT_LE(node->node->birth_epoch, epoch);
  }
  EXPECT_GE(attached, 1);
}

TEST_F(NodeStoreTest, ResetForgetsEverythingButTheChunks) {
  for (int i = 0; i < 2000; ++i) New(0, 0);
  store_->Publish();
  const uint32_t provided = index_.provided;
  store_->windows()->DropAll();
  store_->ResetShared();
  EXPECT_EQ(index_.shared.magic, 0u);
  EXPECT_EQ(index_.shared.table.pages.load(), 0u);
  index_.Create(store_.get());
  EXPECT_EQ(store_->ReadEpoch().value(), 1u);
  const NodeId a = New(0, 0).id;
  EXPECT_EQ(a.tag(), 1);
  store_->Publish();
  EXPECT_TRUE(store_->LookupNewest(a).ok());
  EXPECT_EQ(index_.provided, provided);
}

TEST_F(NodeStoreTest, TouchedBlocksAreListedOnceAndWithoutFreedOnes) {
  const NodeId a = New(0, 1).id;
  store_->Publish();
  uint32_t block;
  EXPECT_FALSE(store_->NextTouched(&block));  // Off.
  store_->TrackTouched(true);
  NodeRef node = store_->LookupNewest(a).value();
  StampBlock(node.block(1), 5);
  store_->MarkTouched(node.block(1));
  store_->MarkTouched(node.block(1));
  EXPECT_EQ(BlockLsn(*node.block(1)), kLsnUnstamped);
  ASSERT_TRUE(store_->NextTouched(&block));
  EXPECT_EQ(block, node.block(1)->block_number);
  EXPECT_FALSE(store_->NextTouched(&block));
  New(0, 2);
  store_->Discard();
  EXPECT_FALSE(store_->NextTouched(&block));
  New(0, 2);
  store_->Publish();
  int count = 0;
  while (store_->NextTouched(&block)) ++count;
  EXPECT_EQ(count, 4);
}

TEST_F(NodeStoreTest, TouchedBlocksThatNobodyTakesDoNoHarm) {
  store_->TrackTouched(true);
  std::vector<NodeRef> nodes;
  for (int i = 0; i < 5000; ++i) nodes.push_back(New(0, 0));
  store_->Publish();
  for (int round = 0; round < 10; ++round) {
    for (NodeRef& node : nodes) store_->MarkTouched(node.node);
  }
  uint32_t block;
  int count = 0;
  while (store_->NextTouched(&block)) ++count;
  EXPECT_EQ(count, 5000);
}

TEST_F(NodeStoreTest, OptionsOutOfRangeAreRefused) {
  IndexShared shared{};
  for (uint8_t dims : {0, 33}) {
    IndexOptions options;
    options.spec.dims = dims;
    EXPECT_EQ(NodeStore::InitShared(&shared, options).code(), Code::kInvalidArgument);
  }
  for (uint32_t fill : {9u, 101u}) {
    IndexOptions options;
    options.leaf_fill_percent = fill;
    EXPECT_EQ(NodeStore::InitShared(&shared, options).code(), Code::kInvalidArgument);
  }
}

// Every version carries its node's name and the epoch it was made for; a model remembers, for each
// epoch that a reader holds, which nodes there were.
TEST_F(NodeStoreTest, RandomChangesKeepEveryPinnedEpochWhole) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    OwnedIndex index;
    auto store = index.Open();
    index.Create(store.get());
    std::map<uint64_t, uint32_t> live;  // NodeId value -> payload of its newest version.
    struct Snapshot {
      EpochPin pin;
      uint64_t epoch;
      std::map<uint64_t, uint32_t> nodes;
    };
    std::vector<std::unique_ptr<Snapshot>> snapshots;
    EpochReader reader(index.epochs.get(), 2);
    uint32_t payload = 0;
    for (int step = 0; step < 1500; ++step) {
      auto next = live;
      const uint32_t changes = 1 + random() % 5;
      for (uint32_t c = 0; c < changes; ++c) {
        const uint32_t order = random() % 3;
        if (live.empty() || random() % 4 == 0) {
          NodeRef node = index.Retry(store.get(), [&] {
                                return store->StageNew(kTreeMain, 0, order); }).value();
          node.node->count = ++payload;
          next[node.id.value] = payload;
          continue;
        }
        auto it = live.lower_bound(random() % (live.rbegin()->first + 1));
        if (it == live.end()) it = live.begin();
        const NodeId id{it->first};
        if (next.count(id.value) == 0 || next[id.value] != it->second) continue;  // Staged already.
        if (random() % 3 == 0) {
          ASSERT_TRUE(index.Retry(store.get(), [&] { return store->StageFree(id); }).ok());
          next.erase(id.value);
        } else {
          NodeRef node = index.Retry(store.get(), [&] {
                                return store->StageVersion(id, kTreeMain, 0, order); }).value();
          node.node->count = ++payload;
          next[id.value] = payload;
        }
      }
      if (random() % 5 == 0) {
        store->Discard();
      } else {
        store->Publish();
        live = next;
      }
      if (random() % 10 == 0 && snapshots.size() < 6) {
        auto snapshot = std::make_unique<Snapshot>();
        snapshot->pin.Acquire(&reader);
        snapshot->epoch = store->ReadEpoch().value();
        snapshot->nodes = live;
        snapshots.push_back(std::move(snapshot));
      }
      if (random() % 12 == 0 && !snapshots.empty()) {
        snapshots.erase(snapshots.begin() + random() % snapshots.size());
      }
      if (random() % 100 == 0) {
        // A capture comes and stays.
        const uint64_t epoch = store->ReadEpoch().value();
        index.shared.capture.pending_epoch.store(epoch);
        index.shared.capture.durable_epoch.store(epoch);
        store->ReleaseCaptured();
      }
      if (step % 20 == 0) {
        for (auto& snapshot : snapshots) {
          for (auto [id, expected] : snapshot->nodes) {
            auto node = store->Lookup(NodeId{id}, snapshot->epoch);
            ASSERT_TRUE(node.ok()) << node.status().message();
            ASSERT_EQ(node->node->count, expected);
            ASSERT_EQ(node->node->node_id, id);
          }
        }
      }
    }
    EXPECT_EQ(index.shared.table.live_nodes.load(), live.size());
    // With no reader and no capture in the way, only the live versions are left.
    snapshots.clear();
    index.shared.capture.pending_epoch.store(0);
    index.shared.capture.durable_epoch.store(0);
    store->ReleaseCaptured();
    store->Reclaim(UINT64_MAX);
    EXPECT_EQ(store->retired_versions(), 0u);
    uint32_t blocks = 2;
    for (auto [id, expected] : live) {
      auto node = store->LookupNewest(NodeId{id});
      ASSERT_TRUE(node.ok());
      EXPECT_EQ(node->node->count, expected);
      blocks += 1u << node->order;
    }
    EXPECT_EQ(store->allocator()->used_blocks(), blocks);
  }
}

}  // namespace
}  // namespace xtree
