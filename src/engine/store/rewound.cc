#include "store/rewound.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <vector>

#include "checkpoint/superblock.h"
#include "io/mapping_guard.h"
#include "log/delta_log.h"
#include "tools/file_reader.h"

namespace xtree {
namespace {

constexpr uint32_t kReadBlocks = kLogSegmentBlocks;

// What a log segment's block headers say.
struct LogPart {
  uint64_t sequence = 0;
  uint64_t built_on = 0;
};

// Blocks of the segment's present life must follow each other from the first on; `dense` says so.
LogPart ReadLogPart(const std::byte* blocks, uint32_t count, bool* dense) {
  LogPart part;
  uint32_t last = 0, present = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const auto* header = reinterpret_cast<const BlockHeader*>(blocks + uint64_t{i} * kBlockBytes);
    if (header->tree == 0) continue;
    if (header->kind != BlockKind::kLog || header->tree != LogHeaderCrc(*header)) {
      *dense = false;
      return part;
    }
    if (header->node_id > part.sequence) {
      part = LogPart{header->node_id, header->birth_epoch};
      present = 0;
    }
    if (header->node_id != part.sequence) continue;
    ++present;
    last = i;
  }
  if (present != 0 && present != last + 1) *dense = false;
  return part;
}

Status ReadSuperblock(const std::string& path, Superblock* content) {
  FileReader reader;
  XT_RETURN_IF_ERROR(reader.Open(path));
  if (reader.blocks() < kSuperblockSlots) {
    return Status::NotFound("file \"%s\" has no superblocks", path.c_str());
  }
  std::vector<std::byte> slots(kSuperblockSlots * kBlockBytes);
  XT_RETURN_IF_ERROR(reader.Read(0, kSuperblockSlots, slots.data()));
  uint32_t slot = 0;
  const Status status = ChooseSuperblock(slots.data(), slots.data() + kBlockBytes, path.c_str(),
                                         nullptr, ~uint64_t{0}, content, &slot);
  // Marked already, or no index: in both cases there is nothing left to find out.
  if (!status.ok()) return Status::NotFound("%s", status.message());
  return status;
}

std::string Describe(const char* format, uint64_t a, uint64_t b) {
  char text[160];
  std::snprintf(text, sizeof(text), format, a, b);
  return text;
}

}  // namespace

Status CheckRewound(const std::string& data_path, const std::string& log_path, bool* whole,
                    std::string* why) {
  *whole = false;
  Superblock content;
  XT_RETURN_IF_ERROR(ReadSuperblock(data_path, &content));
  FileReader log;
  const Status opened = log.Open(log_path);
  if (!opened.ok() && opened.code() != Code::kNotFound) return opened;
  const uint32_t blocks = opened.ok() ? log.blocks() : 0;
  const uint64_t start = content.log_start_seq != 0 ? content.log_start_seq : 1;
  std::vector<LogPart> parts;
  std::vector<std::byte> buffer(uint64_t{kReadBlocks} * kBlockBytes);
  bool dense = true;
  for (uint32_t first = 0; first < blocks; first += kReadBlocks) {
    const uint32_t count = std::min(kReadBlocks, blocks - first);
    XT_RETURN_IF_ERROR(log.Read(first, count, buffer.data()));
    const LogPart part = ReadLogPart(buffer.data(), count, &dense);
    if (part.sequence >= start) parts.push_back(part);
  }
  std::sort(parts.begin(), parts.end(),
            [](const LogPart& a, const LogPart& b) { return a.sequence < b.sequence; });
  for (size_t i = 0; i < parts.size(); ++i) dense &= parts[i].sequence == start + i;
  if (parts.empty()) {
    *why = Describe("the log does not name capture %016" PRIx64 ", which the data file holds",
                    content.capture_id, 0);
  } else if (!dense) {
    *why = Describe("the log lacks segments or blocks from sequence %" PRIu64 " on", start, 0);
  } else if (parts[0].built_on != content.log_capture_id) {
    *why = Describe("the log builds on capture %016" PRIx64 ", the data file holds %016" PRIx64,
                    parts[0].built_on, content.log_capture_id);
  } else {
    *whole = true;
  }
  return Status::Ok();
}

Status MarkFileBroken(FileSystem* fs, const std::string& data_path) {
  constexpr uint64_t kBytes = kSuperblockSlots * kBlockBytes;
  XT_ASSIGN_OR_RETURN(const FileInfo info, fs->Stat(data_path.c_str()));
  if (info.size_bytes < kBytes) {
    return Status::NotFound("file \"%s\" has no superblocks", data_path.c_str());
  }
  const GuardedMapping mapping(fs, data_path.c_str(), kBytes);
  XT_RETURN_IF_ERROR(mapping.status());
  for (uint32_t slot = 0; slot < kSuperblockSlots; ++slot) {
    std::byte* block = mapping.base() + slot * kBlockBytes;
    if (!CheckSuperblock(block, slot, data_path.c_str()).ok()) continue;
    Superblock content;
    std::memcpy(static_cast<void*>(&content), block, sizeof(content));
    content.broken = 1;
    WriteSuperblock(content, slot, block);
  }
  if (mapping.faulted()) {
    return Status::Make(Code::kIoError, "the superblocks of file \"%s\" could not be read",
                        data_path.c_str());
  }
  return fs->Sync(data_path.c_str());
}

}  // namespace xtree
