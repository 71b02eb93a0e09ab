// Goal: a slot always holds a tag that is old enough for every live pin, and never one that is kept
// after the last.
// Method: pins taken and released in every order; readers and a retiring writer in threads.
#include "object/epoch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "support/epochs.h"

namespace xtree {
namespace {

TEST(Epoch, MinReaderTagIsTheGlobalValueWhileAllAreIdle) {
  Epochs epochs(4);
  EXPECT_EQ(MinReaderTag(epochs.get()), 1u);
  EXPECT_EQ(NextRetireTag(epochs.get()), 2u);
  EXPECT_EQ(MinReaderTag(epochs.get()), 2u);
}

TEST(Epoch, APinHoldsBackWhatIsRetiredAfterIt) {
  Epochs epochs(4);
  EpochReader reader(epochs.get(), 3);
  EpochPin pin;
  const uint64_t before = NextRetireTag(epochs.get());
  pin.Acquire(&reader);
  const uint64_t after = NextRetireTag(epochs.get());
  EXPECT_GE(MinReaderTag(epochs.get()), before);
  EXPECT_LT(MinReaderTag(epochs.get()), after);
  pin.Release();
  EXPECT_GE(MinReaderTag(epochs.get()), after);
  pin.Release();  // Idempotent.
}

TEST(Epoch, TheOldestReaderIsTheOneThatBeganFirst) {
  Epochs epochs(4);
  EpochReader early(epochs.get(), 2);
  EpochReader late(epochs.get(), 1);
  EpochPin early_pin, late_pin;
  uint32_t slot = 99;
  uint64_t retirements = 99;
  EXPECT_FALSE(OldestReader(epochs.get(), &slot, &retirements));
  early_pin.Acquire(&early);
  ASSERT_TRUE(OldestReader(epochs.get(), &slot, &retirements));
  EXPECT_EQ(slot, 2u);
  EXPECT_EQ(retirements, 0u);
  for (int i = 0; i < 5; ++i) (void)NextRetireTag(epochs.get());
  late_pin.Acquire(&late);
  ASSERT_TRUE(OldestReader(epochs.get(), &slot, &retirements));
  EXPECT_EQ(slot, 2u);
  EXPECT_EQ(retirements, 5u);
  early_pin.Release();
  ASSERT_TRUE(OldestReader(epochs.get(), &slot, &retirements));
  EXPECT_EQ(slot, 1u);
  EXPECT_EQ(retirements, 0u);
}

TEST(Epoch, TheSlotHoldsTheOldestPinWhateverTheOrderOfRelease) {
  constexpr int kPins = 4;
  int order[kPins] = {0, 1, 2, 3};
  do {
    Epochs epochs(1);
    EpochReader reader(epochs.get(), 0);
    EpochPin pins[kPins];
    uint64_t tags[kPins];
    for (int i = 0; i < kPins; ++i) {
      pins[i].Acquire(&reader);
      tags[i] = pins[i].tag();
      NextRetireTag(epochs.get());
    }
    bool held[kPins] = {true, true, true, true};
    for (int released : order) {
      pins[released].Release();
      held[released] = false;
      uint64_t expected = epochs.get()->global.load();
      for (int i = kPins - 1; i >= 0; --i) {
        if (held[i]) expected = tags[i];
      }
      EXPECT_EQ(MinReaderTag(epochs.get()), expected);
    }
  } while (std::next_permutation(order, order + kPins));
}

TEST(Epoch, AcquiringAgainMovesThePinForward) {
  Epochs epochs(1);
  EpochReader reader(epochs.get(), 0);
  EpochPin pin;
  pin.Acquire(&reader);
  const uint64_t tag = NextRetireTag(epochs.get());
  pin.Acquire(&reader);
  EXPECT_EQ(pin.tag(), tag);
  EXPECT_EQ(MinReaderTag(epochs.get()), tag);
}

TEST(Epoch, SlotsAreClaimedOnceAndComeBackIdle) {
  Epochs epochs(2);
  uint32_t a, b, c;
  ASSERT_TRUE(ClaimEpochSlot(epochs.get(), &a));
  ASSERT_TRUE(ClaimEpochSlot(epochs.get(), &b));
  EXPECT_NE(a, b);
  EXPECT_FALSE(ClaimEpochSlot(epochs.get(), &c));
  ReleaseEpochSlot(epochs.get(), a);
  ASSERT_TRUE(ClaimEpochSlot(epochs.get(), &c));
  EXPECT_EQ(a, c);
}

// A value is retired by publishing the next one; a reader that pinned must never see its value
// poisoned, which the writer does as soon as MinReaderTag allows.
TEST(Epoch, NoReaderSeesWhatMinReaderTagGaveBack) {
  constexpr int kReaders = 3;
  constexpr uint64_t kChanges = 20000;
  constexpr uint64_t kPoison = ~uint64_t{0};
  Epochs epochs(kReaders);
  std::vector<std::atomic<uint64_t>> values(kChanges + 1);
  std::vector<uint64_t> tags(kChanges + 1, 0);
  for (auto& value : values) value.store(0, std::memory_order_relaxed);
  std::atomic<uint64_t> published{0};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> bad{0}, reads{0};
  std::vector<std::thread> threads;
  for (int r = 0; r < kReaders; ++r) {
    threads.emplace_back([&, r] {
      EpochReader reader(epochs.get(), static_cast<uint32_t>(r));
      while (!stop.load(std::memory_order_relaxed)) {
        EpochPin pin;
        pin.Acquire(&reader);
        const uint64_t epoch = published.load(std::memory_order_acquire);
        for (int i = 0; i < 20; ++i) {
          if (values[epoch].load(std::memory_order_relaxed) == kPoison) ++bad;
        }
        ++reads;
      }
    });
  }
  uint64_t changes = 0, reclaimed = 0;
  auto reclaim = [&] {
    const uint64_t min = MinReaderTag(epochs.get());
    while (reclaimed < changes && tags[reclaimed] <= min) {
      values[reclaimed++].store(kPoison, std::memory_order_relaxed);
    }
  };
  while (changes < kChanges) {
    published.store(changes + 1, std::memory_order_release);
    tags[changes++] = NextRetireTag(epochs.get());
    reclaim();
    if (changes % 64 == 0) std::this_thread::yield();
  }
  // One reader that does not run on a busy machine may have held everything back until now.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while ((reads.load() == 0 || reclaimed == 0) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
    reclaim();
  }
  stop.store(true);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(bad.load(), 0u);
  EXPECT_GE(MinReaderTag(epochs.get()), tags[kChanges - 1]);  // Idle readers hold nothing back.
  EXPECT_GT(reads.load(), 0u);
  EXPECT_GT(reclaimed, 0u);
}

}  // namespace
}  // namespace xtree
