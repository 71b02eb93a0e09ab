#include "segment/block.h"

#include <cstring>

#include "io/crc32c.h"

namespace xtree {

namespace {

uint32_t BlockCrc(const BlockHeader* header) {
  // The excluded fields count as zeros, so that the host may set LSN and checksum on its own.
  BlockHeader copy;
  std::memcpy(&copy, header, sizeof(copy));
  copy.page.lsn_high = 0;
  copy.page.lsn_low = 0;
  copy.page.checksum = 0;
  copy.crc32c = 0;
  const uint32_t crc = Crc32c(0, &copy, sizeof(copy));
  return Crc32c(crc, reinterpret_cast<const std::byte*>(header) + sizeof(copy),
                kBlockPayloadBytes);
}

void SetLsn(BlockHeader* header, uint64_t lsn) {
  header->page.lsn_high = static_cast<uint32_t>(lsn >> 32);
  header->page.lsn_low = static_cast<uint32_t>(lsn);
}

}  // namespace

void InitBlock(BlockHeader* header, BlockKind kind, uint32_t block_number) {
  header->page = PageHeader{};
  header->page.lower = kBlockBytes;
  header->page.upper = kBlockBytes;
  header->page.special = kBlockBytes;
  header->page.size_version = kPageSizeVersion;
  SetLsn(header, kLsnUnstamped);
  header->crc32c = 0;
  header->kind = kind;
  header->block_number = block_number;
}

void StampBlock(BlockHeader* header, uint64_t lsn) {
  XT_ASSERT(lsn != kLsnUnstamped);
  XT_ASSERT(header->page.size_version == kPageSizeVersion);
  // The CRC first: a block whose LSN says "stamped" must never carry an old CRC, not even in a
  // page that the kernel writes back between the two stores.
  header->crc32c = BlockCrc(header);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  SetLsn(header, lsn);
}

void MarkUnstamped(BlockHeader* header) {
  for (uint32_t* half : {&header->page.lsn_high, &header->page.lsn_low}) {
    std::atomic_ref<uint32_t>(*half).store(~uint32_t{0}, std::memory_order_relaxed);
  }
}

bool HasPageHeader(const BlockHeader& header) {
  const PageHeader& page = header.page;
  return page.size_version == kPageSizeVersion && page.lower == kBlockBytes &&
         page.upper == kBlockBytes && page.special == kBlockBytes;
}

bool VerifyBlock(const BlockHeader* header, uint32_t block_number, const char** why) {
  const PageHeader& page = header->page;
  if (page.size_version == 0 && page.upper == 0) {
    *why = "the block is empty";
    return false;
  }
  if (!HasPageHeader(*header)) {
    *why = "the page header is invalid";
    return false;
  }
  if (BlockLsn(*header) == kLsnUnstamped) {
    *why = "the block was never completed";
    return false;
  }
  if (header->crc32c != BlockCrc(header)) {
    *why = "the checksum does not match";
    return false;
  }
  if (header->block_number != block_number) {
    *why = "the block belongs to another place";
    return false;
  }
  *why = nullptr;
  return true;
}

}  // namespace xtree
