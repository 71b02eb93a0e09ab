// Goal: neighbours come in order of the host's distance, bit for bit, each once, whatever the tree.
// Method: differential, against sorting all distances, over every shape of key with special values.
#include "tree/nearest_scan.h"

#include <gtest/gtest.h>

#include <bit>

#include "tree/scan_helpers.h"

namespace xtree {
namespace {

struct Neighbour {
  uint64_t id;
  double distance;
};

std::vector<Neighbour> DrainNearest(NearestScan* scan, const TestTree& tree, uint32_t capacity) {
  std::vector<Neighbour> found;
  std::vector<uint64_t> ids(capacity);
  std::vector<double> distances(capacity), lo(size_t{capacity} * tree.dims()), hi(lo.size());
  for (uint32_t n = 1; n > 0;) {
    const Status status =
        scan->Next(ids.data(), distances.data(), lo.data(), hi.data(), capacity, &n);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) break;
    for (uint32_t i = 0; i < n; ++i) {
      Key key;
      std::copy_n(&lo[size_t{i} * tree.dims()], tree.dims(), key.lo);
      std::copy_n(&hi[size_t{i} * tree.dims()], tree.dims(), key.hi);
      EXPECT_TRUE(tree.SameKey(key, tree.model.at(ids[i])));
      found.push_back(Neighbour{ids[i], distances[i]});
    }
  }
  return found;
}

void ExpectNearestAgrees(TestTree* tree, const double* point, const Predicate& predicate,
                         uint32_t capacity) {
  NearestQuery query;
  query.Prepare(tree->spec, point);
  std::map<uint64_t, double> expected;
  std::vector<double> sorted;
  for (const auto& [id, key] : tree->model) {
    if (!Matches(tree->spec, predicate, key)) continue;
    expected[id] = KeyDistance(query, key.lo, key.hi);
    sorted.push_back(expected[id]);
  }
  std::sort(sorted.begin(), sorted.end(), [](double a, double b) {
    return std::isnan(b) ? !std::isnan(a) : a < b;
  });
  EpochReader reader(tree->epochs.get(), 0);
  NearestScan scan(&tree->store);
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, point, predicate).ok());
  const std::vector<Neighbour> found = DrainNearest(&scan, *tree, capacity);
  ASSERT_EQ(found.size(), sorted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(sorted[i])) {
      ASSERT_TRUE(std::isnan(found[i].distance));
    } else {
      ASSERT_EQ(std::bit_cast<uint64_t>(found[i].distance), std::bit_cast<uint64_t>(sorted[i]));
    }
    const auto at = expected.find(found[i].id);
    ASSERT_NE(at, expected.end()) << "twice, or no match";
    if (!std::isnan(sorted[i])) {
      ASSERT_EQ(at->second, found[i].distance);
    }
    expected.erase(at);
  }
}

TEST(NearestScan, ReturnsAllEntriesInOrderOfDistance) {
  WithEveryShape(51, 6000, 2000, [&](const TestLeaf&, TestTree* tree, RandomKeys* random) {
    BulkLoad(tree);
    for (int q = 0; q < 8; ++q) {
      ExpectNearestAgrees(tree, random->NextKey().lo, Predicate::All(), q % 2 ? 1 : 100);
    }
  });
}

// How many are asked for at a time decides what is put off and what pushed out again, and must decide nothing
// else; whoever asks for more and more does all of it.
TEST(NearestScan, ReturnsTheSameHoweverManyAreAskedForAtATime) {
  WithEveryShape(55, 6000, 1200, [&](const TestLeaf&, TestTree* tree, RandomKeys* random) {
    // Many at one place, so that many are equally far.
    const Key place = tree->model.begin()->second;
    for (uint64_t id = 1; id < 200; ++id) tree->model[id] = place;
    BulkLoad(tree);
    for (const uint32_t capacity : {1u, 2u, 16u, 17u, 64u, 65u, 1000u}) {
      SCOPED_TRACE(capacity);
      ExpectNearestAgrees(tree, random->NextKey().lo, Predicate::All(), capacity);
      ExpectNearestAgrees(tree, tree->model[1].lo, random->NextPredicate(), capacity);
    }
    EpochReader reader(tree->epochs.get(), 0);
    NearestScan scan(&tree->store);
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, tree->model[0].lo, Predicate::All()).ok());
    std::vector<uint64_t> ids(tree->model.size());
    std::vector<double> distances(tree->model.size());
    std::set<uint64_t> seen;
    double last = 0;
    uint32_t n = 1;
    for (uint32_t capacity = 1; n > 0; capacity = std::min<uint32_t>(capacity * 3, 3000)) {
      ASSERT_TRUE(scan.Next(ids.data(), distances.data(), nullptr, nullptr, capacity, &n).ok());
      for (uint32_t i = 0; i < n; ++i) {
        ASSERT_TRUE(seen.insert(ids[i]).second);
        ASSERT_FALSE(distances[i] < last);
        last = distances[i];
      }
    }
    ASSERT_TRUE(scan.exhausted());
    ASSERT_EQ(seen.size(), tree->model.size());
  });
}

TEST(NearestScan, ReturnsOnlyWhatThePredicatePasses) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    TestTree tree(leaf.spec);
    RandomKeys random(leaf, 52);
    random.keys_per_odd = 100;
    for (uint64_t id = 0; id < 500; ++id) tree.Insert(random.NextKey(), id);
    for (int q = 0; q < 20; ++q) {
      ExpectNearestAgrees(&tree, random.NextKey().lo, random.NextPredicate(), 33);
    }
  }
}

TEST(NearestScan, FromNowhereReturnsEverything) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kPoint};
  TestTree tree(spec);
  RandomKeys random(spec, 53);
  random.special_percent = 30;
  FillModel(&tree, &random, 500);
  BulkLoad(&tree);
  const double places[][2] = {{kNan, 0}, {kInf, 0}, {-kInf, kInf}, {1e300, -1e300},
                              {-0.0, 0.0}};
  for (const auto& place : places) {
    ExpectNearestAgrees(&tree, place, Predicate::All(), 64);
  }
}

TEST(NearestScan, OfAnEmptyTreeReturnsNothing) {
  TestTree tree(KeySpec{2, CoordType::kF64, KeyKind::kBox});
  const double place[] = {0, 0};
  ExpectNearestAgrees(&tree, place, Predicate::All(), 10);
}

TEST(NearestScan, SeesTheTreeAsOfItsBeginning) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  RandomKeys random(spec, 54);
  for (uint64_t id = 0; id < 1000; ++id) tree.Insert(random.NextKey(), id);
  EpochReader reader(tree.epochs.get(), 0);
  NearestScan scan(&tree.store);
  const double place[] = {0, 0};
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, place, Predicate::All()).ok());
  uint64_t id = 0;
  uint32_t n = 0;
  std::set<uint64_t> seen;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(scan.Next(&id, nullptr, nullptr, nullptr, 1, &n).ok());
    seen.insert(id);
  }
  std::vector<uint64_t> gone;
  for (uint64_t g = 0; g < 800; ++g) gone.push_back(g);
  tree.Delete(gone);
  for (uint64_t i = 5000; i < 6000; ++i) tree.Insert(random.NextKey(), i);
  for (;;) {
    ASSERT_TRUE(scan.Next(&id, nullptr, nullptr, nullptr, 1, &n).ok());
    if (n == 0) break;
    ASSERT_TRUE(seen.insert(id).second);
  }
  for (uint64_t old = 0; old < 1000; ++old) ASSERT_TRUE(seen.count(old)) << old;
}

}  // namespace
}  // namespace xtree
