// Goal: an index in memory is complete by itself, apart from all others, and gives everything back.
// Method: several stores side by side; the first nodes, many nodes, and the end of a store.
#include "store/memory_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/epochs.h"

namespace xtree {
namespace {

TEST(MemoryStore, BeginsEmptyWithItsSpecs) {
  Epochs epochs(2);
  IndexOptions options;
  options.spec = KeySpec{8, CoordType::kF32, KeyKind::kPoint};
  options.leaf_fill_percent = 70;
  MemoryStore store(options, epochs.get());
  const IndexShared* shared = store.shared();
  EXPECT_EQ(shared->magic, kIndexSharedMagic);
  EXPECT_EQ(shared->trees[kTreeMain].spec.dims, 8);
  EXPECT_EQ(shared->trees[kTreeMain].spec.kind, KeyKind::kPoint);
  EXPECT_EQ(shared->trees[kTreeNull].spec.dims, 1);
  EXPECT_EQ(shared->trees[kTreeMain].root.load(), 0u);
  EXPECT_EQ(shared->leaf_fill_percent, 70u);
  EXPECT_EQ(store.ReadEpoch().value(), 1u);
  EXPECT_FALSE(store.has_staged());
}

TEST(MemoryStore, NeverAsksForMemory) {
  Epochs epochs(2);
  MemoryStore store(IndexOptions{}, epochs.get());
  std::vector<NodeId> ids;
  for (int i = 0; i < 5000; ++i) {
    auto node = store.StageNew(kTreeMain, 0, 0);
    ASSERT_TRUE(node.ok()) << node.status().message();
    ids.push_back(node->id);
  }
  store.Publish();
  for (NodeId id : ids) ASSERT_TRUE(store.StageVersion(id, kTreeMain, 0, 0).ok());
  store.Publish();
  for (NodeId id : ids) ASSERT_TRUE(store.StageFree(id).ok());
  store.Publish();
  store.Reclaim(UINT64_MAX);
  EXPECT_EQ(store.shared()->table.live_nodes.load(), 0u);
  EXPECT_EQ(store.allocator()->used_blocks(), 2u);
}

TEST(MemoryStore, ItsNodesAreMutableAndNoVersionWaitsForACapture) {
  Epochs epochs(2);
  MemoryStore store(IndexOptions{}, epochs.get());
  const NodeId id = store.StageNew(kTreeMain, 0, 0)->id;
  store.Publish();
  EXPECT_TRUE(store.IsMutable(store.LookupNewest(id)->node));
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(store.StageVersion(id, kTreeMain, 0, 0).ok());
    store.Publish();
  }
  EXPECT_EQ(store.shared()->table.waiting_capture.length, 0u);
}

TEST(MemoryStore, StoresShareReadersAndNothingElse) {
  Epochs epochs(2);
  auto a = std::make_unique<MemoryStore>(IndexOptions{}, epochs.get());
  MemoryStore b(IndexOptions{}, epochs.get());
  NodeRef in_a = a->StageNew(kTreeMain, 0, 0).value();
  NodeRef in_b = b.StageNew(kTreeMain, 0, 0).value();
  in_a.node->count = 1;
  in_b.node->count = 2;
  a->Publish();
  b.Publish();
  EXPECT_EQ(in_a.id, in_b.id);  // The same name in two indexes.
  EXPECT_NE(in_a.node, in_b.node);
  EpochReader reader(epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  ASSERT_TRUE(b.StageVersion(in_b.id, kTreeMain, 0, 0).ok());
  b.Publish();
  EXPECT_EQ(b.Reclaim(10), 0u);
  a.reset();
  EXPECT_EQ(b.Lookup(in_b.id, 2)->node->count, 2u);
  pin.Release();
  EXPECT_EQ(b.Reclaim(10), 1u);
}

}  // namespace
}  // namespace xtree
