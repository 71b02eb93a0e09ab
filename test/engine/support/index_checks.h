// What holds of every index at rest.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "store/durable_runtime.h"

namespace xtree {

inline void ExpectSound(Index* index) {
  std::vector<std::string> problems;
  const Status status = index->Check(&problems);
  EXPECT_TRUE(status.ok()) << status.message();
  for (const std::string& problem : problems) ADD_FAILURE() << problem;
}

// No insertion beside others holds room in a leaf or in the log.
inline void ExpectNothingReserved(const IndexShared& shared) {
  for (const LeafLatch& leaf : shared.writers.leaves) {
    EXPECT_EQ(leaf.reserved, 0u);
    EXPECT_EQ(leaf.latch.load(), 0u);
  }
  EXPECT_EQ(shared.log.reserved_bytes, 0u);
  EXPECT_EQ(shared.log.latch.load(), 0u);
}

}  // namespace xtree
