// Goal: of two superblock slots the newest whole one is chosen, and everything else is refused with
// the right reason.
// Method: slots in memory; every single byte is flipped in turn.
#include "checkpoint/superblock.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace xtree {
namespace {

Superblock Content(uint64_t sequence) {
  Superblock content;
  std::memset(static_cast<void*>(&content), 0, sizeof(content));
  content.sequence = sequence;
  content.identity = Identity{1, 2, 3, 4, 0};
  content.capture_id = sequence * 10;
  content.capture_lsn = 500;
  content.epoch = sequence;
  content.leaf_fill_percent = 90;
  for (SuperblockTree& tree : content.trees) tree.dims = 2;
  return content;
}

class SuperblockTest : public ::testing::Test {
 protected:
  SuperblockTest() : slots_(2 * kBlockBytes) {
    WriteSuperblock(Content(7), 0, slot(0));
    WriteSuperblock(Content(8), 1, slot(1));
  }
  std::byte* slot(uint32_t i) { return slots_.data() + i * kBlockBytes; }
  Status Choose(const Identity* identity = nullptr, uint64_t lsn_max = ~uint64_t{0}) {
    return ChooseSuperblock(slot(0), slot(1), "file", identity, lsn_max, &chosen_, &slot_);
  }
  std::vector<std::byte> slots_;
  Superblock chosen_;
  uint32_t slot_ = 99;
};

TEST_F(SuperblockTest, TheHigherSequenceWins) {
  ASSERT_TRUE(Choose().ok());
  EXPECT_EQ(slot_, 1u);
  EXPECT_EQ(chosen_.capture_id, 80u);
  WriteSuperblock(Content(9), 0, slot(0));
  ASSERT_TRUE(Choose().ok());
  EXPECT_EQ(slot_, 0u);
  EXPECT_EQ(chosen_.sequence, 9u);
}

TEST_F(SuperblockTest, AFlipOfAnyByteLeavesTheOtherSlotOrChangesNothing) {
  for (uint32_t at = 0; at < kBlockBytes; ++at) {
    slot(1)[at] ^= std::byte{0x40};
    ASSERT_TRUE(Choose().ok()) << at;
    // LSN and host checksum are the host's business; every other byte is covered.
    if (at >= 10) {
      EXPECT_EQ(chosen_.sequence, 7u) << at;
    }
    slot(1)[at] ^= std::byte{0x40};
  }
}

TEST_F(SuperblockTest, ASlotOfTheWrongPlaceDoesNotCount) {
  std::memcpy(slot(0), slot(1), kBlockBytes);
  ASSERT_TRUE(Choose().ok());
  EXPECT_EQ(slot_, 1u);
}

TEST_F(SuperblockTest, ZerosAreACreationThatNeverCompleted) {
  std::fill(slots_.begin(), slots_.end(), std::byte{0});
  EXPECT_EQ(Choose().code(), Code::kNotFound);
  slot(0)[5000] = std::byte{1};
  EXPECT_EQ(Choose().code(), Code::kCorruption);
}

TEST_F(SuperblockTest, OtherVersionsAreUnsupported) {
  for (uint32_t i = 0; i < 2; ++i) {
    reinterpret_cast<Superblock*>(slot(i))->version = kFormatVersion + 1;
  }
  EXPECT_EQ(Choose().code(), Code::kUnsupported);
  for (uint32_t i = 0; i < 2; ++i) reinterpret_cast<Superblock*>(slot(i))->version = 0;
  EXPECT_EQ(Choose().code(), Code::kUnsupported);
}

TEST_F(SuperblockTest, OlderVersionsAreRead) {
  for (uint32_t i = 0; i < 2; ++i) {
    auto* superblock = reinterpret_cast<Superblock*>(slot(i));
    superblock->version = kFormatVersionOldest;
    StampBlock(&superblock->header, BlockLsn(superblock->header));
  }
  EXPECT_TRUE(Choose().ok());
}

TEST_F(SuperblockTest, TheBrokenMarkOfEitherSlotCounts) {
  Superblock content = Content(7);
  content.broken = 1;
  WriteSuperblock(content, 0, slot(0));
  EXPECT_EQ(Choose().code(), Code::kBroken);
}

TEST_F(SuperblockTest, IdentityAndLsnAreComparedWhenAsked) {
  Identity identity{1, 2, 3, 4, 0};
  EXPECT_TRUE(Choose(&identity, 500).ok());
  EXPECT_EQ(Choose(&identity, 499).code(), Code::kBroken);
  identity.database = 9;  // A copy: the caller decides.
  EXPECT_TRUE(Choose(&identity).ok());
  EXPECT_FALSE(SameIdentity(chosen_.identity, identity));
  identity.system_id = 9;
  EXPECT_EQ(Choose(&identity).code(), Code::kBroken);
}

TEST_F(SuperblockTest, ContentThatCannotBeIsCorrupt) {
  Superblock content = Content(9);
  content.trees[0].dims = 33;
  WriteSuperblock(content, 0, slot(0));
  EXPECT_EQ(Choose().code(), Code::kCorruption);
  content = Content(10);
  content.table_pages = 5;
  WriteSuperblock(content, 0, slot(0));
  EXPECT_EQ(Choose().code(), Code::kCorruption);
  // What marks a block that has no LSN yet; whatever took it on would be such a block.
  WriteSuperblock(Content(11), 0, slot(0));
  auto* written = reinterpret_cast<Superblock*>(slot(0));
  written->capture_lsn = kLsnUnstamped;
  StampBlock(&written->header, 500);
  EXPECT_EQ(Choose().code(), Code::kCorruption);
}

TEST_F(SuperblockTest, CaptureIdsDiffer) { EXPECT_NE(NewCaptureId(), NewCaptureId()); }

}  // namespace
}  // namespace xtree
