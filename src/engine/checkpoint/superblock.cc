#include "checkpoint/superblock.h"

#include <cinttypes>
#include <cstring>
#include <random>

#include "io/clock.h"

namespace xtree {
namespace {

bool IsZero(const void* block) {
  const auto* bytes = static_cast<const unsigned char*>(block);
  for (uint32_t i = 0; i < kBlockBytes; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

Status CheckContent(const Superblock& content, const char* path) {
  if (content.table_pages > 0 && content.directory_count == 0) {
    return Status::Corruption("superblock of file \"%s\" names %u table pages but no directory",
                              path, content.table_pages);
  }
  if (content.capture_lsn == kLsnUnstamped) {
    return Status::Corruption("superblock of file \"%s\" has an LSN that nothing has", path);
  }
  if (content.directory_count > kDirectoryBlocksMax) {
    return Status::Corruption("superblock of file \"%s\" has %u directory blocks, at most %u are "
                              "possible", path, content.directory_count, kDirectoryBlocksMax);
  }
  for (const SuperblockTree& tree : content.trees) {
    if (tree.dims == 0 || tree.dims > kDimsMax || tree.coord > CoordType::kF32 ||
        tree.kind > KeyKind::kPoint) {
      return Status::Corruption("superblock of file \"%s\" has a tree of %u dimensions, coordinate "
                                "type %u, kind %u", path, tree.dims,
                                static_cast<unsigned>(tree.coord),
                                static_cast<unsigned>(tree.kind));
    }
  }
  return Status::Ok();
}

}  // namespace

bool SameIdentity(const Identity& a, const Identity& b) {
  return a.system_id == b.system_id && a.tablespace == b.tablespace && a.database == b.database &&
         a.relation == b.relation && a.backend == b.backend;
}

void WriteSuperblock(const Superblock& content, uint32_t slot, void* block) {
  XT_ASSERT(slot < kSuperblockSlots && content.directory_count <= kDirectoryBlocksMax);
  auto* bytes = static_cast<std::byte*>(block);
  auto* header = reinterpret_cast<BlockHeader*>(bytes);
  // A reader of the file (a base backup) must not take a half-written slot for a stamped one.
  MarkUnstamped(header);
  std::memset(bytes + sizeof(BlockHeader), 0, kBlockBytes - sizeof(BlockHeader));
  std::memcpy(bytes + sizeof(BlockHeader),
              reinterpret_cast<const std::byte*>(&content) + sizeof(BlockHeader),
              sizeof(Superblock) - sizeof(BlockHeader));
  auto* written = reinterpret_cast<Superblock*>(bytes);
  std::memset(bytes, 0, sizeof(BlockHeader));
  InitBlock(header, BlockKind::kSuperblock, slot);
  written->magic = kSuperblockMagic;
  written->version = kFormatVersion;
  StampBlock(header, content.capture_lsn);
}

Status CheckSuperblock(const void* block, uint32_t slot, const char* path) {
  const auto* superblock = static_cast<const Superblock*>(block);
  if (superblock->magic != kSuperblockMagic) {
    if (IsZero(block)) {
      return Status::NotFound("file \"%s\" has no superblock in slot %u", path, slot);
    }
    return Status::Corruption("file \"%s\" is not an xtree index: block %u has magic number "
                              "%016" PRIx64, path, slot, superblock->magic);
  }
  if (superblock->version < kFormatVersionOldest || superblock->version > kFormatVersion) {
    return Status::Make(Code::kUnsupported,
                        "file \"%s\" has format version %u, this build reads versions %u to %u", path,
                        superblock->version, kFormatVersionOldest, kFormatVersion);
  }
  const char* why = nullptr;
  if (superblock->header.kind != BlockKind::kSuperblock ||
      !VerifyBlock(&superblock->header, slot, &why)) {
    return Status::Corruption("superblock in block %u of file \"%s\" is damaged: %s", slot, path,
                              why != nullptr ? why : "wrong kind of block");
  }
  return Status::Ok();
}

Status ChooseSuperblock(const void* slot0, const void* slot1, const char* path,
                        const Identity* identity, uint64_t lsn_max, Superblock* chosen,
                        uint32_t* slot) {
  Status status[kSuperblockSlots] = {CheckSuperblock(slot0, 0, path),
                                     CheckSuperblock(slot1, 1, path)};
  const Superblock* blocks[kSuperblockSlots] = {static_cast<const Superblock*>(slot0),
                                                static_cast<const Superblock*>(slot1)};
  if (!status[0].ok() && !status[1].ok()) {
    return status[0].code() == Code::kNotFound ? status[1] : status[0];
  }
  if (!status[0].ok()) {
    *slot = 1;
  } else {
    *slot = status[1].ok() && blocks[1]->sequence > blocks[0]->sequence ? 1 : 0;
  }
  std::memcpy(static_cast<void*>(chosen), blocks[*slot], sizeof(*chosen));
  XT_RETURN_IF_ERROR(CheckContent(*chosen, path));
  // Either slot's mark counts: the other may have been torn while the mark was written.
  for (uint32_t i = 0; i < kSuperblockSlots; ++i) {
    if (status[i].ok() && blocks[i]->broken != 0) {
      return Status::Make(Code::kBroken, "file \"%s\" is marked broken", path);
    }
  }
  if (identity != nullptr && chosen->identity.system_id != identity->system_id) {
    return Status::Make(Code::kBroken,
                        "file \"%s\" belongs to system %" PRIu64 ", not to system %" PRIu64, path,
                        chosen->identity.system_id, identity->system_id);
  }
  if (chosen->capture_lsn > lsn_max) {
    return Status::Make(Code::kBroken,
                        "file \"%s\" holds operations up to LSN %" PRIX64 ", the log of the server "
                        "ends at %" PRIX64, path, chosen->capture_lsn, lsn_max);
  }
  return Status::Ok();
}

uint64_t NewCaptureId() {
  std::random_device device;
  uint64_t id = 0;
  while (id == 0) {
    id = (uint64_t{device()} << 32 | device()) ^ SystemClock()->NowMicros() << 20;
  }
  return id;
}

}  // namespace xtree
