// Goal: blocks are read whole and from the right place, whatever reads come back with.
// Method: a file whose blocks name themselves; reads that are interrupted and short; a file that is cut short
// while it is being read.
#include "tools/file_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "support/odd_system_calls.h"

namespace xtree {
namespace {

class FileReaderTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlocks = 20;
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("xtree_file_reader_test." + std::to_string(getpid()))).string();
    FILE* file = fopen(path_.c_str(), "w");
    ASSERT_NE(file, nullptr);
    for (uint32_t word = 0; word < kBlocks * kBlockBytes / 4; ++word) {
      ASSERT_EQ(fwrite(&word, 4, 1, file), 1u);
    }
    ASSERT_EQ(fclose(file), 0);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  static void ExpectBlocks(uint32_t first, const std::vector<std::byte>& bytes) {
    for (uint32_t i = 0; i < bytes.size() / 4; ++i) {
      uint32_t word;
      std::memcpy(&word, bytes.data() + uint64_t{i} * 4, 4);
      ASSERT_EQ(word, first * (kBlockBytes / 4) + i);
    }
  }
  std::string path_;
};

TEST_F(FileReaderTest, ReadsAreWholeThoughTheyComeInterruptedAndShort) {
  OddSystemCalls odd;
  odd.short_io = true;
  ScopedOddSystemCalls scope(odd);
  FileReader reader;
  ASSERT_TRUE(reader.Open(path_).ok());
  ASSERT_EQ(reader.blocks(), kBlocks);
  for (uint32_t first = 0; first < kBlocks; ++first) {
    for (uint32_t count = 1; first + count <= kBlocks; ++count) {
      std::vector<std::byte> bytes(uint64_t{count} * kBlockBytes);
      ASSERT_TRUE(reader.Read(first, count, bytes.data()).ok());
      ExpectBlocks(first, bytes);
    }
  }
  EXPECT_GT(scope.calls(), 1'000u);
}

TEST_F(FileReaderTest, AFileThatIsCutShortMeanwhileIsAnErrorThatNamesItsBlock) {
  FileReader reader;
  ASSERT_TRUE(reader.Open(path_).ok());
  std::filesystem::resize_file(path_, 5 * kBlockBytes + 100);
  std::vector<std::byte> bytes(8 * kBlockBytes);
  EXPECT_TRUE(reader.Read(0, 5, bytes.data()).ok());
  const Status status = reader.Read(5, 1, bytes.data());
  EXPECT_EQ(status.code(), Code::kIoError);
  EXPECT_NE(std::string(status.message()).find("block 5"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace xtree
