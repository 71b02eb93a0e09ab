// Goal: files in memory behave as a FileSystem promises: new bytes are zeros, all mappings agree.
// Method: one call after the other, at page boundaries and off them.
#include "io/memory_file_system.h"

#include <gtest/gtest.h>

#include <cstring>

namespace xtree {
namespace {

TEST(MemoryFileSystem, GrowsByReservationAndNeverShrinksByIt) {
  MemoryFileSystem fs;
  EXPECT_EQ(fs.Stat("a").status().code(), Code::kNotFound);
  EXPECT_EQ(fs.Map("a", 4096, true).status().code(), Code::kNotFound);
  ASSERT_TRUE(fs.Reserve("a", 8192, 8192).ok());
  EXPECT_EQ(fs.Stat("a")->size_bytes, 16384u);
  ASSERT_TRUE(fs.Reserve("a", 0, 10).ok());
  EXPECT_EQ(fs.Stat("a")->size_bytes, 16384u);
}

TEST(MemoryFileSystem, AllMappingsOfAFileAreTheSameBytes) {
  MemoryFileSystem fs;
  ASSERT_TRUE(fs.Reserve("a", 0, 8192).ok());
  ASSERT_TRUE(fs.Reserve("b", 0, 8192).ok());
  std::byte* first = fs.Map("a", kMemoryFileBytesMax, true).value();
  std::byte* second = fs.Map("a", 8192, true).value();
  first[100] = std::byte{7};
  EXPECT_EQ(second[100], std::byte{7});
  EXPECT_EQ(fs.Map("b", 8192, true).value()[100], std::byte{0});
  fs.Unmap(second, 8192);
  EXPECT_EQ(first[100], std::byte{7});
  EXPECT_NE(fs.Stat("a")->inode, fs.Stat("b")->inode);
}

TEST(MemoryFileSystem, PunchedAndTruncatedBytesReadAsZeros) {
  MemoryFileSystem fs;
  constexpr uint64_t kBytes = 5 * 4096;
  for (uint64_t begin : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{5000}}) {
    for (uint64_t length : {uint64_t{1}, uint64_t{4096}, uint64_t{9000}}) {
      ASSERT_TRUE(fs.Reserve("a", 0, kBytes).ok());
      std::byte* base = fs.Map("a", kBytes, true).value();
      std::memset(base, 1, kBytes);
      ASSERT_TRUE(fs.Punch("a", begin, length).ok());
      for (uint64_t i = 0; i < kBytes; ++i) {
        const bool punched = i >= begin && i < begin + length;
        ASSERT_EQ(base[i], std::byte{static_cast<uint8_t>(!punched)}) << i;
      }
      std::memset(base, 1, kBytes);
      ASSERT_TRUE(fs.Truncate("a", begin).ok());
      EXPECT_EQ(fs.Stat("a")->size_bytes, begin);
      ASSERT_TRUE(fs.Reserve("a", 0, kBytes).ok());
      for (uint64_t i = 0; i < kBytes; ++i) {
        ASSERT_EQ(base[i], std::byte{static_cast<uint8_t>(i < begin)}) << i;
      }
    }
  }
}

TEST(MemoryFileSystem, RefusesWhatItCannotHold) {
  MemoryFileSystem fs;
  EXPECT_EQ(fs.Reserve("a", kMemoryFileBytesMax, 1).code(), Code::kNoSpace);
  EXPECT_EQ(fs.Reserve("a", ~uint64_t{0}, 2).code(), Code::kNoSpace);
  EXPECT_EQ(fs.Stat("a").status().code(), Code::kNotFound);
  ASSERT_TRUE(fs.Reserve("a", 0, kMemoryFileBytesMax).ok());
  EXPECT_EQ(fs.Truncate("a", kMemoryFileBytesMax + 1).code(), Code::kInvalidArgument);
}

TEST(MemoryFileSystem, RemovesFilesAndReportsMissingOnes) {
  MemoryFileSystem fs;
  ASSERT_TRUE(fs.Reserve("a", 0, 100).ok());
  EXPECT_TRUE(fs.Sync("a").ok());
  ASSERT_TRUE(fs.Remove("a").ok());
  for (const Status& status : {fs.Remove("a"), fs.Sync("a"), fs.Punch("a", 0, 1),
                               fs.Truncate("a", 0)}) {
    EXPECT_EQ(status.code(), Code::kNotFound);
  }
  EXPECT_TRUE(fs.SyncDirectory("a").ok());
  EXPECT_TRUE(fs.CreateDirectory("d").ok());
}

}  // namespace
}  // namespace xtree
