// Goal: extents never overlap, are zeros when they are handed out, lie within reserved and mapped
// blocks of one window, and what is free goes back to the file system; a full disk changes nothing.
// Method: random allocation beside a map of blocks, over files in memory that can run full.
#include "segment/segment_allocator.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/faulty_file_system.h"

namespace xtree {
namespace {

constexpr uint32_t kSegmentsPerWindow = kWindowBlocks / kSegmentBlocks;

class Fixture {
 public:
  Fixture() { Open(); }
  ~Fixture() {
    for (void* chunk : chunks) std::free(chunk);
  }
  // The shared state of a new server life over the same files.
  void Open() {
    shared = std::make_unique<AllocatorShared>();
    std::destroy_at(&infos);
    std::construct_at(&infos);
    infos.Attach(&shared->infos);
    for (uint32_t level = 0; level < 6; ++level) {
      void* chunk = std::calloc(1, SegmentArray::LevelBytes(level));
      chunks.push_back(chunk);
      infos.Provide(level, 0, chunk);
    }
    windows = std::make_unique<WindowManager>(&fs, &budget, "data");
    allocator = std::make_unique<SegmentAllocator>(shared.get(), &infos, windows.get());
  }
  bool IsZero(uint32_t block, uint32_t order) {
    const std::byte* address = windows->MapBlock(block).value();
    for (uint64_t i = 0; i < uint64_t{kBlockBytes} << order; ++i) {
      if (address[i] != std::byte{0}) return false;
    }
    return true;
  }
  void Fill(uint32_t block, uint32_t order) {
    std::memset(windows->BlockAddress(block), 0x5a, size_t{kBlockBytes} << order);
  }
  uint64_t FileBytes(const char* path) {
    auto info = fs.Stat(path);
    return info.ok() ? info->size_bytes : 0;
  }

  FaultyFileSystem fs;
  WindowBudget budget{100};
  std::vector<void*> chunks;
  std::unique_ptr<AllocatorShared> shared;
  SegmentArray infos;
  std::unique_ptr<WindowManager> windows;
  std::unique_ptr<SegmentAllocator> allocator;
};

TEST(SegmentAllocator, AnEmptyFileIsSmallAndKeepsItsSuperblocks) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  EXPECT_LE(f.FileBytes("data"), 128u * 1024);
  EXPECT_EQ(f.allocator->used_blocks(), 2u);
  std::set<uint32_t> blocks;
  for (int i = 0; i < 600; ++i) {
    auto block = f.allocator->Allocate(0);
    ASSERT_TRUE(block.ok());
    EXPECT_GE(*block, 2u);
    EXPECT_TRUE(blocks.insert(*block).second);
  }
  EXPECT_EQ(*blocks.rbegin(), 601u);  // Without gaps, from the front.
}

TEST(SegmentAllocator, ASmallFileGrowsByFractionsOfItself) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  for (uint32_t used = 2; used < 2000; ++used) {
    ASSERT_TRUE(f.allocator->Allocate(0).ok());
    EXPECT_LE(f.allocator->file_blocks(), std::max(8u, std::min(2 * used, used + 256 + used / 16)));
  }
  EXPECT_LT(f.fs.reserves, 30u);
}

TEST(SegmentAllocator, RandomExtentsNeverOverlapAndAreZeros) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Fixture f;
    ASSERT_TRUE(f.allocator->CreateFile().ok());
    std::vector<bool> taken(200000, false);
    taken[0] = taken[1] = true;
    struct Extent { uint32_t block, order; };
    std::vector<Extent> extents;
    uint32_t used = 2;
    for (int step = 0; step < 6000; ++step) {
      const bool grow = step % 3000 < 1500;  // Phases of growing and shrinking.
      if (extents.empty() || random() % 10 < (grow ? 7u : 3u)) {
        const uint32_t order = std::min(random() % 6, random() % 6);
        auto block = f.allocator->Allocate(order);
        ASSERT_TRUE(block.ok());
        ASSERT_EQ(*block % (1u << order), 0u);
        ASSERT_LE(*block + (1u << order), f.allocator->file_blocks());
        for (uint32_t b = *block; b < *block + (1u << order); ++b) {
          ASSERT_FALSE(taken[b]);
          taken[b] = true;
        }
        ASSERT_TRUE(f.IsZero(*block, order));
        f.Fill(*block, order);
        extents.push_back({*block, order});
        used += 1u << order;
      } else {
        const size_t i = random() % extents.size();
        const Extent e = extents[i];
        extents[i] = extents.back();
        extents.pop_back();
        f.allocator->Free(e.block, e.order);
        ASSERT_TRUE(f.IsZero(e.block, e.order));
        for (uint32_t b = e.block; b < e.block + (1u << e.order); ++b) taken[b] = false;
        used -= 1u << e.order;
      }
      ASSERT_EQ(f.allocator->used_blocks(), used);
      if (random() % 500 == 0) f.allocator->ReturnFreeSpace();
    }
    for (const Extent& e : extents) f.allocator->Free(e.block, e.order);
    f.allocator->ReturnFreeSpace();
    EXPECT_EQ(f.allocator->used_blocks(), 2u);
    EXPECT_EQ(f.allocator->segments(), 1u);
    EXPECT_EQ(f.FileBytes("data"), uint64_t{f.allocator->file_blocks()} * kBlockBytes);
  }
}

TEST(SegmentAllocator, AFullDiskIsACleanErrorAtEverySize) {
  for (uint64_t limit_blocks = 8; limit_blocks < 1400; limit_blocks += 37) {
    Fixture f;
    ASSERT_TRUE(f.allocator->CreateFile().ok());
    f.fs.bytes_max = limit_blocks * kBlockBytes;
    std::vector<uint32_t> blocks;
    for (;;) {
      const uint32_t used = f.allocator->used_blocks();
      auto block = f.allocator->Allocate(1);
      if (!block.ok()) {
        EXPECT_EQ(block.status().code(), Code::kNoSpace);
        EXPECT_EQ(f.allocator->used_blocks(), used);
        break;
      }
      ASSERT_LE((*block + 2) * uint64_t{kBlockBytes}, f.fs.bytes_max);
      f.Fill(*block, 1);
      blocks.push_back(*block);
    }
    // All but a step's worth was handed out, and what is freed can be had again.
    EXPECT_GE(f.allocator->used_blocks() + 300, std::min<uint64_t>(limit_blocks, 256));
    if (!blocks.empty()) {
      f.allocator->Free(blocks.back(), 1);
      EXPECT_TRUE(f.allocator->Allocate(1).ok());
    }
    f.fs.bytes_max = UINT64_MAX;
    EXPECT_TRUE(f.allocator->Allocate(1).ok());
  }
}

TEST(SegmentAllocator, AFreedSegmentServesAnotherOrder) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  std::vector<uint32_t> blocks;
  for (int i = 0; i < 128; ++i) blocks.push_back(f.allocator->Allocate(1).value());
  for (uint32_t b : blocks) f.allocator->Free(b, 1);
  const uint32_t segments = f.allocator->segments();
  EXPECT_EQ(f.allocator->Allocate(3).value() / kSegmentBlocks, blocks[0] / kSegmentBlocks);
  EXPECT_EQ(f.allocator->segments(), segments);
}

TEST(SegmentAllocator, FileSegmentsAreFullBeforeTheNextBegins) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  std::vector<uint32_t> blocks;
  // Segment 0 serves order 0 only; the rest of the first window and a bit of the second.
  for (uint32_t i = 0; i < (kSegmentsPerWindow + 3) * 8; ++i) {
    auto block = f.allocator->Allocate(5);
    ASSERT_TRUE(block.ok());
    ASSERT_EQ(*block / kWindowBlocks, (*block + 31) / kWindowBlocks);
    if (*block >= kWindowBlocks) {
      ASSERT_EQ(f.FileBytes("data"), kWindowBytes);
    }
    // A superblock that names what is in the new file must not be on disk without that file's name.
    ASSERT_EQ(f.fs.directory_syncs, *block >= kWindowBlocks ? 1u : 0u);
    blocks.push_back(*block);
  }
  EXPECT_GT(f.FileBytes("data.1"), 0u);
  EXPECT_EQ(f.FileBytes("data.2"), 0u);
  EXPECT_NE(f.windows->base(1), nullptr);
  // The second file is emptied, not removed, and grows again.
  while (blocks.back() >= kWindowBlocks) {
    f.allocator->Free(blocks.back(), 5);
    blocks.pop_back();
  }
  f.allocator->ReturnFreeSpace();
  EXPECT_EQ(f.FileBytes("data.1"), 0u);
  EXPECT_EQ(f.allocator->file_blocks(), kWindowBlocks);
  EXPECT_EQ(f.allocator->Allocate(5).value(), kWindowBlocks);
}

TEST(SegmentAllocator, AnInterruptedTruncationAgreesWithTheFiles) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  std::vector<uint32_t> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(f.allocator->Allocate(5).value());
  for (uint32_t b : blocks) f.allocator->Free(b, 5);
  f.fs.fail_truncate = true;
  f.allocator->ReturnFreeSpace();
  EXPECT_GT(f.allocator->segments(), 1u);
  EXPECT_TRUE(f.allocator->Allocate(5).ok());
  EXPECT_EQ(f.FileBytes("data"), uint64_t{f.allocator->file_blocks()} * kBlockBytes);
}

TEST(SegmentAllocator, SpaceInTheMiddleIsPunchedAndReservedAgain) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  std::vector<uint32_t> blocks;
  for (int i = 0; i < 80; ++i) blocks.push_back(f.allocator->Allocate(5).value());
  const uint32_t last = blocks.back();
  f.Fill(last, 5);
  for (uint32_t b : blocks) {
    if (b != last) f.allocator->Free(b, 5);
  }
  const uint32_t size = f.allocator->file_blocks();
  f.allocator->ReturnFreeSpace();
  EXPECT_LE(f.allocator->file_blocks(), size);
  EXPECT_GT(f.fs.punches, 0u);
  const uint32_t reserves = f.fs.reserves;
  EXPECT_LT(f.allocator->Allocate(5).value(), last);
  for (int i = 0; i < 10; ++i) EXPECT_LT(f.allocator->Allocate(4).value(), last);
  EXPECT_GT(f.fs.reserves, reserves);
}

TEST(SegmentAllocator, ReservedExtentsCannotFail) {
  for (uint32_t order = 0; order <= kOrderMax; ++order) {
    Fixture f;
    ASSERT_TRUE(f.allocator->CreateFile().ok());
    ASSERT_TRUE(f.allocator->ReserveExtents(order, 1000, true).ok());
    f.fs.bytes_max = 0;
    f.fs.fail_map = true;
    uint32_t previous = 0;
    for (int i = 0; i < 1000; ++i) {
      auto block = f.allocator->Allocate(order);
      ASSERT_TRUE(block.ok());
      EXPECT_GT(*block, previous);  // In order, so that a bulk load writes sequentially.
      previous = *block;
    }
  }
}

TEST(SegmentAllocator, ARestartFindsWhatIsUsedAndZeroesTheRest) {
  std::mt19937 random(7);
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  struct Extent { uint32_t block, order; };
  std::vector<Extent> kept, lost;
  for (int i = 0; i < 3000; ++i) {
    const uint32_t order = random() % 3;
    const uint32_t block = f.allocator->Allocate(order).value();
    f.Fill(block, order);
    (random() % 3 == 0 ? kept : lost).push_back({block, order});  // Lost: not in the capture.
  }
  const uint32_t file_blocks = f.allocator->file_blocks();
  for (bool scrub : {false, true}) {
    f.Open();
    ASSERT_TRUE(f.allocator->Adopt(file_blocks).ok());
    uint32_t used = 2;
    for (const Extent& e : kept) {
      ASSERT_TRUE(f.allocator->MarkUsed(e.block, e.order).ok());
      used += 1u << e.order;
    }
    EXPECT_EQ(f.allocator->MarkUsed(kept[0].block, kept[0].order).code(), Code::kCorruption);
    EXPECT_EQ(f.allocator->MarkUsed(1, 0).code(), Code::kCorruption);
    EXPECT_EQ(f.allocator->MarkUsed(file_blocks, 0).code(), Code::kCorruption);
    EXPECT_EQ(f.allocator->MarkUsed(0xfffffff0, 5).code(), Code::kCorruption);
    EXPECT_EQ(f.allocator->MarkUsed(513, 1).code(), Code::kCorruption);
    EXPECT_EQ(f.allocator->MarkUsed(8, 6).code(), Code::kCorruption);
    f.allocator->FinishAdopt();
    EXPECT_EQ(f.allocator->used_blocks(), used);
    if (scrub) {
      uint32_t steps = 1;
      while (!f.allocator->ScrubStep(100)) ++steps;
      EXPECT_GT(steps, 2u);  // A step is bounded.
      for (const Extent& e : lost) EXPECT_TRUE(f.IsZero(e.block, e.order));
    }
    for (const Extent& e : kept) EXPECT_FALSE(f.IsZero(e.block, e.order));
    std::set<uint32_t> seen;
    for (const Extent& e : kept) {
      for (uint32_t b = 0; b < 1u << e.order; ++b) seen.insert(e.block + b);
    }
    for (int i = 0; i < 1500; ++i) {
      const uint32_t order = random() % 3;
      const uint32_t block = f.allocator->Allocate(order).value();
      ASSERT_TRUE(f.IsZero(block, order));
      for (uint32_t b = 0; b < 1u << order; ++b) ASSERT_TRUE(seen.insert(block + b).second);
      if (!scrub) f.Fill(block, order);  // As if this life had crashed, too.
    }
  }
}

TEST(SegmentAllocator, AnUnprovidedChunkIsAskedForBeforeAnythingChanges) {
  FaultyFileSystem fs;
  WindowBudget budget(10);
  AllocatorShared shared{};
  SegmentArray infos;
  infos.Attach(&shared.infos);
  WindowManager windows(&fs, &budget, "data");
  SegmentAllocator allocator(&shared, &infos, &windows);
  EXPECT_EQ(allocator.CreateFile().code(), Code::kNeedMemory);
  EXPECT_EQ(fs.reserves, 0u);
  EXPECT_EQ(allocator.Adopt(100).code(), Code::kNeedMemory);
  std::unique_ptr<void, decltype(&std::free)> chunk(std::calloc(1, SegmentArray::LevelBytes(0)),
                                                    &std::free);
  infos.Provide(0, 0, chunk.get());
  ASSERT_TRUE(allocator.CreateFile().ok());
  Status status;
  while (status.ok()) status = allocator.Allocate(5).status();
  EXPECT_EQ(status.code(), Code::kNeedMemory);
  EXPECT_FALSE(allocator.HasInfoCapacity());
}

TEST(SegmentAllocator, AFileThatWasCutShortDoesNotGrow) {
  Fixture f;
  ASSERT_TRUE(f.allocator->CreateFile().ok());
  std::vector<uint32_t> blocks;
  for (int i = 0; i < 400; ++i) blocks.push_back(f.allocator->Allocate(0).value());
  const uint64_t bytes = f.FileBytes("data");
  ASSERT_TRUE(f.fs.Truncate("data", bytes / 2).ok());
  Status status;
  for (int i = 0; i < 100000 && status.ok(); ++i) status = f.allocator->Allocate(0).status();
  EXPECT_EQ(status.code(), Code::kCorruption) << status.message();
  EXPECT_EQ(f.FileBytes("data"), bytes / 2);
}

}  // namespace
}  // namespace xtree
