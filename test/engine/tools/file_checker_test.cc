// Goal: xtree-fsck accepts every sound index and finds damage anywhere that matters, and never
// writes.
// Method: real files written by the engine; one flipped bit at a time in every used block, which
// must be found; damage with a repaired checksum, to reach the checks behind it; exit statuses by
// running the program.
#include "tools/file_checker.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "checkpoint/superblock.h"
#include "object/object_table.h"
#include "store/durable_runtime.h"
#include "testing/sim_file_system.h"
#include "tree/node_layout.h"

namespace xtree {
namespace {

namespace stdfs = std::filesystem;
using Bytes = std::vector<char>;

class FileCheckerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = (stdfs::temp_directory_path() /
                  ("xtree_fsck_test." + std::to_string(getpid()))).string();
    stdfs::remove_all(directory_);
    stdfs::create_directory(directory_);
    data_ = directory_ + "/roads";
    log_ = directory_ + "/roads_log";
  }
  void TearDown() override { stdfs::remove_all(directory_); }

  // An index of 8-dimensional boxes with `checkpointed` entries in its capture and `logged` more.
  void MakeIndex(uint64_t checkpointed, uint64_t logged) {
    RuntimeOptions options;
    options.directory = directory_;
    options.background_checkpoints = false;
    auto runtime = DurableRuntime::Open(options).value();
    IndexOptions index_options;
    index_options.spec = KeySpec{8, CoordType::kF64, KeyKind::kBox};
    Index* index = runtime->CreateIndex("roads", index_options).value();
    SimRandom random(1);
    for (uint64_t id = 1; id <= checkpointed + logged; ++id) {
      Key key{};
      for (uint32_t d = 0; d < 8; ++d) {
        key.lo[d] = static_cast<double>(random.Below(1'000'000));
        key.hi[d] = key.lo[d] + 1;
      }
      ASSERT_TRUE(index->Insert(key, id).ok());
      if (id % 50 == 0) {
        ASSERT_TRUE(index->InsertNull(10'000'000 + id).ok());
      }
      if (id % 100 == 0) {
        ASSERT_TRUE(index->Commit().ok());
      }
      if (id == checkpointed) {
        ASSERT_TRUE(index->Commit().ok());
        ASSERT_TRUE(index->Checkpoint().ok());
        if (logged == 0) break;
      }
    }
    ASSERT_TRUE(index->Commit().ok());
  }
  static Bytes ReadFile(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(in), {});
  }
  static void WriteFile(const std::string& path, const Bytes& content) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  FileReport Check() {
    FileReport report;
    const Status status = CheckIndexFiles(data_, log_, &report);
    EXPECT_TRUE(status.ok()) << status.message();
    return report;
  }
  static BlockHeader* BlockOf(Bytes* content, uint64_t block) {
    return reinterpret_cast<BlockHeader*>(content->data() + block * kBlockBytes);
  }
  // The first block of this kind (kLeaf: of any leaf) and level, or 0.
  static uint64_t FindBlock(Bytes* content, BlockKind kind, uint8_t level = 0) {
    for (uint64_t b = kSuperblockSlots; (b + 1) * kBlockBytes <= content->size(); ++b) {
      const BlockHeader* header = BlockOf(content, b);
      const bool is_kind = header->kind == kind || (kind == BlockKind::kLeaf && IsDecimalLeaf(header->kind));
      if (is_kind && header->level == level && BlockLsn(*header) != kLsnUnstamped) {
        return b;
      }
    }
    return 0;
  }
  static bool Mentions(const FileReport& report, const std::string& text) {
    for (const std::string& problem : report.problems) {
      if (problem.find(text) != std::string::npos) return true;
    }
    return false;
  }
  std::string directory_;
  std::string data_;
  std::string log_;
};

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST_F(FileCheckerTest, SoundFilesHaveNoProblemsAndAreNotChanged) {
  MakeIndex(4'000, 300);
  const Bytes data = ReadFile(data_);
  const Bytes log = ReadFile(log_);
  const FileReport report = Check();
  EXPECT_EQ(Join(report.problems), "");
  EXPECT_NE(Join(report.notes).find("4000 entries"), std::string::npos) << Join(report.notes);
  EXPECT_EQ(ReadFile(data_), data);
  EXPECT_EQ(ReadFile(log_), log);
}

TEST_F(FileCheckerTest, AMissingLogIsAProblem) {
  MakeIndex(100, 0);
  std::remove(log_.c_str());
  EXPECT_TRUE(Mentions(Check(), "the log is missing"));
}

TEST_F(FileCheckerTest, AnEmptyIndexIsSound) {
  MakeIndex(0, 0);
  EXPECT_EQ(Join(Check().problems), "");
}

TEST_F(FileCheckerTest, AFlippedBitInAnyUsedBlockIsFound) {
  MakeIndex(3'000, 0);
  const Bytes sound = ReadFile(data_);
  SimRandom random(2);
  uint64_t flipped = 0;
  for (uint64_t b = kSuperblockSlots; (b + 1) * kBlockBytes <= sound.size(); ++b) {
    Bytes content = sound;
    // A stale block that nothing refers to any more may look like a live one; then flips in it are
    // harmless, and only those that the checker reads can be asked for.
    if (BlockOf(&content, b)->kind == BlockKind::kFree) continue;
    bool found_one = false;
    bool missed_one = false;
    for (uint64_t flip = 0; flip < 8; ++flip) {
      content = sound;
      // LSN and host checksum (bytes 0 to 9) are the host's own and not in the CRC.
      const uint64_t offset = 10 + random.Below(kBlockBytes - 10);
      content[b * kBlockBytes + offset] ^= static_cast<char>(1u << random.Below(8));
      WriteFile(data_, content);
      (Check().problems.empty() ? missed_one : found_one) = true;
    }
    EXPECT_FALSE(found_one && missed_one) << "block " << b;
    flipped += found_one ? 1 : 0;
  }
  EXPECT_GT(flipped, 40u);
}

TEST_F(FileCheckerTest, AParentBoxThatDoesNotContainItsChildIsFound) {
  MakeIndex(3'000, 0);
  Bytes content = ReadFile(data_);
  const uint64_t block = FindBlock(&content, BlockKind::kInner, 1);
  ASSERT_NE(block, 0u);
  BlockHeader* header = BlockOf(&content, block);
  const NodeLayout& layout = NodeLayout::Inner(KeySpec{8, CoordType::kF64, KeyKind::kBox});
  Box32 box = layout.ChildBox(header, 0);
  box.hi[3] = box.lo[3];
  layout.ReplaceChild(header, 0, box);
  StampBlock(header, 0);  // The checksum holds; only the geometry tells.
  WriteFile(data_, content);
  EXPECT_TRUE(Mentions(Check(), "does not contain its entries")) << Join(Check().problems);
}

TEST_F(FileCheckerTest, ALostEntryIsFound) {
  MakeIndex(3'000, 0);
  Bytes content = ReadFile(data_);
  const uint64_t block = FindBlock(&content, BlockKind::kLeaf);
  ASSERT_NE(block, 0u);
  BlockHeader* header = BlockOf(&content, block);
  --header->count;
  StampBlock(header, 0);
  WriteFile(data_, content);
  EXPECT_TRUE(Mentions(Check(), "the superblock says 3000")) << Join(Check().problems);
}

TEST_F(FileCheckerTest, ALeafOfAKindThatDoesNotExistIsFound) {
  MakeIndex(3'000, 0);
  const Bytes whole = ReadFile(data_);
  for (const int kind : {0, 4, 7, 15, 26, 255}) {
    Bytes content = whole;
    BlockHeader* header = BlockOf(&content, FindBlock(&content, BlockKind::kLeaf));
    header->kind = static_cast<BlockKind>(kind);
    StampBlock(header, 0);
    WriteFile(data_, content);
    EXPECT_TRUE(Mentions(Check(), "is not part 0 of node")) << kind << Join(Check().problems);
  }
}

TEST_F(FileCheckerTest, ABlockUsedTwiceIsFound) {
  MakeIndex(3'000, 0);
  Bytes content = ReadFile(data_);
  const uint64_t block = FindBlock(&content, BlockKind::kTablePage);
  ASSERT_NE(block, 0u);
  auto* words = reinterpret_cast<EntryWord*>(BlockOf(&content, block) + 1);
  uint32_t live[2];
  uint32_t found = 0;
  for (uint32_t i = 0; i < kTablePageEntries && found < 2; ++i) {
    if ((words[i] & kWordLive) != 0) live[found++] = i;
  }
  ASSERT_EQ(found, 2u);
  words[live[1]] = (words[live[1]] & ~EntryWord{0xffffffff}) | WordBlock(words[live[0]]);
  StampBlock(BlockOf(&content, block), 0);
  WriteFile(data_, content);
  EXPECT_TRUE(Mentions(Check(), "is used twice")) << Join(Check().problems);
}

TEST_F(FileCheckerTest, ATruncatedFileIsFound) {
  MakeIndex(3'000, 0);
  const Bytes sound = ReadFile(data_);
  for (uint64_t blocks = sound.size() / kBlockBytes / 2; blocks > 0; blocks /= 2) {
    WriteFile(data_, Bytes(sound.begin(), sound.begin() + static_cast<long>(blocks * kBlockBytes)));
    EXPECT_FALSE(Check().problems.empty()) << blocks;
  }
  WriteFile(data_, Bytes(sound.begin(), sound.end() - 100));
  EXPECT_TRUE(Mentions(Check(), "behind the last whole block"));
  WriteFile(data_, {});
  EXPECT_FALSE(Check().problems.empty());
}

TEST_F(FileCheckerTest, AForeignFileIsNotTakenForAnIndex) {
  WriteFile(data_, Bytes(100'000, 'x'));
  EXPECT_TRUE(Mentions(Check(), "no superblock is valid"));
}

TEST_F(FileCheckerTest, OneDamagedSuperblockIsNotedAndTheOtherServes) {
  MakeIndex(500, 0);
  for (uint64_t slot = 0; slot < kSuperblockSlots; ++slot) {
    const Bytes sound = ReadFile(data_);
    Bytes content = sound;
    content[slot * kBlockBytes + 200] ^= 1;
    WriteFile(data_, content);
    const FileReport report = Check();
    EXPECT_EQ(Join(report.problems), "");
    EXPECT_NE(Join(report.notes).find("not valid"), std::string::npos);
    WriteFile(data_, sound);
  }
}

TEST_F(FileCheckerTest, DamageInTheMiddleOfTheLogIsFound) {
  MakeIndex(500, 600);
  Bytes content = ReadFile(log_);
  // In the first block that holds frames after the checkpoint; later commits prove it was whole.
  uint64_t first = 0;
  uint64_t highest = 0;
  for (uint64_t b = 0; (b + 1) * kBlockBytes <= content.size(); ++b) {
    const BlockHeader* header = BlockOf(&content, b);
    if (header->kind != BlockKind::kLog || header->node_id <= highest) continue;
    highest = header->node_id;
    first = b;
  }
  ASSERT_GT(highest, 0u);
  content[first * kBlockBytes + sizeof(BlockHeader) + 40] ^= 4;
  WriteFile(log_, content);
  EXPECT_TRUE(Mentions(Check(), "is damaged at block")) << Join(Check().problems);
}

TEST_F(FileCheckerTest, LogsHaveTheNamesThatTheirOwnersGiveThem) {
  EXPECT_EQ(LogPathFor("base/5/16400"), "base/5/16400_vm");
  EXPECT_EQ(LogPathFor("base/5/t3_16400"), "base/5/t3_16400_vm");
  EXPECT_EQ(LogPathFor("dir/roads"), "dir/roads_log");
  EXPECT_EQ(LogPathFor("roads2"), "roads2_log");
}

#ifdef XTREE_FSCK
int ExitStatus(const std::string& arguments) {
  const int status = std::system((XTREE_FSCK " " + arguments + " >/dev/null 2>&1").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(FileCheckerTest, TheProgramsExitStatusTells) {
  MakeIndex(500, 100);
  EXPECT_EQ(ExitStatus(data_), 0);
  EXPECT_EQ(ExitStatus("-q " + data_), 0);
  EXPECT_EQ(ExitStatus(data_ + " " + directory_ + "/missing"), 1);
  EXPECT_EQ(ExitStatus(""), 2);
  EXPECT_EQ(ExitStatus("--unknown"), 2);
  EXPECT_EQ(ExitStatus("--help"), 0);
  WriteFile(data_, Bytes(100'000, 'x'));
  EXPECT_EQ(ExitStatus(data_), 1);
}
#endif

}  // namespace
}  // namespace xtree
