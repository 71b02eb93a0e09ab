#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "fuzz/fuzz_files.h"
#include "store/durable_runtime.h"
#include "store/durable_store.h"
#include "support/epochs.h"

namespace xtree {
namespace {

struct SeedKind {
  KeySpec spec;
  uint32_t fill_percent;
  uint64_t bulk;        // Entries in the capture, packed,
  uint64_t inserted;    // and inserted one by one.
  uint64_t logged;      // Operations behind it.
  bool fine = false;    // Some of the keys have more digits than decimal leaves hold.
};
// Planar boxes; solid points; nodes of several blocks; nothing but a log; three levels; leaves of both kinds.
constexpr SeedKind kKinds[kFuzzSeeds - 1] = {
    {{2, CoordType::kF64, KeyKind::kBox}, 90, 400, 100, 60},
    {{3, CoordType::kF32, KeyKind::kPoint}, 90, 500, 0, 60},
    {{16, CoordType::kF64, KeyKind::kBox}, 90, 150, 0, 30},
    {{2, CoordType::kF64, KeyKind::kPoint}, 90, 0, 0, 300},
    {{20, CoordType::kF32, KeyKind::kPoint}, 10, 500, 0, 20},
    {{2, CoordType::kF64, KeyKind::kBox}, 90, 400, 200, 60, true},
};

Key SeedKey(uint64_t id, const KeySpec& spec, bool fine = false) {
  Key key{};
  SimRandom random(id);
  fine = fine && random.Coin();
  // Logs pack eighths as f32, tenths as decimals.
  const double unit = spec.coord == CoordType::kF64 && id % 2 == 0 ? 10 : 8;
  for (uint32_t d = 0; d < spec.dims; ++d) {
    double lo = static_cast<double>(random.Below(1'000'000));
    // Apart, so that some leaves have none of them; in the middle both meet.
    if (fine) lo = 800'000 + lo / 7;
    const double hi = spec.kind == KeyKind::kPoint ? lo : lo + unit * static_cast<double>(random.Below(100));
    key.lo[d] = lo / unit;
    key.hi[d] = hi / unit;
  }
  return key;
}

void PackFile(const std::vector<std::byte>& file, uint32_t in_log, FuzzInput* input) {
  for (size_t at = 0; at + kBlockBytes <= file.size(); at += kBlockBytes) {
    const auto* block = reinterpret_cast<const uint8_t*>(file.data()) + at;
    if (std::all_of(block, block + kBlockBytes, [](uint8_t b) { return b == 0; })) continue;
    const uint32_t place[2] = {static_cast<uint32_t>(at / kBlockBytes) | in_log, 0};
    const auto* bytes = reinterpret_cast<const uint8_t*>(place);
    input->insert(input->end(), bytes, bytes + sizeof(place));
    input->insert(input->end(), block, block + kBlockBytes);
  }
}

FuzzInput Pack(const SimFileSystem::Image& image, const std::string& data, const std::string& log,
               uint32_t flags) {
  const uint32_t header[4] = {flags, static_cast<uint32_t>(image.at(data).size()),
                              static_cast<uint32_t>(image.at(log).size()), 0};
  FuzzInput input(sizeof(header));
  std::memcpy(input.data(), header, sizeof(header));
  PackFile(image.at(data), 0, &input);
  PackFile(image.at(log), kFuzzInLog, &input);
  return input;
}

FuzzInput StandaloneSeed(const SeedKind& kind) {
  SimFileSystem fs;
  SimClock clock;
  RuntimeOptions options;
  options.directory = "/db";
  options.background_checkpoints = false;
  options.fs = &fs;
  options.clock = &clock;
  {
    auto runtime = DurableRuntime::Open(options).value();
    IndexOptions index_options;
    index_options.spec = kind.spec;
    index_options.leaf_fill_percent = kind.fill_percent;
    Index* index = runtime->CreateIndex("seed", index_options).value();
    const uint32_t dims = kind.spec.dims;
    std::vector<double> lo, hi;
    std::vector<uint64_t> ids;
    for (uint64_t id = 1; id <= kind.bulk; ++id) {
      const Key key = SeedKey(id, kind.spec, kind.fine);
      lo.insert(lo.end(), key.lo, key.lo + dims);
      hi.insert(hi.end(), key.hi, key.hi + dims);
      ids.push_back(id);
    }
    const double* corners = kind.spec.kind == KeyKind::kPoint ? nullptr : hi.data();
    if (kind.bulk > 0) XT_ASSERT(index->BulkLoad(lo.data(), corners, ids.data(), ids.size(), 1).ok());
    const uint64_t capture_end = kind.bulk + kind.inserted;
    for (uint64_t id = kind.bulk + 1; id <= capture_end; ++id) {
      XT_ASSERT(index->Insert(SeedKey(id, kind.spec, kind.fine), id).ok());
    }
    for (uint64_t id = 1; kind.bulk > 0 && id <= 20; ++id) XT_ASSERT(index->InsertNull(id).ok());
    if (capture_end > 0) XT_ASSERT(index->Checkpoint().ok());
    for (uint64_t i = 1; i <= kind.logged; ++i) {
      const uint64_t id = capture_end + i;
      XT_ASSERT(index->Insert(SeedKey(id, kind.spec, kind.fine), id).ok());
      bool found = false;
      if (i % 5 == 0) {
        XT_ASSERT(index->Delete(SeedKey(id - 3, kind.spec, kind.fine), id - 3, &found).ok() && found);
      }
      if (i % 7 == 0) XT_ASSERT(index->InsertNull(id).ok());
      if (i % 10 == 0) XT_ASSERT(index->Commit().ok());
    }
  }
  return Pack(fs.Contents(), "/db/seed", "/db/seed_log", 0);
}

// As a host leaves it: operations carry LSNs, and nothing is committed by the engine.
FuzzInput HostSeed() {
  SimFileSystem fs;
  XT_ASSERT(fs.CreateDirectory("/db").ok());
  WindowBudget budget(8);
  Epochs epochs(4);
  {
    auto shared = std::make_unique<IndexShared>();
    DurableStore store(shared.get(), &fs, &budget, epochs.get(), "/db/1", "/db/1_vm",
                       ChunkSource::kHeap);
    IndexOptions options;
    const KeySpec& spec = options.spec;
    XT_ASSERT(store.Create(options, Identity{1, 2, 3, 4, 0}, 1).ok());
    for (uint64_t id = 1; id <= 500; ++id) {
      const Key key = SeedKey(id, spec);
      XT_ASSERT(store.details()->PrepareInsert(&key, id).ok());
      store.details()->Apply(id * 100);
      if (id != 400) continue;
      bool done = false;
      XT_ASSERT(store.FoldBegin().ok());
      while (!done) XT_ASSERT(store.FoldWrite(64, &done).ok());
      XT_ASSERT(store.FoldPublish().ok());
      store.FoldEnd(true);
    }
  }
  return Pack(fs.Contents(), "/db/1", "/db/1_vm", kHostPolicy);
}

}  // namespace

FuzzInput MakeFuzzSeed(uint32_t number) {
  XT_ASSERT(number < kFuzzSeeds);
  return number < kFuzzSeeds - 1 ? StandaloneSeed(kKinds[number]) : HostSeed();
}

// --- Mutations.

namespace {

// A place that matters more often than its share: superblocks, block headers, the first bytes behind
// them.
size_t ChoosePlace(SimRandom* random, size_t bytes) {
  const size_t records = (bytes - kFuzzHeaderBytes) / kFuzzRecordBytes;
  const size_t content = kFuzzHeaderBytes + random->Below(records) * kFuzzRecordBytes + 8;
  if (random->Below(3) == 0) return content + random->Below(kBlockBytes);
  return content + (random->Coin() ? 24 + random->Below(40) : 64 + random->Below(256));
}

size_t ChooseRecord(SimRandom* random, size_t bytes) {
  return kFuzzHeaderBytes +
         random->Below((bytes - kFuzzHeaderBytes) / kFuzzRecordBytes) * kFuzzRecordBytes;
}

uint64_t InterestingNumber(SimRandom* random) {
  switch (random->Below(6)) {
    case 0: return 0;
    case 1: return ~uint64_t{0};
    case 2: return uint64_t{1} << random->Below(64);
    case 3: return (uint64_t{1} << random->Below(64)) - 1;
    case 4: return random->Below(400);
    default: return random->Next();
  }
}

void MutateOnce(SimRandom* random, FuzzInput* input) {
  const size_t at = ChoosePlace(random, input->size());
  const size_t rest = input->size() - at;
  const size_t from = ChoosePlace(random, input->size());
  switch (random->Below(8)) {
    case 0:
    case 1:
      (*input)[at] ^= static_cast<uint8_t>(1u << random->Below(8));
      break;
    case 2:
    case 3: {  // A field.
      const size_t width = size_t{1} << random->Below(4);
      const size_t start = at & ~(width - 1);
      const uint64_t number = InterestingNumber(random);
      if (start >= kFuzzHeaderBytes && start + width <= input->size()) {
        std::memcpy(&(*input)[start], &number, width);
      }
      break;
    }
    case 4: {  // A field taken from elsewhere: a node that names another, a count of its neighbour.
      const size_t width = std::min({size_t{8}, rest, input->size() - from});
      std::memmove(&(*input)[at & ~size_t{7}], &(*input)[from & ~size_t{7}], width);
      break;
    }
    case 5:  // A block in place of another.
      std::memmove(&(*input)[ChooseRecord(random, input->size()) + 8],
                   &(*input)[ChooseRecord(random, input->size()) + 8], kBlockBytes);
      break;
    case 6:  // A sector lost, or a few bytes.
      std::memset(&(*input)[at], 0, std::min<size_t>(rest, random->Coin() ? 512 : 8));
      break;
    default: {  // A block lost, a file cut or grown.
      const size_t record = ChooseRecord(random, input->size());
      if (random->Coin()) {
        (*input)[record] ^= static_cast<uint8_t>(1u << random->Below(5));
      } else {
        const auto size = static_cast<uint32_t>(random->Below(300) * kBlockBytes / 2);
        std::memcpy(&(*input)[random->Coin() ? 4 : 8], &size, sizeof(size));
      }
      break;
    }
  }
}

}  // namespace

void Mutate(SimRandom* random, FuzzInput* input) {
  input->resize(std::max<size_t>(input->size(), kFuzzHeaderBytes));
  for (uint64_t changes = 1 + random->Below(4); changes > 0; --changes) {
    if (input->size() >= kFuzzHeaderBytes + kFuzzRecordBytes) MutateOnce(random, input);
  }
  const uint8_t host = (*input)[0] & kHostPolicy;
  (*input)[0] = static_cast<uint8_t>(random->Below(32) & ~uint64_t{kHostPolicy}) | host;
  if (random->Below(4) == 0) (*input)[0] ^= kHostPolicy;
}

}  // namespace xtree
