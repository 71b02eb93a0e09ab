// Goal: insertion keeps the tree right for all kinds of keys, changes nothing that readers or a
// capture hold, leaves no trace when it fails, and makes supernodes where the data ask for them.
// Method: a model and the checker beside the tree; hashes of nodes that must stay; a failure at
// every staging call in turn; real 8- and 16-dimensional vectors.
#include "tree/tree_insert.h"

#include <cstdio>

#include "tree/tree_fixture.h"

namespace xtree {
namespace {

class InsertKinds : public ::testing::TestWithParam<KeySpec> {};
INSTANTIATE_TEST_SUITE_P(Kinds, InsertKinds, ::testing::ValuesIn(SomeSpecs()), ParamName);

TEST_P(InsertKinds, TreeHoldsWhatWasInserted) {
  TestTree t(GetParam());
  KeyMaker keys(GetParam(), 1);
  for (uint64_t id = 0; id < 6000; ++id) {
    t.Insert(keys.Next(), id * 7919 % kRecordIdMax);
    if (id == 0 || id == 60 || id == 500 || id == 2500) t.Check();
  }
  t.Check();
  EXPECT_GE(t.shared().height.load(), 2u);
}

TEST_P(InsertKinds, NoCapturedNodeIsChanged) {
  TestTree t(GetParam());
  KeyMaker keys(GetParam(), 2);
  uint64_t id = 0;
  for (uint32_t capture = 0; capture < 12; ++capture) {
    // From one insertion to many between two captures: all mixtures of mutable and captured nodes.
    for (uint32_t i = 0; i < 1u << capture; ++i) t.Insert(keys.Next(), id++);
    t.Capture();
    std::map<const BlockHeader*, uint64_t> captured;
    t.ForEachNode(t.shared().root.load(), ~uint64_t{0}, [&](const NodeRef& ref) {
      captured[ref.node] = HashNode(ref.node);
    });
    for (uint32_t i = 0; i < 40u; ++i) t.Insert(keys.Next(), id++);
    for (const auto& [node, hash] : captured) ASSERT_EQ(HashNode(node), hash);
    t.Check();
  }
}

TEST(TreeInsert, RootKeepsItsNodeId) {
  TestTree t(kPoints2);
  KeyMaker keys(kPoints2, 3);
  t.Insert(keys.Next(), 0);
  const uint64_t root = t.shared().root.load();
  for (uint64_t id = 1; id < 60000; ++id) t.Insert(keys.Next(), id);
  EXPECT_EQ(t.shared().height.load(), 2u + (t.shared().nodes_by_level[1].load() > 1));
  EXPECT_EQ(t.shared().root.load(), root);
  t.Check();
}

TEST(TreeInsert, OlderReadersKeepTheirTree) {
  TestTree t(kBoxes2);
  KeyMaker keys(kBoxes2, 4);
  for (uint64_t id = 0; id < 3000; ++id) t.Insert(keys.Next(), id);
  EpochReader reader(t.epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t epoch = t.store.shared()->published_epoch.load();
  const uint64_t root = t.shared().root.load();
  for (uint64_t id = 3000; id < 20000; ++id) t.Insert(keys.Next(), id);
  // All from before, none twice; later ones may have been appended to the leaves it sees.
  const std::map<uint64_t, Key> seen = t.Entries(root, epoch);
  for (uint64_t id = 0; id < 3000; ++id) ASSERT_TRUE(seen.count(id)) << id;
  EXPECT_LT(seen.size(), 20000u);
}

TEST(TreeInsert, SortedOrdersGiveSoundTrees) {
  for (const int step : {1, -1}) {
    TestTree t(kBoxes2);
    for (int i = 0; i < 20000; ++i) {
      Key key;
      key.lo[0] = step * i;
      key.hi[0] = step * i + 0.5;
      key.lo[1] = i % 10;
      key.hi[1] = key.lo[1] + 1;
      t.Insert(key, static_cast<uint64_t>(i));
    }
    t.Check();
  }
}

TEST(TreeInsert, OnePointTenThousandTimes) {
  for (const KeySpec& spec : {kBoxes2, kPoints2, Spec(16, CoordType::kF32, KeyKind::kPoint)}) {
    TestTree t(spec);
    Key key;
    for (uint32_t d = 0; d < kDimsMax; ++d) key.lo[d] = key.hi[d] = 42.5;
    for (uint64_t id = 0; id < 10000; ++id) t.Insert(key, id);
    t.Check();
  }
}

TEST(TreeInsert, NanAndInfiniteCoordinatesAreKept) {
  for (const uint32_t dims : {1u, 2u, 5u}) {
    for (const KeyKind kind : {KeyKind::kBox, KeyKind::kPoint}) {
      const KeySpec spec = Spec(dims, CoordType::kF64, kind);
      TestTree t(spec);
      KeyMaker keys(spec, 5);
      for (uint64_t id = 0; id < 4000; ++id) {
        Key key = keys.Next();
        const uint32_t d = keys.random()() % dims;
        switch (id % 6) {
          case 0: key.lo[d] = key.hi[d] = kNan; break;
          case 1: key.lo[d] = -kInf; break;
          case 2: key.hi[d] = kInf; break;
          case 3: key.lo[d] = key.hi[d] = 1e300; break;
          default: break;
        }
        if (kind == KeyKind::kPoint) key.hi[d] = key.lo[d];
        t.Insert(key, id);
      }
      t.Check();
    }
  }
}

TEST(TreeInsert, DiscardLeavesTheTreeAsItWas) {
  TestTree t(kBoxes2);
  KeyMaker keys(kBoxes2, 6);
  for (uint64_t id = 0; id < 3000; ++id) {
    const Key key = keys.Next();
    if (id % 3 == 0 || id > 2500) {
      if (id % 500 == 0) t.Capture();
      const uint64_t before = t.Hash();
      ASSERT_TRUE(t.tree.PrepareInsert(key, id).ok());
      ASSERT_EQ(t.Hash(), before);  // Prepared, and nothing to be seen of it.
      t.tree.Discard();
      ASSERT_EQ(t.Hash(), before);
      ASSERT_FALSE(t.store.has_staged());
    }
    t.Insert(key, id);
  }
  t.Check();
}

TEST(TreeInsert, FailureAtAnyStagingCallLeavesTheTreeAsItWas) {
  for (const uint32_t dims : {2u, 8u}) {
    const KeySpec spec = Spec(dims, CoordType::kF64, KeyKind::kBox);
    TestTree t(spec);
    KeyMaker keys(spec, 7);
    uint32_t most = 0;
    for (uint64_t id = 0; id < 8000; ++id) {
      if (id % 97 == 0) t.Capture();
      const Key key = keys.Next();
      for (int64_t fail_at = 0;; ++fail_at) {
        const uint64_t before = id % 10 == 0 ? t.Hash() : 0;
        t.store.FailAt(fail_at);
        const Status status = t.TryInsert(key, id);
        if (status.ok()) {
          most = std::max(most, static_cast<uint32_t>(fail_at));
          break;
        }
        ASSERT_EQ(status.code(), Code::kNoSpace);
        ASSERT_FALSE(t.store.has_staged());
        if (id % 10 == 0) {
          ASSERT_EQ(t.Hash(), before);
        }
      }
    }
    t.store.FailAt(INT64_MAX);
    EXPECT_GE(most, 3u);  // Splits of a leaf and of its parent were among them.
    t.Check();
  }
}

TEST(TreeInsert, PointQueriesVisitFewLeaves) {
  TestTree t(kBoxes2);
  std::mt19937 random(8);
  std::uniform_real_distribution<double> place(0, 1000);
  for (uint64_t id = 0; id < 100000; ++id) {
    Key key;
    for (uint32_t d = 0; d < 2; ++d) {
      key.lo[d] = place(random);
      key.hi[d] = key.lo[d] + 0.1;
    }
    t.Insert(key, id);
  }
  std::vector<double> boxes;
  ASSERT_TRUE(CollectBoxes(&t.store, kTreeMain, t.store.shared()->published_epoch.load(), 0, UINT64_MAX, &boxes)
                  .ok());
  const uint32_t leaves = static_cast<uint32_t>(boxes.size() / 4);
  uint32_t visited = 0;
  for (uint32_t i = 0; i < 1000; ++i) {
    const double x = place(random);
    const double y = place(random);
    for (uint32_t l = 0; l < leaves; ++l) {
      const double* b = &boxes[l * 4];
      visited += b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3];
    }
  }
  EXPECT_LT(visited, 1150u);
  // R* fills to about 70 %.
  EXPECT_GT(100000.0 / leaves / NodeLayout::ExactLeaf(kBoxes2).base_capacity(), 0.62);
}

// Rows of numbers from a file bundled for the tests.
std::vector<std::vector<double>> ReadVectors(const std::string& name, uint32_t dims,
                                             uint32_t rows_max) {
  std::string path = __FILE__;
  path = path.substr(0, path.rfind("/test/")) + "/test/data/" + name;
  std::vector<std::vector<double>> rows;
  FILE* pipe = popen(("gzip -dc '" + path + "' 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return rows;
  char line[1024];
  while (rows.size() < rows_max && std::fgets(line, sizeof(line), pipe) != nullptr) {
    std::vector<double> row;
    const char* at = line;
    for (uint32_t d = 0; d < dims; ++d) {
      char* end;
      row.push_back(std::strtod(at, &end));
      at = *end == ',' ? end + 1 : end;
    }
    rows.push_back(row);
  }
  pclose(pipe);
  return rows;
}

struct RealVectors {
  const char* file;
  uint32_t dims;
  uint32_t rows;
};
class Supernodes : public ::testing::TestWithParam<RealVectors> {};
INSTANTIATE_TEST_SUITE_P(
    Real, Supernodes,
    ::testing::Values(RealVectors{"vec_img_hist8.csv.gz", 8, 60000},
                      RealVectors{"vec_letter16.csv.gz", 16, 20000}),
    [](const auto& info) { return "Dims" + std::to_string(info.param.dims); });

TEST_P(Supernodes, OccurInHighDimensions) {
  const RealVectors& data = GetParam();
  const auto rows = ReadVectors(data.file, data.dims, data.rows);
  ASSERT_GT(rows.size(), 10000u) << "could not read test/data/" << data.file;
  TestTree t(Spec(data.dims, CoordType::kF64, KeyKind::kPoint));
  for (uint64_t id = 0; id < rows.size(); ++id) {
    Key key;
    std::copy(rows[id].begin(), rows[id].end(), key.lo);
    std::copy(rows[id].begin(), rows[id].end(), key.hi);
    t.Insert(key, id);
  }
  t.Check();
  EXPECT_GT(t.shared().supernodes.load(), 0u);
  ::testing::Test::RecordProperty("supernodes", static_cast<int>(t.shared().supernodes.load()));
  std::printf("%u dimensions: %zu vectors, %llu leaves, %llu directory nodes, %u supernodes\n",
              data.dims, rows.size(),
              static_cast<unsigned long long>(t.shared().nodes_by_level[0].load()),
              static_cast<unsigned long long>(t.shared().nodes_by_level[1].load() +
                                              t.shared().nodes_by_level[2].load()),
              t.shared().supernodes.load());
}

TEST(Supernodes2, DoNotOccurOnUniformPlanarData) {
  TestTree t(kPoints2);
  KeyMaker keys(kPoints2, 9);
  for (uint64_t id = 0; id < 150000; ++id) t.Insert(keys.Next(), id);
  EXPECT_GT(t.shared().nodes_by_level[1].load(), 1u);
  EXPECT_EQ(t.shared().supernodes.load(), 0u);
}

TEST(Supernodes2, ASupernodeOfTheLargestSizeIsSplit) {
  // Equal points defeat every split of a directory node until its extent cannot grow any more.
  const KeySpec spec = Spec(32, CoordType::kF64, KeyKind::kBox);
  TestTree t(spec);
  Key key;
  for (uint32_t d = 0; d < kDimsMax; ++d) key.lo[d] = key.hi[d] = 1;
  const uint32_t limit = NodeLayout::Inner(spec).Capacity(kOrderMax);
  const uint32_t per_leaf = NodeLayout::ExactLeaf(spec).base_capacity();
  uint64_t id = 0;
  while (t.shared().nodes_by_level[0].load() <= limit + 2) t.Insert(key, id++);
  EXPECT_GE(id, uint64_t{limit} * per_leaf / 2);
  EXPECT_EQ(t.shared().height.load(), 3u);
  EXPECT_EQ(t.shared().nodes_by_level[1].load(), 2u);
  t.Check();
}

}  // namespace
}  // namespace xtree
