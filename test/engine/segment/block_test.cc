// Goal: a block that was not written as a whole, or not here, is noticed; and the host accepts it.
// Method: stamp a block of random payload, then damage each of its bytes in turn.
#include "segment/block.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace xtree {
namespace {

struct alignas(8) Block {
  std::byte bytes[kBlockBytes] = {};
  BlockHeader* header() { return reinterpret_cast<BlockHeader*>(bytes); }
};

void Fill(Block* block, uint32_t number) {
  std::mt19937_64 random(number);
  for (size_t i = sizeof(BlockHeader); i < kBlockBytes; ++i) {
    block->bytes[i] = static_cast<std::byte>(random());
  }
  InitBlock(block->header(), BlockKind::kLeaf, number);
  block->header()->node_id = 77;
}

TEST(Block, HasThePageHeaderOfAHostPageWithoutFreeSpace) {
  Block block;
  Fill(&block, 5);
  const auto* words = reinterpret_cast<const uint16_t*>(block.bytes);
  EXPECT_EQ(words[5], 0);                  // pd_flags
  EXPECT_EQ(words[6], 8192);               // pd_lower
  EXPECT_EQ(words[7], 8192);               // pd_upper
  EXPECT_EQ(words[8], 8192);               // pd_special
  EXPECT_EQ(words[9], 8192 | 4);           // pd_pagesize_version
  EXPECT_EQ(BlockLsn(*block.header()), kLsnUnstamped);
}

TEST(Block, StoresTheLsnMostSignificantHalfFirst) {
  Block block;
  Fill(&block, 5);
  StampBlock(block.header(), 0x1122334455667788);
  EXPECT_EQ(block.header()->page.lsn_high, 0x11223344u);
  EXPECT_EQ(block.header()->page.lsn_low, 0x55667788u);
  EXPECT_EQ(BlockLsn(*block.header()), 0x1122334455667788u);
}

TEST(Block, VerifiesAfterStampingAndNotBefore) {
  Block block;
  const char* why;
  EXPECT_FALSE(VerifyBlock(block.header(), 5, &why));
  EXPECT_STREQ(why, "the block is empty");
  Fill(&block, 5);
  EXPECT_FALSE(VerifyBlock(block.header(), 5, &why));
  EXPECT_STREQ(why, "the block was never completed");
  StampBlock(block.header(), 0);
  EXPECT_TRUE(VerifyBlock(block.header(), 5, &why));
  MarkUnstamped(block.header());
  EXPECT_FALSE(VerifyBlock(block.header(), 5, &why));
}

TEST(Block, NoticesThatItStandsInAnotherPlace) {
  Block block;
  const char* why;
  Fill(&block, 5);
  StampBlock(block.header(), 9);
  EXPECT_FALSE(VerifyBlock(block.header(), 6, &why));
  EXPECT_STREQ(why, "the block belongs to another place");
}

TEST(Block, LetsTheHostSetLsnAndChecksum) {
  Block block;
  const char* why;
  Fill(&block, 5);
  StampBlock(block.header(), 9);
  block.header()->page.lsn_high = 1;
  block.header()->page.lsn_low = 2;
  block.header()->page.checksum = 3;
  EXPECT_TRUE(VerifyBlock(block.header(), 5, &why));
}

TEST(Block, NoticesDamageToAnyByteThatIsNotTheHosts) {
  Block block;
  Fill(&block, 5);
  StampBlock(block.header(), 9);
  for (uint32_t i = 0; i < kBlockBytes; ++i) {
    const bool hosts = i < 10;  // LSN and checksum.
    for (uint8_t flip : {0x01, 0x80}) {
      block.bytes[i] ^= std::byte{flip};
      const char* why;
      EXPECT_EQ(VerifyBlock(block.header(), 5, &why), hosts) << "byte " << i;
      block.bytes[i] ^= std::byte{flip};
    }
  }
}

}  // namespace
}  // namespace xtree
