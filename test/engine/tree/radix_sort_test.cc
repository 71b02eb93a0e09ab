// Goal: pairs come out sorted by key and, among equal keys, as they went in.
// Method: against std::stable_sort, over key widths and sizes.
#include "tree/radix_sort.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace xtree {
namespace {

TEST(RadixSort, AgreesWithAStableSort) {
  std::mt19937_64 random(31);
  for (uint32_t bits : {1u, 7u, 8u, 9u, 32u, 48u, 64u}) {
    for (size_t n : {0u, 1u, 2u, 100u, 10000u}) {
      std::vector<KeyIndex> pairs;
      for (size_t i = 0; i < n; ++i) {
        uint64_t key = bits == 64 ? random() : random() & ((uint64_t{1} << bits) - 1);
        if (random() % 4 == 0) key &= 3;  // Many alike.
        pairs.push_back(KeyIndex{key, static_cast<uint32_t>(i)});
      }
      std::vector<KeyIndex> expected = pairs;
      std::stable_sort(expected.begin(), expected.end(),
                       [](const KeyIndex& a, const KeyIndex& b) { return a.key < b.key; });
      RadixSort(&pairs, bits);
      ASSERT_EQ(pairs.size(), n);
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(pairs[i].key, expected[i].key);
        ASSERT_EQ(pairs[i].index, expected[i].index);
      }
    }
  }
}

}  // namespace
}  // namespace xtree
