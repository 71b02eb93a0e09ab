// Goal: insertions that were expected, and whose paths were walked ahead, leave the tree that any insertions leave,
// whatever happened to the tree between the walk and their turn; what was expected and never comes does no harm.
// Method: a model and the checker beside the tree, over all kinds of keys; between walk and insertion others are inserted, deleted,
// captured; expected entries are left out, come twice, in another order, or with another key.
#include "tree/paths_ahead.h"

#include "tree/tree_fixture.h"

namespace xtree {
namespace {

class PathsAheadKinds : public ::testing::TestWithParam<KeySpec> {};
INSTANTIATE_TEST_SUITE_P(Kinds, PathsAheadKinds, ::testing::ValuesIn(SomeSpecs()), ParamName);

void Walk(TestTree* t) {
  const WindowPin pin(t->store.windows());
  t->tree.WalkAhead();
}

TEST_P(PathsAheadKinds, ExpectedInsertionsLeaveTheSameEntries) {
  TestTree t(GetParam());
  KeyMaker keys(GetParam(), 1);
  std::mt19937 random(7);
  uint64_t id = 0;
  for (uint32_t group = 0; group < 200; ++group) {
    // More than are kept in mind, at times.
    const uint32_t expected = 1 + random() % (PathsAhead::kPathsMax + 4);
    std::vector<std::pair<uint64_t, Key>> coming;
    for (uint32_t i = 0; i < expected; ++i) {
      coming.emplace_back(id++, random() % 8 == 0 && i > 0 ? coming.back().second : keys.Next());
      t.tree.ExpectInsert(coming.back().second, coming.back().first);
    }
    if (random() % 8 != 0) Walk(&t);
    switch (random() % 6) {
      case 0:  // Splits, so that nodes on the paths have other children.
        for (uint32_t i = 0; i < 100; ++i) t.Insert(keys.Next(), id++);
        break;
      case 1:
        t.Capture();
        break;
      case 2: {
        std::vector<uint64_t> some;
        for (const auto& [other, key] : t.model) {
          if (random() % 4 == 0) some.push_back(other);
          if (some.size() == 60) break;
        }
        t.Delete(some);
        break;
      }
      case 3:
        std::shuffle(coming.begin(), coming.end(), random);
        break;
      case 4:  // Another key under an expected name.
        coming.front().second = keys.Next();
        break;
      default:
        break;
    }
    for (const auto& [name, key] : coming) {
      if (random() % 16 == 0) continue;  // It never comes.
      t.Insert(key, name);
    }
    if (group % 100 == 99) t.Check();
  }
  t.Check();
  EXPECT_GE(t.shared().height.load(), 2u);
}

// The tree becomes empty, and another one, while paths through it are known.
TEST(PathsAhead, OutliveTheirTree) {
  const KeySpec spec = Spec(2, CoordType::kF64, KeyKind::kBox);
  TestTree t(spec);
  KeyMaker keys(spec, 2);
  for (uint32_t round = 0; round < 5; ++round) {
    std::vector<uint64_t> ids;
    for (uint64_t id = 0; id < 1000; ++id) {
      t.Insert(keys.Next(), id);
      ids.push_back(id);
    }
    std::vector<Key> coming;
    for (uint64_t i = 0; i < PathsAhead::kPathsMax; ++i) {
      coming.push_back(keys.Next());
      t.tree.ExpectInsert(coming.back(), 2000 + i);
    }
    Walk(&t);
    t.Delete(ids);
    ASSERT_EQ(t.shared().root.load(), 0u);
    Walk(&t);
    for (uint64_t i = 0; i < coming.size(); ++i) t.Insert(coming[i], 2000 + i);
    t.Check();
    ids.clear();
    for (uint64_t i = 0; i < coming.size(); ++i) ids.push_back(2000 + i);
    t.Delete(ids);
  }
}

// A path that is walked is followed: each step leads from the node that it was chosen in, and from no other.
TEST(PathsAhead, LeadFromTheirNodesOnly) {
  const KeySpec spec = Spec(2, CoordType::kF64, KeyKind::kBox);
  TestTree t(spec);
  KeyMaker keys(spec, 3);
  for (uint64_t id = 0; id < 20000; ++id) t.Insert(keys.Next(), id);
  ASSERT_GE(t.shared().height.load(), 2u);
  const WindowPin pin(t.store.windows());
  const TreeChange change(&t.store, kTreeMain);
  PathsAhead ahead(&change);
  const NodeLayout& inner = NodeLayout::Inner(spec);
  for (uint64_t name = 1; name < 200; ++name) {
    const Key key = keys.Next();
    ahead.Begin(key, name);
    ahead.Walk();
    EXPECT_EQ(ahead.Take(keys.Next(), name), nullptr);  // Another key.
    EXPECT_EQ(ahead.Take(key, name + 1), nullptr);
    const PathsAhead::Path* path = ahead.Take(key, name);
    ASSERT_NE(path, nullptr);
    EXPECT_EQ(ahead.Take(key, name), nullptr);  // Once.
    ASSERT_EQ(path->depth + 1, t.shared().height.load());
    NodeId id = change.root();
    for (uint32_t i = 0; i < path->depth; ++i) {
      const NodeRef ref = *change.Find(id, -1);
      const ChildChoice chosen = change.ChooseChild(ref, path->box);
      ChildChoice child;
      ASSERT_TRUE(path->Leads(i, inner, ref, &child));
      EXPECT_EQ(child.entry, chosen.entry);
      EXPECT_EQ(child.covers, chosen.covers);
      const NodeRef sibling = *change.Find(inner.Child(ref.node, child.entry == 0 ? 1 : 0), -1);
      if (sibling.node->level > 0) {
        EXPECT_FALSE(path->Leads(i + 1, inner, sibling, &child));
      }
      id = inner.Child(ref.node, chosen.entry);
    }
    EXPECT_FALSE(path->Leads(path->depth, inner, *change.Find(change.root(), -1), nullptr));
  }
}

}  // namespace
}  // namespace xtree
