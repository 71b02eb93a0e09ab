#include "tools/log_checker.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "log/delta_log.h"
#include "log/log_reader.h"
#include "tools/file_reader.h"

namespace xtree {
namespace {

// What the frames of one segment amount to.
struct SegmentCounts {
  uint32_t blocks = 0;
  uint64_t inserts = 0;
  uint64_t deletes = 0;
  uint64_t commits = 0;
  uint64_t bytes = 0;
  uint64_t lsn_max = 0;
  std::set<uint32_t> timelines;
};

class LogChecker {
 public:
  LogChecker(const FileReader& file, uint64_t start_seq, FileFindings* findings)
      : file_(file), start_seq_(start_seq), say_(findings) {}
  Status Segments();

 private:
  bool Header(const BlockHeader* header, uint32_t block);
  void Frames(const std::byte* block, uint32_t number, SegmentCounts* counts);

  const FileReader& file_;
  const uint64_t start_seq_;
  FileFindings* const say_;
};

// Whether the block has frames; a damaged header is a problem.
bool LogChecker::Header(const BlockHeader* header, uint32_t block) {
  // A header is stored field by field, its CRC last: without one there are no frames yet.
  if (header->kind == BlockKind::kLog ? header->tree == 0
                                      : (uint64_t{header->tree} | header->node_id) == 0) {
    return false;
  }
  if (HasPageHeader(*header) && header->kind == BlockKind::kLog && header->tree == LogHeaderCrc(*header) &&
      header->block_number == block && header->split_dims == block % kLogSegmentBlocks) {
    return true;
  }
  say_->Problem("log block %u has a damaged header", block);
  return false;
}

void LogChecker::Frames(const std::byte* block, uint32_t number, SegmentCounts* counts) {
  const auto* header = reinterpret_cast<const BlockHeader*>(block);
  uint32_t offset = sizeof(BlockHeader);
  while (offset + sizeof(LogFrame) <= kBlockBytes) {
    const auto* frame = reinterpret_cast<const LogFrame*>(block + offset);
    if (frame->bytes < sizeof(LogFrame) || frame->bytes % 8 != 0 ||
        offset + frame->bytes > kBlockBytes ||
        frame->position != LogPosition(number % kLogSegmentBlocks, offset) ||
        frame->crc32c != LogFrameCrc(frame, frame->bytes, header->node_id)) {
      break;
    }
    switch (frame->type) {
      case OpType::kInsert: ++counts->inserts; break;
      case OpType::kDelete: ++counts->deletes; break;
      case OpType::kCommit: ++counts->commits; break;
      default:
        say_->Problem("log block %u, offset %u: unknown operation %u", number, offset,
                      static_cast<unsigned>(frame->type));
    }
    if (frame->type != OpType::kCommit) {
      counts->lsn_max = std::max(counts->lsn_max, frame->lsn);
      counts->timelines.insert(frame->timeline);
    }
    counts->bytes += frame->bytes;
    offset += frame->bytes;
  }
  for (uint32_t i = offset; i < kBlockBytes; ++i) {
    if (block[i] == std::byte{0}) continue;
    say_->Note("log block %u, offset %u: bytes that are no frame", number, offset);
    return;
  }
}

Status LogChecker::Segments() {
  std::map<uint64_t, SegmentCounts> segments;
  std::vector<std::byte> buffer(size_t{kLogSegmentBlocks} * kBlockBytes);
  for (uint32_t first = 0; first < file_.blocks(); first += kLogSegmentBlocks) {
    const uint32_t count = std::min(kLogSegmentBlocks, file_.blocks() - first);
    XT_RETURN_IF_ERROR(file_.Read(first, count, buffer.data()));
    for (uint32_t i = 0; i < count; ++i) {
      const std::byte* block = buffer.data() + size_t{i} * kBlockBytes;
      const auto* header = reinterpret_cast<const BlockHeader*>(block);
      if (!Header(header, first + i)) continue;
      if (header->node_id < start_seq_) continue;  // Free: its last life is over.
      SegmentCounts* counts = &segments[header->node_id];
      ++counts->blocks;
      Frames(block, first + i, counts);
    }
  }
  for (const auto& [sequence, counts] : segments) {
    say_->Note("log sequence %" PRIu64 ": %u blocks, %" PRIu64 " inserts, %" PRIu64
               " deletes, %" PRIu64 " commits, %" PRIu64 " bytes, LSN up to %X/%X, %zu timelines",
               sequence, counts.blocks, counts.inserts, counts.deletes, counts.commits,
               counts.bytes, static_cast<unsigned>(counts.lsn_max >> 32),
               static_cast<unsigned>(counts.lsn_max), counts.timelines.size());
  }
  return Status::Ok();
}

// Files as private copies: what the engine's reader stores into them stays in this process.
class PrivateFiles final : public FileSystem {
 public:
  Result<FileInfo> Stat(const char* path) override { return PosixFileSystem()->Stat(path); }
  Result<std::byte*> Map(const char* path, uint64_t length, bool) override {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Status::FromErrno(errno, "could not open file \"%s\"", path);
    void* base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    const int error = errno;
    close(fd);
    if (base == MAP_FAILED) return Status::FromErrno(error, "could not map file \"%s\"", path);
    return static_cast<std::byte*>(base);
  }
  void Unmap(std::byte* base, uint64_t length) override { munmap(base, length); }
  Status Reserve(const char*, uint64_t, uint64_t) override { return ReadOnly(); }
  Status Punch(const char*, uint64_t, uint64_t) override { return ReadOnly(); }
  Status Truncate(const char*, uint64_t) override { return ReadOnly(); }
  Status Sync(const char*) override { return ReadOnly(); }
  void StartWriteback(const char*, uint64_t, uint64_t) override {}
  Status SyncDirectory(const char*) override { return ReadOnly(); }
  Status Remove(const char*) override { return ReadOnly(); }
  Status CreateDirectory(const char*) override { return ReadOnly(); }

 private:
  static Status ReadOnly() { return Status::Internal("a check does not write"); }
};

// Whether recovery would accept the log.
Status Judge(const std::string& path, const Superblock& superblock) {
  PrivateFiles files;
  WindowBudget budget(4);
  LogShared shared{};
  DeltaLog log(&shared, &files, &budget, path);
  LogReader reader(&log);
  XT_RETURN_IF_ERROR(reader.Open(superblock.log_start_seq, superblock.log_capture_id));
  return reader.Scan(LoadPolicy{});
}

}  // namespace

Status CheckLogFile(const std::string& path, const Superblock& superblock,
                    FileFindings* findings) {
  FileReader file;
  const Status status = file.Open(path);
  if (!status.ok() && status.code() != Code::kNotFound) return status;
  // A standalone index keeps its log file's first blocks; a host makes the file when it needs it.
  const bool standalone = superblock.identity.system_id == 0;
  if (!status.ok() || (standalone && file.blocks() == 0)) {
    if (superblock.log_start_seq == 0) return Status::Ok();
    if (standalone) {
      findings->Problem("the log is missing or empty");
    } else {
      findings->Note("there is no log: nothing to replay");
    }
    return Status::Ok();
  }
  if (file.stray_bytes() != 0) {
    findings->Problem("%" PRIu64 " bytes behind the last whole block of the log",
                      file.stray_bytes());
  }
  LogChecker checker(file, superblock.log_start_seq, findings);
  XT_RETURN_IF_ERROR(checker.Segments());
  if (standalone && superblock.log_start_seq != 0) {
    const Status judged = Judge(path, superblock);
    if (!judged.ok()) findings->Problem("%s", judged.message());
  }
  return Status::Ok();
}

}  // namespace xtree
