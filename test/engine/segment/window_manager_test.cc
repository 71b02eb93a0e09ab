// Goal: a pinned window is never unmapped, the budget holds while nothing is pinned, and handles
// that are in use are evicted last.
// Method: a file system that counts mappings; threads that pin and read beside evictions.
#include "segment/window_manager.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <climits>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/faulty_file_system.h"

namespace xtree {
namespace {

// Really maps and unmaps, so that a read through a window that was evicted faults.
class MappingFileSystem final : public FileSystem {
 public:
  std::atomic<int> mapped{0};
  int mapped_max = INT_MAX;  // The kernel's limit.
  Result<FileInfo> Stat(const char*) override { return Status::NotFound("unused"); }
  Status Reserve(const char*, uint64_t, uint64_t) override { return Status::Ok(); }
  Status Punch(const char*, uint64_t, uint64_t) override { return Status::Ok(); }
  Status Truncate(const char*, uint64_t) override { return Status::Ok(); }
  Result<std::byte*> Map(const char*, uint64_t length, bool) override {
    if (mapped >= mapped_max) return Status::FromErrno(ENOMEM, "could not map");
    void* base = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return Status::FromErrno(errno, "could not map");
    ++mapped;
    return static_cast<std::byte*>(base);
  }
  void Unmap(std::byte* base, uint64_t length) override {
    munmap(base, length);
    --mapped;
  }
  Status Sync(const char*) override { return Status::Ok(); }
  void StartWriteback(const char*, uint64_t, uint64_t) override {}
  Status SyncDirectory(const char*) override { return Status::Ok(); }
  Status Remove(const char*) override { return Status::Ok(); }
  Status CreateDirectory(const char*) override { return Status::Ok(); }
};

TEST(WindowManager, MapsOnceAndNamesFilesAsTheHostDoes) {
  FaultyFileSystem fs;
  ASSERT_TRUE(fs.Reserve("f", 0, kBlockBytes).ok());
  ASSERT_TRUE(fs.Reserve("f.3", 0, kBlockBytes).ok());
  WindowBudget budget(10);
  WindowManager windows(&fs, &budget, "f");
  EXPECT_EQ(windows.SegmentPath(0), "f");
  EXPECT_EQ(windows.SegmentPath(3), "f.3");
  EXPECT_EQ(windows.BlockAddress(5), nullptr);
  std::byte* address = windows.MapBlock(5).value();
  EXPECT_EQ(windows.BlockAddress(5), address);
  EXPECT_EQ(windows.MapBlock(6).value(), address + kBlockBytes);
  EXPECT_TRUE(windows.MapBlock(3 * kWindowBlocks + 1).ok());
  EXPECT_EQ(fs.maps, 2u);
  EXPECT_EQ(budget.windows_mapped(), 2u);
  EXPECT_EQ(windows.MapBlock(kWindowBlocks).status().code(), Code::kNotFound);
  EXPECT_EQ(budget.windows_mapped(), 2u);
  EXPECT_EQ(windows.EnsureMapped(kWindowsMax).status().code(), Code::kCorruption);
  windows.DropAll();
  EXPECT_EQ(fs.unmaps, 2u);
  EXPECT_EQ(windows.BlockAddress(5), nullptr);
}

class Handles {
 public:
  Handles(FileSystem* fs, uint32_t windows_max, int count) : budget(windows_max) {
    for (int i = 0; i < count; ++i) {
      handles.push_back(std::make_unique<WindowManager>(fs, &budget, "h" + std::to_string(i)));
    }
  }
  WindowBudget budget;
  std::vector<std::unique_ptr<WindowManager>> handles;
};

TEST(WindowManager, EvictsTheHandleThatWasUsedLeastRecently) {
  MappingFileSystem fs;
  Handles h(&fs, 3, 5);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(h.handles[i]->EnsureMapped(0).ok());
  { WindowPin used(h.handles[0].get()); }
  ASSERT_TRUE(h.handles[3]->EnsureMapped(0).ok());
  EXPECT_NE(h.handles[0]->base(0), nullptr);  // The second chance.
  EXPECT_EQ(h.handles[1]->base(0), nullptr);
  EXPECT_NE(h.handles[2]->base(0), nullptr);
  EXPECT_EQ(h.budget.windows_mapped(), 3u);
  EXPECT_EQ(h.budget.evictions(), 1u);
  EXPECT_EQ(fs.mapped.load(), 3);
}

TEST(WindowManager, GoesOverTheBudgetRatherThanUnmapAPinnedWindow) {
  MappingFileSystem fs;
  Handles h(&fs, 2, 4);
  std::vector<std::unique_ptr<WindowPin>> pins;
  for (auto& handle : h.handles) {
    pins.push_back(std::make_unique<WindowPin>(handle.get()));
    ASSERT_TRUE(handle->EnsureMapped(0).ok());
  }
  EXPECT_EQ(h.budget.windows_mapped(), 4u);
  WindowStats stats = h.budget.stats();
  EXPECT_EQ(stats.windows_max, 2u);
  EXPECT_EQ(stats.mapped, 4u);
  EXPECT_EQ(stats.pinned_handles, 4u);
  EXPECT_EQ(stats.pins, 4u);
  EXPECT_EQ(stats.evictions, 0u);
  pins.clear();
  EXPECT_EQ(h.budget.windows_mapped(), 2u);
  stats = h.budget.stats();
  EXPECT_EQ(stats.mapped, 2u);
  EXPECT_EQ(stats.mapped_peak, 4u);
  EXPECT_EQ(stats.pins, 0u);
  EXPECT_EQ(stats.maps, 4u);
  EXPECT_EQ(stats.evictions, 2u);
}

TEST(WindowManager, OneIndexLargerThanTheBudgetReturnsToItWhenItIsUnpinned) {
  MappingFileSystem fs;
  Handles h(&fs, 10, 1);
  WindowManager* windows = h.handles[0].get();
  {
    WindowPin pin(windows);
    WindowPin another(windows);
    for (uint32_t w = 0; w < 50; ++w) ASSERT_TRUE(windows->EnsureMapped(w).ok());
    EXPECT_EQ(fs.mapped.load(), 50);
  }
  EXPECT_EQ(fs.mapped.load(), 10);
  EXPECT_NE(windows->base(49), nullptr);  // The oldest went.
  // From now on one goes for each that comes, in turn.
  for (uint32_t w = 0; w < 50; ++w) {
    WindowPin pin(windows);
    ASSERT_TRUE(windows->EnsureMapped(w).ok());
  }
  EXPECT_EQ(fs.mapped.load(), 10);
  EXPECT_EQ(h.budget.windows_mapped(), 10u);
}

TEST(WindowManager, AnIdleIndexIsEvictedWindowByWindow) {
  MappingFileSystem fs;
  Handles h(&fs, 10, 2);
  for (uint32_t w = 0; w < 10; ++w) ASSERT_TRUE(h.handles[0]->EnsureMapped(w).ok());
  for (uint32_t w = 0; w < 10; ++w) {
    WindowPin pin(h.handles[1].get());
    ASSERT_TRUE(h.handles[1]->EnsureMapped(w).ok());
    EXPECT_EQ(fs.mapped.load(), 10);
  }
  for (uint32_t w = 0; w < 10; ++w) {
    EXPECT_EQ(h.handles[0]->base(w), nullptr);
    EXPECT_NE(h.handles[1]->base(w), nullptr);
  }
}

TEST(WindowManager, WhereTheKernelAllowsLessThanTheBudgetIdleHandlesGiveWay) {
  MappingFileSystem fs;
  fs.mapped_max = 3;
  Handles h(&fs, 10, 6);
  WindowPin pin(h.handles[0].get());
  std::byte* pinned = h.handles[0]->MapBlock(0).value();
  for (int i = 1; i < 6; ++i) ASSERT_TRUE(h.handles[i]->MapBlock(0).ok()) << i;
  EXPECT_EQ(h.handles[0]->base(0), pinned);
  EXPECT_EQ(h.budget.windows_mapped(), static_cast<uint32_t>(fs.mapped.load()));
  WindowPin two(h.handles[5].get());
  ASSERT_TRUE(h.handles[5]->MapBlock(0).ok());
  fs.mapped_max = 0;
  EXPECT_EQ(h.handles[5]->MapBlock(kWindowBlocks).status().code(), Code::kOutOfMemory);
  EXPECT_NE(h.handles[5]->base(0), nullptr);
}

TEST(WindowManager, AFailedMappingLeavesTheCountsAlone) {
  FaultyFileSystem fs;
  fs.fail_map = true;
  WindowBudget budget(10);
  WindowManager windows(&fs, &budget, "f");
  EXPECT_EQ(windows.EnsureMapped(0).status().code(), Code::kOutOfMemory);
  EXPECT_EQ(budget.windows_mapped(), 0u);
}

TEST(WindowManager, ReadersNeverFaultBesideEvictions) {
  MappingFileSystem fs;
  constexpr int kHandles = 4;
  Handles h(&fs, 2, kHandles);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> reads{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = static_cast<uint32_t>(t); !stop.load(std::memory_order_relaxed); ++i) {
        WindowManager* windows = h.handles[i % kHandles].get();
        WindowPin pin(windows);
        auto address = windows->MapBlock(i % 2 * kWindowBlocks);
        ASSERT_TRUE(address.ok());
        auto* word = reinterpret_cast<uint64_t*>(address.value());
        ASSERT_EQ(std::atomic_ref<uint64_t>(*word).load(std::memory_order_relaxed), 0u);
        ++reads;
      }
    });
  }
  while (reads.load() < 20000) std::this_thread::yield();
  stop.store(true);
  for (auto& thread : threads) thread.join();
  EXPECT_GT(h.budget.evictions(), 0u);
}

// The first window beyond the few that a handle has room for is mapped, again and again with a new handle,
// while others read those before it, and evict.
TEST(WindowManager, RoomForManyWindowsComesBesideReadersAndEvictions) {
  MappingFileSystem fs;
  for (int round = 0; round < 60; ++round) {
    Handles h(&fs, 2, 2);
    WindowManager* windows = h.handles[0].get();
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (uint32_t i = 0; i < 40; ++i) {
          WindowPin pin(windows);
          const uint32_t window = t == 0 && i >= 10 ? 3 + i % 3 : i % 2;
          auto address = windows->MapBlock(window * kWindowBlocks);
          ASSERT_TRUE(address.ok());
          // Pinned: it stays where it is.
          for (int look = 0; look < 3; ++look) {
            ASSERT_EQ(windows->BlockAddress(window * kWindowBlocks), address.value());
            auto* word = reinterpret_cast<uint64_t*>(address.value());
            ASSERT_EQ(std::atomic_ref<uint64_t>(*word).load(std::memory_order_relaxed), 0u);
          }
          if (i == 5) ++ready;
          while (i == 5 && ready.load() < 3) std::this_thread::yield();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(windows->BlockAddress(kWindowsMax * kWindowBlocks - 1), nullptr);
  }
  EXPECT_EQ(fs.mapped, 0);
}

}  // namespace
}  // namespace xtree
