// Goal: Lookup gives a reader the version of its epoch, and never content that was not checked after
// it came from disk; every kind of damage names file and block.
// Method: nodes of a MemoryStore whose entries are set back to what a load leaves; damage to each
// field in turn.
#include "store/store_interface.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "store/memory_store.h"
#include "support/epochs.h"
#include "support/owned_store.h"

namespace xtree {
namespace {

class Peek : public NodeStore {
 public:
  using NodeStore::NodeStore;
  // As loaded from disk: stamped, not yet verified.
  void Unverify(NodeId id) {
    const NodeRef node = Node(id);
    for (uint32_t i = 0; i < 1u << node.order; ++i) StampBlock(node.block(i), 9);
    entries_[id.handle()].word.fetch_and(~kWordVerified);
  }
  // The newest version, not verified.
  NodeRef Node(NodeId id) const {
    const EntryWord word = entries_[id.handle()].word.load();
    auto* node = reinterpret_cast<BlockHeader*>(windows_->BlockAddress(WordBlock(word)));
    return NodeRef{node, WordOrder(word), id};
  }
  uint32_t Block(NodeId id) const { return WordBlock(entries_[id.handle()].word.load()); }
  bool verified(NodeId id) const { return entries_[id.handle()].word.load() & kWordVerified; }
};

class StoreInterfaceTest : public ::testing::Test {
 protected:
  StoreInterfaceTest()
      : store_(&index_.shared, &index_.fs, &index_.budget, index_.epochs.get(), "data",
               ChunkSource::kHeap) {
    XT_ASSERT(NodeStore::InitShared(&index_.shared, IndexOptions{}).ok());
    XT_ASSERT(store_.ReserveSegments(0).ok() && store_.allocator()->CreateFile().ok());
  }
  NodeId Make(uint8_t level, uint32_t order) {
    const NodeId id = store_.StageNew(kTreeMain, level, order).value().id;
    store_.Publish();
    return id;
  }
  std::string Failure(NodeId id) {
    auto result = store_.Lookup(id, ~uint64_t{0});
    if (result.ok()) return "";
    EXPECT_EQ(result.status().code(), Code::kCorruption);
    return result.status().message();
  }
  OwnedIndex index_;
  Peek store_;
};

TEST_F(StoreInterfaceTest, VerifiesABlockFromDiskOnce) {
  const NodeId id = Make(0, 2);
  EXPECT_TRUE(store_.verified(id));
  store_.Unverify(id);
  EXPECT_EQ(store_.TryLookup(id, ~uint64_t{0}).node, nullptr);
  EXPECT_EQ(Failure(id), "");
  EXPECT_TRUE(store_.verified(id));
  EXPECT_NE(store_.TryLookup(id, ~uint64_t{0}).node, nullptr);
}

TEST_F(StoreInterfaceTest, RefusesALeafOfAKindThatItsTreeDoesNotHave) {
  const NodeId id = Make(0, 0);
  for (const int kind : {0, 4, 7, 15, 26, 255}) {
    store_.Node(id).node->kind = static_cast<BlockKind>(kind);
    store_.Unverify(id);
    EXPECT_NE(Failure(id), "") << kind;
  }
  store_.Node(id).node->kind = DecimalLeafKind(9);
  store_.Unverify(id);
  EXPECT_EQ(Failure(id), "");
  // Leaves of f32 keys are never decimal.
  index_.shared.trees[kTreeMain].spec.coord = CoordType::kF32;
  store_.Unverify(id);
  EXPECT_NE(Failure(id), "");
}

TEST_F(StoreInterfaceTest, NamesFileAndBlockOfADamagedBlockInAnyPlaceOfTheExtent) {
  const NodeId id = Make(1, 3);
  for (uint32_t i = 0; i < 8; ++i) {
    store_.Unverify(id);
    const NodeRef node = store_.Node(id);
    auto* byte = reinterpret_cast<uint8_t*>(node.block(i)) + 4000;
    *byte ^= 1;
    const std::string expected =
        "block " + std::to_string(store_.Block(id) + i) + " of \"data\" is damaged";
    EXPECT_EQ(Failure(id).substr(0, expected.size()), expected);
    EXPECT_FALSE(store_.verified(id));
    *byte ^= 1;
    EXPECT_EQ(Failure(id), "");
  }
}

TEST_F(StoreInterfaceTest, RefusesAWholeBlockOfAnotherNode) {
  const NodeId id = Make(1, 1);
  NodeRef node = store_.LookupNewest(id).value();
  const auto damaged = [&](auto change) {
    for (uint32_t i = 0; i < 2; ++i) {
      BlockHeader saved = *node.block(i);
      change(node.block(i));
      store_.Unverify(id);
      EXPECT_NE(Failure(id), "") << i;
      *node.block(i) = saved;
    }
  };
  damaged([](BlockHeader* b) { b->node_id += uint64_t{1} << 48; });
  damaged([](BlockHeader* b) { b->kind = BlockKind::kTablePage; });
  damaged([](BlockHeader* b) { b->order = 2; });
  damaged([](BlockHeader* b) { b->extent_index ^= 1; });
  damaged([](BlockHeader* b) { b->block_number += 1; });
  damaged([](BlockHeader* b) { b->tree = 7; });
  damaged([](BlockHeader* b) { b->level = 200; });
}

TEST_F(StoreInterfaceTest, RefusesNamesThatNoNodeHas) {
  const NodeId id = Make(0, 0);
  EXPECT_NE(Failure(NodeId{}), "");
  EXPECT_NE(Failure(NodeId{~uint64_t{0}}), "");
  EXPECT_NE(Failure(NodeId::Make(id.handle() + 1, id.shard(), 1)), "");
  EXPECT_NE(Failure(NodeId::Make(id.handle(), id.shard(), 9)), "");
  EXPECT_NE(Failure(NodeId::Make(uint64_t{1} << 30, 0, 1)), "");
  EXPECT_EQ(Failure(id), "");
}

TEST_F(StoreInterfaceTest, GivesEachEpochItsVersion) {
  const NodeId id = Make(0, 0);
  EpochReader reader(index_.epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t first = store_.ReadEpoch().value();
  for (uint32_t v = 1; v <= 20; ++v) {
    BlockHeader* node = store_.StageVersion(id, kTreeMain, 0, v % 3).value().node;
    node->count = v;
    store_.Publish();
  }
  for (uint32_t v = 0; v <= 20; ++v) {
    const NodeRef node = store_.Lookup(id, first + v).value();
    EXPECT_EQ(node.node->count, v);
    EXPECT_EQ(node.order, v == 0 ? 0 : v % 3);
  }
  EXPECT_EQ(store_.TryLookup(id, first + 19).node, nullptr);
  EXPECT_EQ(store_.Lookup(id, first - 1).status().code(), Code::kNotFound);
}

TEST_F(StoreInterfaceTest, MapsTheWindowsOfOldAndNewVersions) {
  const NodeId id = Make(0, 0);
  EpochReader reader(index_.epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t first = store_.ReadEpoch().value();
  ASSERT_TRUE(store_.StageVersion(id, kTreeMain, 0, 0).ok());
  store_.Publish();
  for (uint64_t epoch : {first, first + 1}) {
    store_.windows()->DropAll();
    EXPECT_EQ(store_.TryLookup(id, epoch).node, nullptr);
    EXPECT_TRUE(store_.Lookup(id, epoch).ok());
    store_.windows()->DropAll();
    index_.fs.fail_map = true;
    EXPECT_EQ(store_.Lookup(id, epoch).status().code(), Code::kOutOfMemory);
    index_.fs.fail_map = false;
  }
}

TEST_F(StoreInterfaceTest, AMissingFileIsNotAnEmptyIndex) {
  const NodeId id = Make(0, 0);
  store_.windows()->DropAll();
  ASSERT_TRUE(index_.fs.Remove("data").ok());
  EXPECT_NE(Failure(id).find("is missing"), std::string::npos);
}

TEST_F(StoreInterfaceTest, ANodeIsMutableUntilACaptureBegins) {
  const NodeId id = Make(0, 0);
  EXPECT_TRUE(store_.IsMutable(store_.LookupNewest(id)->node));
  index_.shared.capture.pending_epoch.store(store_.ReadEpoch().value());
  EXPECT_FALSE(store_.IsMutable(store_.LookupNewest(id)->node));
  const NodeRef next = store_.StageVersion(id, kTreeMain, 0, 0).value();
  EXPECT_TRUE(store_.IsMutable(next.node));
  store_.Publish();
}

}  // namespace
}  // namespace xtree
