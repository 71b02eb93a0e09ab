// Goal: deletion removes exactly what it should, keeps the tree dense and sound, changes nothing
// that readers or a capture hold, and leaves no trace when it fails.
// Method: a model and the checker beside the tree; random deletions down to the empty tree; hashes
// of nodes that must stay; a failure at every staging call in turn.
#include "tree/tree_delete.h"

#include "tree/tree_fixture.h"

namespace xtree {
namespace {

void Fill(TestTree* t, uint64_t count, uint32_t seed) {
  KeyMaker keys(t->spec, seed);
  for (uint64_t id = 0; id < count; ++id) t->Insert(keys.Next(), id);
}

std::vector<uint64_t> ShuffledIds(const TestTree& t, uint32_t seed) {
  std::vector<uint64_t> ids;
  for (const auto& [id, key] : t.model) ids.push_back(id);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
  return ids;
}

class DeleteKinds : public ::testing::TestWithParam<KeySpec> {};
INSTANTIATE_TEST_SUITE_P(Kinds, DeleteKinds, ::testing::ValuesIn(SomeSpecs()), ParamName);

TEST_P(DeleteKinds, RandomOrderDownToEmpty) {
  TestTree t(GetParam());
  Fill(&t, 3000, 1);
  const std::vector<uint64_t> ids = ShuffledIds(t, 2);
  std::mt19937 random(3);
  uint32_t batches = 0;
  for (size_t i = 0; i < ids.size();) {
    const size_t batch = std::min<size_t>(1 + random() % 60, ids.size() - i);
    t.Delete({ids.begin() + i, ids.begin() + i + batch});
    i += batch;
    if (++batches % 10 == 0) t.Check();
  }
  t.Check();
  EXPECT_EQ(t.shared().root.load(), 0u);
  EXPECT_EQ(t.shared().height.load(), 0u);
  EXPECT_EQ(t.store.shared()->table.live_nodes.load(), 0u);
  Fill(&t, 500, 4);  // The empty tree is as good as a new one.
  t.Check();
}

TEST(TreeDelete, OneByOneFromADeepTree) {
  TestTree t(Spec(16, CoordType::kF64, KeyKind::kBox));
  Fill(&t, 4000, 5);
  ASSERT_GE(t.shared().height.load(), 3u);
  const std::vector<uint64_t> ids = ShuffledIds(t, 6);
  for (size_t i = 0; i < ids.size(); ++i) {
    t.Delete({ids[i]});
    if (i % 200 == 0) t.Check();
  }
  EXPECT_EQ(t.shared().root.load(), 0u);
}

TEST(TreeDelete, ManyLeavesAtOnce) {
  TestTree t(kBoxes2);
  Fill(&t, 20000, 7);
  std::vector<uint64_t> ids = ShuffledIds(t, 8);
  ids.resize(900);
  const uint64_t epoch = t.store.shared()->published_epoch.load();
  t.Delete(ids);
  EXPECT_EQ(t.store.shared()->published_epoch.load(), epoch + 1);  // All of it at once.
  t.Check();
}

TEST(TreeDelete, UnderfullNodesAreMerged) {
  TestTree t(kBoxes2);
  Fill(&t, 40000, 9);
  const uint64_t leaves = t.shared().nodes_by_level[0].load();
  std::vector<uint64_t> ids = ShuffledIds(t, 10);
  ids.resize(38000);
  for (size_t i = 0; i < ids.size(); i += 500) {
    t.Delete({ids.begin() + i, ids.begin() + i + 500});
  }
  t.Check();
  const double fill = 2000.0 / t.shared().nodes_by_level[0].load() /
                      NodeLayout::ExactLeaf(kBoxes2).base_capacity();
  EXPECT_GT(fill, 0.28) << leaves << " leaves before, " << t.shared().nodes_by_level[0].load()
                        << " after";
}

TEST(TreeDelete, BoxesShrinkWithTheirContent) {
  TestTree t(kBoxes2);
  KeyMaker keys(kBoxes2, 11);
  std::vector<uint64_t> far;
  for (uint64_t id = 0; id < 5000; ++id) {
    Key key = keys.Next();
    if (id % 50 == 0) {
      for (uint32_t d = 0; d < 2; ++d) {
        key.lo[d] += 1e6;
        key.hi[d] += 1e6;
      }
      far.push_back(id);
    }
    t.Insert(key, id);
  }
  t.Delete(far);
  t.Check();
  std::vector<double> boxes;
  ASSERT_TRUE(CollectBoxes(&t.store, kTreeMain, t.store.shared()->published_epoch.load(), 0, UINT64_MAX, &boxes)
                  .ok());
  for (const double x : boxes) ASSERT_LT(x, 2000);
}

TEST(TreeDelete, OnlyKeysInsideTheBound) {
  TestTree t(kBoxes2);
  Key a{{0, 0}, {1, 1}};
  Key b{{5, 5}, {6, 6}};
  // The same record id twice, as while a row waits for VACUUM under a reused id.
  ASSERT_TRUE(t.tree.PrepareInsert(a, 7).ok());
  t.tree.Apply();
  ASSERT_TRUE(t.tree.PrepareInsert(b, 7).ok());
  t.tree.Apply();
  const uint64_t id = 7;
  uint32_t found = 99;
  const Key nowhere{{2, 2}, {3, 3}};
  ASSERT_TRUE(t.tree.PrepareDelete(nowhere, &id, 1, &found).ok());
  EXPECT_EQ(found, 0u);
  EXPECT_FALSE(t.store.has_staged());
  t.tree.Discard();
  const Key part{{0, 0}, {1, 0.5}};
  ASSERT_TRUE(t.tree.PrepareDelete(part, &id, 1, &found).ok());
  EXPECT_EQ(found, 0u);
  t.tree.Discard();
  ASSERT_TRUE(t.tree.PrepareDelete(b, &id, 1, &found).ok());
  EXPECT_EQ(found, 1u);
  t.tree.Apply();
  EXPECT_TRUE(*t.tree.Contains(a, 7));
  EXPECT_FALSE(*t.tree.Contains(b, 7));
}

TEST(TreeDelete, AbsentRecordIdsAreIgnored) {
  TestTree t(kBoxes2);
  uint32_t found = 99;
  const uint64_t ids[] = {1, 2, 3};
  const Key all{{-kInf, -kInf}, {kInf, kInf}};
  ASSERT_TRUE(t.tree.PrepareDelete(all, ids, 3, &found).ok());
  EXPECT_EQ(found, 0u);
  t.tree.Discard();
  Fill(&t, 1000, 12);
  t.Delete({5, 5000, 6000, 7});
  t.Check();
}

TEST(TreeDelete, NanKeysAreFoundUnderAnUnboundedBound) {
  TestTree t(kBoxes2);
  KeyMaker keys(kBoxes2, 13);
  for (uint64_t id = 0; id < 3000; ++id) {
    Key key = keys.Next();
    if (id % 4 == 0) key.lo[id % 8 / 4] = kNan;
    if (id % 4 == 1) key.hi[0] = kInf;
    t.Insert(key, id);
  }
  const std::vector<uint64_t> ids = ShuffledIds(t, 14);
  for (size_t i = 0; i < ids.size(); ++i) {
    t.Delete({ids[i]});  // Bound() is unbounded exactly where the key has a NaN.
    if (i % 300 == 0) t.Check();
  }
  EXPECT_EQ(t.shared().root.load(), 0u);
}

TEST(TreeDelete, ANanInTheBoundMeansUnbounded) {
  TestTree t(kBoxes2);
  t.Insert(Key{{kNan, 1}, {kNan, 2}}, 1);
  uint32_t found = 0;
  const uint64_t id = 1;
  ASSERT_TRUE(t.tree.PrepareDelete(Key{{kNan, 1}, {kNan, 2}}, &id, 1, &found).ok());
  EXPECT_EQ(found, 1u);
  t.tree.Apply();
  EXPECT_EQ(t.shared().root.load(), 0u);
}

TEST(TreeDelete, OlderReadersStillFindWhatIsGone) {
  TestTree t(kBoxes2);
  Fill(&t, 5000, 15);
  EpochReader reader(t.epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t epoch = t.store.shared()->published_epoch.load();
  const uint64_t root = t.shared().root.load();
  const std::vector<uint64_t> ids = ShuffledIds(t, 16);
  for (size_t i = 0; i < ids.size(); i += 100) {
    t.Delete({ids.begin() + i, ids.begin() + i + 100});
  }
  ASSERT_EQ(t.shared().root.load(), 0u);
  EXPECT_EQ(t.Entries(root, epoch).size(), 5000u);
}

TEST(TreeDelete, NoCapturedNodeIsChanged) {
  TestTree t(kBoxes2);
  Fill(&t, 8000, 17);
  const std::vector<uint64_t> ids = ShuffledIds(t, 18);
  std::map<const BlockHeader*, uint64_t> captured;
  for (size_t i = 0; i < 4000; i += 40) {
    if (i % 400 == 0) {
      t.Capture();
      captured.clear();
      t.ForEachNode(t.shared().root.load(), ~uint64_t{0}, [&](const NodeRef& ref) {
        captured[ref.node] = HashNode(ref.node);
      });
    }
    t.Delete({ids.begin() + i, ids.begin() + i + 40});
    for (const auto& [node, hash] : captured) ASSERT_EQ(HashNode(node), hash);
  }
  t.Check();
}

TEST(TreeDelete, DiscardLeavesTheTreeAsItWas) {
  TestTree t(kBoxes2);
  Fill(&t, 5000, 19);
  const std::vector<uint64_t> ids = ShuffledIds(t, 20);
  for (size_t i = 0; i + 100 <= ids.size(); i += 100) {
    std::vector<uint64_t> batch(ids.begin() + i, ids.begin() + i + 100);
    std::sort(batch.begin(), batch.end());
    const uint64_t before = t.Hash();
    uint32_t found = 0;
    ASSERT_TRUE(t.tree.PrepareDelete(t.Bound(batch), batch.data(), 100, &found).ok());
    ASSERT_EQ(found, 100u);
    ASSERT_EQ(t.Hash(), before);
    t.tree.Discard();
    ASSERT_EQ(t.Hash(), before);
    t.Delete(batch);
  }
}

TEST(TreeDelete, FailureAtAnyStagingCallLeavesTheTreeAsItWas) {
  TestTree t(Spec(8, CoordType::kF64, KeyKind::kBox));
  Fill(&t, 2500, 21);
  const std::vector<uint64_t> ids = ShuffledIds(t, 22);
  for (size_t i = 0; i < ids.size(); i += 125) {
    const std::vector<uint64_t> batch(ids.begin() + i, ids.begin() + i + 125);
    for (int64_t fail_at = 0;; ++fail_at) {
      const uint64_t before = t.Hash();
      t.store.FailAt(fail_at);
      uint32_t found = 0;
      const Status status = t.TryDelete(batch, &found);
      if (status.ok()) {
        ASSERT_EQ(found, 125u);
        ASSERT_GT(fail_at, 0);
        break;
      }
      ASSERT_EQ(status.code(), Code::kNoSpace);
      ASSERT_EQ(t.Hash(), before);
    }
    t.store.FailAt(INT64_MAX);
    t.Check();
  }
  EXPECT_EQ(t.shared().root.load(), 0u);
}

TEST(TreeDelete, SupernodesShrinkWithTheirContent) {
  // Equal boxes make one large supernode; deleting most of them leaves a node of the base order.
  const KeySpec spec = Spec(16, CoordType::kF64, KeyKind::kBox);
  TestTree t(spec);
  Key key;
  for (uint32_t d = 0; d < kDimsMax; ++d) key.lo[d] = key.hi[d] = d;
  uint64_t id = 0;
  while (t.shared().supernodes.load() == 0) t.Insert(key, id++);
  t.Check();
  std::vector<uint64_t> ids = ShuffledIds(t, 23);
  for (size_t i = 0; i + 200 < ids.size(); i += 100) {
    t.Delete({ids.begin() + i, ids.begin() + i + 100});
  }
  t.Check();
  EXPECT_EQ(t.shared().supernodes.load(), 0u);
}

}  // namespace
}  // namespace xtree
