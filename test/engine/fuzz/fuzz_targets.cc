#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <string>

#include "fuzz/fuzz_files.h"
#include "store/durable_runtime.h"
#include "store/durable_store.h"
#include "support/epochs.h"
#include "support/log_fixture.h"
#include "tools/file_checker.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr uint64_t kLsnMax = 1u << 30;
constexpr Identity kHostIdentity{1, 2, 3, 4, 0};

struct Files {
  uint8_t flags = 0;
  std::vector<std::byte> data;
  std::vector<std::byte> log;
};

// Makes the CRC of every block fit its content, as if a writer had written the damage.
void RepairData(std::vector<std::byte>* file, bool place) {
  for (size_t at = 0; at + kBlockBytes <= file->size(); at += kBlockBytes) {
    auto* header = reinterpret_cast<BlockHeader*>(file->data() + at);
    if (header->page.size_version != kPageSizeVersion) continue;  // Of no interest to the CRC.
    if (place) header->block_number = static_cast<uint32_t>(at / kBlockBytes);
    if (BlockLsn(*header) != kLsnUnstamped) StampBlock(header, BlockLsn(*header));
  }
}

void RepairLog(std::vector<std::byte>* file) {
  for (size_t at = 0; at + kBlockBytes <= file->size(); at += kBlockBytes) {
    auto* header = reinterpret_cast<BlockHeader*>(file->data() + at);
    if (header->tree == 0) continue;
    header->block_number = static_cast<uint32_t>(at / kBlockBytes);
    header->split_dims = header->block_number % kLogSegmentBlocks;
    header->tree = LogHeaderCrc(*header);
    for (uint32_t offset = sizeof(BlockHeader); offset + sizeof(LogFrame) <= kBlockBytes;) {
      auto* frame = reinterpret_cast<LogFrame*>(file->data() + at + offset);
      if (frame->bytes < sizeof(LogFrame) || offset + frame->bytes > kBlockBytes) break;
      frame->position = LogPosition(header->split_dims, offset);
      frame->crc32c = LogFrameCrc(frame, frame->bytes, header->node_id);
      offset += (frame->bytes + 7u) & ~7u;
    }
  }
}

// False if the input is too short to be two files.
bool Unpack(const uint8_t* input, size_t bytes, Files* files) {
  if (bytes < kFuzzHeaderBytes || bytes > kFuzzInputBytesMax) return false;
  uint32_t header[4];
  std::memcpy(header, input, sizeof(header));
  files->flags = static_cast<uint8_t>(header[0]);
  files->data.resize(std::min(header[1], kFuzzFileBytesMax));
  files->log.resize(std::min(header[2], kFuzzFileBytesMax));
  for (size_t at = kFuzzHeaderBytes; at + 8 < bytes; at += kFuzzRecordBytes) {
    uint32_t place;
    std::memcpy(&place, input + at, sizeof(place));
    auto& file = place & kFuzzInLog ? files->log : files->data;
    const uint64_t offset = uint64_t{place & ~kFuzzInLog} * kBlockBytes;
    if (offset >= file.size()) continue;
    const size_t length =
        std::min({size_t{kBlockBytes}, bytes - at - 8, static_cast<size_t>(file.size() - offset)});
    std::memcpy(file.data() + offset, input + at + 8, length);
  }
  // A part of a block at the end can only be what is left of a reservation by zeros: the simulated disk
  // takes it for data that growth would overwrite.
  for (auto* file : {&files->data, &files->log}) {
    std::fill(file->end() - static_cast<ptrdiff_t>(file->size() % kBlockBytes), file->end(),
              std::byte{0});
  }
  if (files->flags & kRepairData) RepairData(&files->data, files->flags & kRepairPlace);
  if (files->flags & kRepairLog) RepairLog(&files->log);
  return true;
}

Predicate SmallWindow(uint32_t dims) {
  Predicate p = Predicate::All();
  for (uint32_t d = 0; d < dims; ++d) {
    p.lo_max[d] = 60'000;
    p.hi_min[d] = 20'000;
  }
  p.nan_matches = false;
  return p;
}

Key NewKey(uint64_t id) {
  Key key{};
  SimRandom random(id);
  for (uint32_t d = 0; d < kDimsMax; ++d) {
    key.lo[d] = key.hi[d] = static_cast<double>(random.Below(1'000'000)) / 8;
  }
  return key;
}

uint64_t DigestOf(uint64_t id, const double* lo, const double* hi, uint32_t dims) {
  uint64_t digest = SimRandom(id).Next();
  for (uint32_t d = 0; d < dims; ++d) {
    digest = SimRandom(digest ^ std::bit_cast<uint64_t>(lo[d])).Next();
    digest = SimRandom(digest ^ std::bit_cast<uint64_t>(hi[d])).Next();
  }
  return digest;
}

bool WriteTo(Index* index) {
  bool written = true;
  for (uint64_t id = 100'000; id < 100'100; ++id) {
    written = index->Insert(NewKey(id), id).ok() && written;
    bool found = false;
    if (id % 3 == 0) written = index->Delete(NewKey(id - 1), id - 1, &found).ok() && written;
    if (id % 10 == 0) written = index->InsertNull(id).ok() && written;
  }
  written = index->Commit().ok() && written;
  return index->Checkpoint().ok() && written;
}

FuzzOutcome OpenStandalone(SimFileSystem* fs, uint8_t flags) {
  FuzzOutcome outcome;
  SimClock clock;
  RuntimeOptions options;
  options.directory = "/db";
  options.background_checkpoints = false;
  options.fs = fs;
  options.clock = &clock;
  auto runtime = DurableRuntime::Open(options).value();
  auto opened = runtime->OpenIndex("f");
  if (!opened.ok()) return outcome;
  outcome.opened = true;
  Index* index = *opened;
  const uint32_t dims = index->store()->shared()->trees[kTreeMain].spec.dims;
  const auto read = [&](uint64_t* digest) {
    const auto visit = [&](uint64_t id, const double* lo, const double* hi) {
      *digest += DigestOf(id, lo, hi, dims);
    };
    const auto visit_null = [&](uint64_t id, const double*, const double*) {
      *digest += DigestOf(~id, nullptr, nullptr, 0);
    };
    double at[kDimsMax];
    std::fill(at, at + kDimsMax, 50'000);
    std::vector<std::string> problems;
    bool ok = index->Search(SmallWindow(dims), visit).ok();
    ok = index->Search(Predicate::All(), visit).ok() && ok;
    ok = index->SearchNull(visit_null).ok() && ok;
    const auto measure = [&](uint64_t, double d) { *digest += DigestOf(0, &d, &d, 1); };
    ok = index->Nearest(at, 100, measure).ok() && ok;
    ok = index->Check(&problems).ok() && ok;
    return ok;
  };
  outcome.searched = read(&outcome.digest);
  if (flags & kWriteToo) {
    outcome.written = WriteTo(index);
    uint64_t ignored = 0;
    (void)read(&ignored);
  }
  return outcome;
}

FuzzOutcome OpenAsHost(SimFileSystem* fs) {
  FuzzOutcome outcome;
  WindowBudget budget(8);
  Epochs epochs(4);
  auto shared = std::make_unique<IndexShared>();
  DurableStore store(shared.get(), fs, &budget, epochs.get(), "/db/f", "/db/f_log",
                     ChunkSource::kHeap);
  const TimelineEnd ended{1, 0, 45'000};
  LoadPolicy policy;
  policy.host = true;
  policy.current_timeline = 2;
  policy.timelines = &ended;
  policy.timeline_count = 1;
  policy.lsn_max = kLsnMax;
  policy.identity = kHostIdentity;
  if (!store.Load(policy).ok()) return outcome;
  outcome.opened = true;
  EpochReader reader(epochs.get(), 0);
  outcome.searched = true;
  std::vector<uint64_t> ids(kScanBatchMin);
  for (uint32_t tree = 0; tree < kTrees; ++tree) {
    WindowScan scan(&store);
    Status status = scan.Begin(&reader, tree, Predicate::All());
    for (uint32_t n = 1; status.ok() && n > 0;) {
      status = scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, true, &n);
      for (uint32_t i = 0; i < n; ++i) outcome.digest += DigestOf(ids[i], nullptr, nullptr, 0);
    }
    outcome.searched = outcome.searched && status.ok();
  }
  return outcome;
}

// A file of memory that can be opened by name, since the checker reads real files only.
class NamedMemory {
 public:
  explicit NamedMemory(const std::vector<std::byte>& content)
      : fd_(memfd_create("xtree-fuzz", MFD_CLOEXEC)) {
    XT_ASSERT(fd_ >= 0);
    XT_ASSERT(write(fd_, content.data(), content.size()) ==
              static_cast<ssize_t>(content.size()));
  }
  ~NamedMemory() { close(fd_); }
  NamedMemory(const NamedMemory&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  const int fd_;
};

}  // namespace

FuzzOutcome OpenFuzzedFiles(const uint8_t* input, size_t bytes) {
  Files files;
  if (!Unpack(input, bytes, &files)) return {};
  SimFileSystem fs;
  XT_ASSERT(fs.CreateDirectory("/db").ok());
  fs.Load({{"/db/f", files.data}, {"/db/f_log", files.log}});
  return files.flags & kHostPolicy ? OpenAsHost(&fs) : OpenStandalone(&fs, files.flags);
}

bool CheckFuzzedFiles(const uint8_t* input, size_t bytes) {
  Files files;
  if (!Unpack(input, bytes, &files)) return false;
  const NamedMemory data(files.data);
  const NamedMemory log(files.log);
  FileReport report;
  const Status status = CheckIndexFiles(data.path(), log.path(), &report);
  return status.ok() && report.problems.empty();
}

void ReadFuzzedLog(const uint8_t* input, size_t bytes) {
  Files files;
  if (!Unpack(input, bytes, &files)) return;
  // The start that a superblock would name: that of the log's first block, if there is one.
  uint64_t start_seq = 1, capture = LogFixture::kCapture;
  if (files.log.size() >= kBlockBytes) {
    const auto* header = reinterpret_cast<const BlockHeader*>(files.log.data());
    start_seq = std::max<uint64_t>(header->node_id, 1);
    capture = header->birth_epoch;
  }
  LogFixture fixture;
  const uint64_t reserved = std::max<uint64_t>(files.log.size(), 1);
  XT_ASSERT(fixture.fs.Reserve("log", 0, reserved).ok());
  XT_ASSERT(fixture.fs.Truncate("log", files.log.size()).ok());
  auto mapped = fixture.fs.Map("log", kWindowBytes, true);
  XT_ASSERT(mapped.ok());
  std::copy(files.log.begin(), files.log.end(), *mapped);
  const TimelineEnd ended{1, 0, 45'000};
  LoadPolicy policy;
  policy.host = files.flags & kHostPolicy;
  policy.current_timeline = policy.host ? 2 : 1;
  policy.timelines = &ended;
  policy.timeline_count = 1;
  std::vector<uint64_t> before, after;
  if (!fixture.Recover(policy, &before, start_seq, capture).ok()) return;
  // What was read is what will be read again, with what is appended now behind it.
  for (uint64_t v = 0; v < 200; ++v) {
    if (!fixture.Append(v, policy.host ? 1 : 0).ok()) return;
  }
  if (!policy.host && !fixture.Commit().ok()) return;
  XT_ASSERT(fixture.Recover(policy, &after, start_seq, capture).ok());
  XT_ASSERT(after.size() == before.size() + 200);
  XT_ASSERT(std::equal(before.begin(), before.end(), after.begin()));
}

}  // namespace xtree
