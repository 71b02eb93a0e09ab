// Filling a TestTree in bulk, and whole scans in one call.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "object/epoch.h"
#include "tree/bulk_loader.h"
#include "tree/nearest_scan.h"
#include "tree/random_keys.h"
#include "tree/tree_fixture.h"
#include "tree/window_scan.h"

namespace xtree {

// Loads the model's entries in one Finish, added in batches of odd sizes.
inline void BulkLoad(TestTree* tree, const BulkOptions& options = {}) {
  BulkLoader loader(&tree->store, kTreeMain, options);
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  const auto flush = [&] {
    const Status status =
        loader.Add(lo.data(), hi.data(), ids.data(), static_cast<uint32_t>(ids.size()));
    ASSERT_TRUE(status.ok()) << status.message();
    lo.clear(), hi.clear(), ids.clear();
  };
  for (const auto& [id, key] : tree->model) {
    lo.insert(lo.end(), key.lo, key.lo + tree->dims());
    hi.insert(hi.end(), key.hi, key.hi + tree->dims());
    ids.push_back(id);
    if (ids.size() == 1 + id % 700) flush();
  }
  flush();
  const Status status = loader.Finish();
  ASSERT_TRUE(status.ok()) << status.message();
}

// Fills the model only.
inline void FillModel(TestTree* tree, RandomKeys* random, uint64_t entries) {
  for (uint64_t id = 0; id < entries; ++id) {
    // Duplicates of a few keys among them, and ids that use all 48 bits.
    const bool again = id > 0 && random->Below(20) == 0;
    tree->model[id << 20] = again ? tree->model.begin()->second : random->NextKey();
  }
}

// Runs `test(leaf, tree, random)` for leaves of every shape, with a model of `entries` of their keys.
template <class Test>
void WithEveryShape(uint64_t seed, uint32_t keys_per_odd, uint64_t entries, Test test) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    TestTree tree(leaf.spec);
    RandomKeys random(leaf, seed);
    random.keys_per_odd = keys_per_odd;
    FillModel(&tree, &random, entries);
    test(leaf, &tree, &random);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Everything that is left in a scan, by id. Fails on an id that comes twice.
inline std::map<uint64_t, Key> Drain(WindowScan* scan, const KeySpec& spec,
                                     uint32_t capacity = kScanBatchMin, bool one_leaf = false) {
  std::map<uint64_t, Key> found;
  std::vector<uint64_t> ids(capacity);
  std::vector<double> lo(size_t{capacity} * spec.dims), hi(lo.size());
  for (uint32_t n = 1; n > 0;) {
    const Status status = scan->Next(ids.data(), lo.data(), hi.data(), capacity, one_leaf, &n);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) break;
    for (uint32_t i = 0; i < n; ++i) {
      Key key;
      std::copy_n(&lo[size_t{i} * spec.dims], spec.dims, key.lo);
      std::copy_n(&hi[size_t{i} * spec.dims], spec.dims, key.hi);
      EXPECT_TRUE(found.emplace(ids[i], key).second) << "id " << ids[i] << " twice";
    }
  }
  return found;
}

inline std::vector<uint64_t> DrainIds(WindowScan* scan, uint32_t capacity = kScanBatchMin) {
  std::vector<uint64_t> found, ids(capacity);
  for (uint32_t n = 1; n > 0;) {
    const Status status = scan->Next(ids.data(), nullptr, nullptr, capacity, false, &n);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) break;
    found.insert(found.end(), ids.begin(), ids.begin() + n);
  }
  std::sort(found.begin(), found.end());
  return found;
}

inline std::vector<uint64_t> Expected(const TestTree& tree, const Predicate& predicate) {
  std::vector<uint64_t> ids;
  for (const auto& [id, key] : tree.model) {
    if (Matches(tree.spec, predicate, key)) ids.push_back(id);
  }
  return ids;
}

}  // namespace xtree
