// Goal: an element's place never moves while the array grows, and a second process's view finds
// what the first one published.
// Method: two SharedArray views on one directory, as two processes would have; elements are written
// through one and read through the other, at every level boundary.
#include "base/shared_array.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <vector>

namespace xtree {
namespace {

using Array = SharedArray<uint64_t, 4>;

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

class SharedArrayTest : public ::testing::Test {
 protected:
  void* NewChunk(uint64_t bytes) {
    chunks_.emplace_back(std::calloc(1, bytes));
    return chunks_.back().get();
  }
  void Grow(Array* array, uint32_t level) {
    array->Provide(level, 100 + level, NewChunk(Array::LevelBytes(level)));
  }
  ArrayDirectory directory_{};
  std::vector<std::unique_ptr<void, FreeDeleter>> chunks_;
};

TEST_F(SharedArrayTest, CapacityIsTheSumOfDoublingLevels) {
  Array array;
  array.Attach(&directory_);
  EXPECT_EQ(array.capacity(), 0u);
  uint64_t expected = 0;
  for (uint32_t level = 0; level < 10; ++level) {
    EXPECT_EQ(Array::LevelBytes(level), (uint64_t{16} << level) * sizeof(uint64_t));
    Grow(&array, level);
    expected += uint64_t{16} << level;
    EXPECT_EQ(array.capacity(), expected);
    EXPECT_EQ(array.ref(level), 100 + level);
  }
}

TEST_F(SharedArrayTest, EveryIndexHasItsOwnElementAndKeepsItWhileTheArrayGrows) {
  Array array;
  array.Attach(&directory_);
  uint64_t filled = 0;
  for (uint32_t level = 0; level < 8; ++level) {
    Grow(&array, level);
    for (; filled < array.capacity(); ++filled) {
      EXPECT_EQ(array[filled], 0u);  // Nobody else's element, and a zeroed chunk.
      array[filled] = filled + 1;
    }
  }
  for (uint64_t i = 0; i < filled; ++i) EXPECT_EQ(array[i], i + 1);
}

TEST_F(SharedArrayTest, ASecondViewAttachesWhatTheFirstProvided) {
  Array first;
  first.Attach(&directory_);
  for (uint32_t level = 0; level < 3; ++level) Grow(&first, level);
  for (uint64_t i = 0; i < first.capacity(); ++i) first[i] = i * 7;

  Array second;
  second.Attach(&directory_);
  uint32_t level = 99;
  uint32_t attached = 0;
  while (second.MissingLevel(&level)) {
    EXPECT_EQ(level, attached++);
    second.Provide(level, second.ref(level), first.local(level));
  }
  EXPECT_EQ(attached, 3u);
  EXPECT_EQ(directory_.levels.load(), 3u);  // Attaching publishes nothing.
  for (uint64_t i = 0; i < second.capacity(); ++i) EXPECT_EQ(second[i], i * 7);
}

TEST_F(SharedArrayTest, AViewThatIsCurrentMissesNothing) {
  Array array;
  array.Attach(&directory_);
  uint32_t level;
  EXPECT_FALSE(array.MissingLevel(&level));
  Grow(&array, 0);
  EXPECT_FALSE(array.MissingLevel(&level));
}

}  // namespace
}  // namespace xtree
