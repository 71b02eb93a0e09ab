// Goal: the simulated disk shows every state that its fault model allows, and no other.
// Method: for each clause of the model, a small history, then power cuts under many seeds; the set
// of states seen is compared with the set allowed.
#include "testing/sim_file_system.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>

namespace xtree {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSeeds = 400;

class SimFileSystemTest : public ::testing::Test {
 protected:
  // A synced file "a" of `pages` pages, its name durable, mapped at base_.
  void MakeFile(uint64_t pages) {
    ASSERT_TRUE(fs_.Reserve("a", 0, pages * kPage).ok());
    ASSERT_TRUE(fs_.Sync("a").ok());
    ASSERT_TRUE(fs_.SyncDirectory("a").ok());
    base_ = fs_.Map("a", kMapped, true).value();
  }
  void TearDown() override {
    if (base_ != nullptr) fs_.Unmap(base_, kMapped);
  }
  void Fill(uint64_t page, char c) { std::memset(base_ + page * kPage, c, kPage); }
  // One letter per page of "a" ("." zero, "?" mixed), "-" if there is no file.
  static std::string Describe(const SimFileSystem::Image& image) {
    const auto found = image.find("a");
    if (found == image.end()) return "-";
    std::string text;
    for (uint64_t begin = 0; begin < found->second.size(); begin += kPage) {
      const std::byte first = found->second[begin];
      char letter = first == std::byte{0} ? '.' : static_cast<char>(first);
      for (uint64_t i = 0; i < kPage; ++i) {
        if (found->second[begin + i] != first) letter = '?';
      }
      text += letter;
    }
    return text;
  }
  std::set<std::string> States() {
    std::set<std::string> states;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) states.insert(Describe(fs_.AfterPowerCut(seed)));
    return states;
  }

  static constexpr uint64_t kMapped = 1 << 20;
  SimFileSystem fs_{7};
  std::byte* base_ = nullptr;
};

TEST_F(SimFileSystemTest, WhatWasSyncedSurvivesAlways) {
  MakeFile(3);
  Fill(0, 'a');
  Fill(2, 'c');
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{"a.c"}));
}

TEST_F(SimFileSystemTest, AnySubsetOfUnsyncedPagesSurvivesAndPagesMayTear) {
  MakeFile(2);
  Fill(0, 'a');
  Fill(1, 'b');
  const auto states = States();
  for (const char* whole : {"..", "a.", ".b", "ab"}) EXPECT_TRUE(states.contains(whole)) << whole;
  EXPECT_TRUE(states.contains("?b") || states.contains("?."));
  EXPECT_EQ(fs_.AfterPowerCut(5), fs_.AfterPowerCut(5));  // The seed decides everything.
}

TEST_F(SimFileSystemTest, TearingHappensBetweenSectorsOnly) {
  MakeFile(1);
  Fill(0, 'a');
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const auto image = fs_.AfterPowerCut(seed);
    const auto& bytes = image.at("a");
    for (uint64_t sector = 0; sector < kPage; sector += 512) {
      for (uint64_t i = 1; i < 512; ++i) ASSERT_EQ(bytes[sector + i], bytes[sector]);
    }
  }
}

TEST_F(SimFileSystemTest, APageThatTheKernelWroteBackEarlierMaySurviveInThatVersion) {
  MakeFile(1);
  Fill(0, 'a');
  fs_.StartWriteback("a", 0, kPage);
  Fill(0, 'b');
  const auto states = States();
  for (const char* whole : {".", "a", "b"}) EXPECT_TRUE(states.contains(whole)) << whole;
}

TEST_F(SimFileSystemTest, SizesSurviveUpToSomePointInTheirOrder) {
  MakeFile(2);
  Fill(0, 'a');
  Fill(1, 'b');
  ASSERT_TRUE(fs_.Sync("a").ok());
  ASSERT_TRUE(fs_.Truncate("a", kPage).ok());
  ASSERT_TRUE(fs_.Reserve("a", 0, 3 * kPage).ok());
  EXPECT_EQ(States(), (std::set<std::string>{"ab", "a", "a.."}));
}

TEST_F(SimFileSystemTest, NothingFromAfterALostTruncationSurvives) {
  MakeFile(2);
  Fill(0, 'a');
  Fill(1, 'b');
  ASSERT_TRUE(fs_.Sync("a").ok());
  ASSERT_TRUE(fs_.Truncate("a", kPage).ok());
  ASSERT_TRUE(fs_.Reserve("a", 0, 2 * kPage).ok());
  Fill(1, 'c');
  for (const std::string& state : States()) {
    if (state[1] == '?') continue;  // "." and "c" by sector.
    EXPECT_TRUE(state == "ab" || state == "a" || state == "a." || state == "ac") << state;
  }
  // Mixed sectors are of the new life of the page only.
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const auto image = fs_.AfterPowerCut(seed);
    const auto& bytes = image.at("a");
    if (bytes.size() < 2 * kPage) continue;
    bool old_seen = false;
    bool new_seen = false;
    for (uint64_t i = kPage; i < 2 * kPage; ++i) {
      old_seen |= bytes[i] == std::byte{'b'};
      new_seen |= bytes[i] == std::byte{'c'};
    }
    ASSERT_FALSE(old_seen && new_seen) << seed;
  }
}

TEST_F(SimFileSystemTest, APunchedHoleMayBeLost) {
  MakeFile(2);
  Fill(0, 'a');
  Fill(1, 'b');
  ASSERT_TRUE(fs_.Sync("a").ok());
  ASSERT_TRUE(fs_.Punch("a", 0, kPage).ok());
  EXPECT_EQ(base_[0], std::byte{0});
  EXPECT_EQ(States(), (std::set<std::string>{"ab", ".b"}));
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{".b"}));
}

TEST_F(SimFileSystemTest, ANewNameMayBeLostUntilItsDirectoryIsSynced) {
  ASSERT_TRUE(fs_.Reserve("a", 0, kPage).ok());
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{"-", "."}));
  ASSERT_TRUE(fs_.SyncDirectory("other/b").ok());  // Another directory does not help.
  EXPECT_EQ(States(), (std::set<std::string>{"-", "."}));
  ASSERT_TRUE(fs_.SyncDirectory("b").ok());
  EXPECT_EQ(States(), (std::set<std::string>{"."}));
  ASSERT_TRUE(fs_.Remove("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{"-", "."}));
  ASSERT_TRUE(fs_.SyncDirectory("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{"-"}));
}

TEST_F(SimFileSystemTest, TheCrashedOperationHappensOrNotAndAllLaterOnesFail) {
  std::set<std::string> states;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    SimFileSystem fs(seed);
    ASSERT_TRUE(fs.Reserve("a", 0, kPage).ok());
    std::byte* base = fs.Map("a", kPage, true).value();
    ASSERT_TRUE(fs.SyncDirectory("a").ok());
    ASSERT_TRUE(fs.Sync("a").ok());
    std::memset(base, 'a', kPage);
    fs.CrashAtOperation(1);
    ASSERT_TRUE(fs.Stat("a").ok());
    EXPECT_FALSE(fs.crashed());
    EXPECT_EQ(fs.Sync("a").code(), Code::kIoError);
    EXPECT_TRUE(fs.crashed());
    EXPECT_EQ(fs.crash_operation(), "sync a");
    EXPECT_EQ(fs.Sync("a").code(), Code::kIoError);
    EXPECT_EQ(fs.Stat("a").status().code(), Code::kIoError);
    EXPECT_EQ(fs.Map("a", kPage, true).status().code(), Code::kIoError);
    std::memset(base, 'z', kPage);  // Too late.
    for (uint64_t cut = 0; cut < 8; ++cut) states.insert(Describe(fs.AfterPowerCut(cut)));
    fs.Restart(3);
    EXPECT_FALSE(fs.crashed());
    const std::string before = Describe(fs.Contents());
    std::memset(base, 'y', kPage);  // The old mapping is memory that no file sees.
    EXPECT_EQ(Describe(fs.Contents()), before);
    fs.Unmap(base, kPage);
  }
  EXPECT_TRUE(states.contains("."));
  EXPECT_TRUE(states.contains("a"));
  for (const std::string& state : states) EXPECT_NE(state, "z");
}

TEST_F(SimFileSystemTest, RestartMakesWhatSurvivedDurable) {
  MakeFile(4);
  for (uint64_t page = 0; page < 4; ++page) Fill(page, 'a');
  fs_.Restart(11);
  const std::string kept = Describe(fs_.Contents());
  EXPECT_EQ(States(), (std::set<std::string>{kept}));
}

TEST_F(SimFileSystemTest, AfterAKillThePageCacheIsThereAndTheDiskHasNoMoreThanBefore) {
  MakeFile(2);
  Fill(0, 'a');
  ASSERT_TRUE(fs_.Sync("a").ok());
  Fill(1, 'b');
  fs_.CrashAtOperation(0);
  ASSERT_FALSE(fs_.Stat("a").ok());
  Fill(0, 'c');  // By a dead process.
  fs_.ContinueAfterKill();
  EXPECT_FALSE(fs_.crashed());
  EXPECT_EQ(Describe(fs_.Contents()), "ab");
  const auto states = States();
  EXPECT_TRUE(states.contains("a.") && states.contains("ab"));
  for (const std::string& state : states) EXPECT_EQ(state[0], 'a');
}

TEST_F(SimFileSystemTest, AnInjectedErrorHitsOneOperationAndChangesNothing) {
  MakeFile(1);
  fs_.FailOperation(1, Status::FromErrno(28, "injected"));
  EXPECT_TRUE(fs_.Stat("a").ok());
  EXPECT_EQ(fs_.Reserve("a", 0, 8 * kPage).code(), Code::kNoSpace);
  EXPECT_EQ(fs_.Stat("a").value().size_bytes, kPage);
  EXPECT_TRUE(fs_.Reserve("a", 0, 8 * kPage).ok());
}

TEST_F(SimFileSystemTest, AKindOfOperationCanFailUntilToldOtherwise) {
  MakeFile(1);
  fs_.FailKinds(SimFileSystem::kSync | SimFileSystem::kMap, Status::FromErrno(5, "injected"));
  EXPECT_EQ(fs_.Sync("a").code(), Code::kIoError);
  EXPECT_EQ(fs_.Map("a", kPage, true).status().code(), Code::kIoError);
  EXPECT_TRUE(fs_.Stat("a").ok());
  fs_.FailKinds(0, Status::Ok());
  EXPECT_TRUE(fs_.Sync("a").ok());
}

TEST_F(SimFileSystemTest, PagesLostByAFailedSyncStayLostUntilTheyChange) {
  MakeFile(16);
  for (uint64_t page = 0; page < 16; ++page) Fill(page, 'a');
  fs_.FailOperation(0, Status::FromErrno(5, "injected"));
  EXPECT_EQ(fs_.Sync("a").code(), Code::kIoError);
  EXPECT_TRUE(fs_.Sync("a").ok());  // It says so, but
  const auto states = States();
  ASSERT_EQ(states.size(), 1u);
  const std::string state = *states.begin();
  EXPECT_NE(state.find('.'), std::string::npos);  // some pages did not make it,
  EXPECT_NE(state.find('a'), std::string::npos);  // and some did.
  for (uint64_t page = 0; page < 16; ++page) Fill(page, 'b');
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(States(), (std::set<std::string>{std::string(16, 'b')}));
}

TEST_F(SimFileSystemTest, ReservationsBeyondTheDiskFail) {
  fs_.SetCapacity(4 * kPage);
  MakeFile(3);
  EXPECT_EQ(fs_.Reserve("b", 0, 2 * kPage).code(), Code::kNoSpace);
  ASSERT_TRUE(fs_.Punch("a", 0, kPage).ok());
  EXPECT_TRUE(fs_.Reserve("b", 0, 2 * kPage).ok());
  EXPECT_EQ(fs_.Reserve("a", 0, kPage).code(), Code::kNoSpace);  // The hole is not ours any more.
}

TEST_F(SimFileSystemTest, AStoreToAnUnreservedPageIsAViolation) {
  MakeFile(3);
  ASSERT_TRUE(fs_.Punch("a", kPage, kPage).ok());
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_TRUE(fs_.violations().empty());
  Fill(1, 'x');
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(fs_.violations().size(), 1u);
}

TEST_F(SimFileSystemTest, ARestartLeavesNoReservationOnPagesOfZeros) {
  MakeFile(2);
  Fill(0, 'a');
  ASSERT_TRUE(fs_.Sync("a").ok());
  fs_.Restart(1);
  std::byte* base = fs_.Map("a", 2 * kPage, true).value();
  std::memset(base, 'b', kPage);
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_TRUE(fs_.violations().empty());
  std::memset(base + kPage, 'b', kPage);
  ASSERT_TRUE(fs_.Sync("a").ok());
  EXPECT_EQ(fs_.violations().size(), 1u);
  fs_.Unmap(base, 2 * kPage);
}

TEST_F(SimFileSystemTest, AQueueSyncsEachFileAndReportsEach) {
  MakeFile(1);
  Fill(0, 'a');
  const auto queue = fs_.NewQueue();
  std::vector<SyncRequest> batch{{"a", Status::Ok()}, {"missing", Status::Ok()}};
  queue->SyncAll(&batch);
  EXPECT_TRUE(batch[0].status.ok());
  EXPECT_EQ(batch[1].status.code(), Code::kNotFound);
  EXPECT_EQ(States(), (std::set<std::string>{"a"}));
}

TEST_F(SimFileSystemTest, DamageReachesMemoryAndDisk) {
  MakeFile(1);
  fs_.Damage("a", 17, 0x40);
  EXPECT_EQ(base_[17], std::byte{0x40});
  EXPECT_EQ(fs_.AfterPowerCut(1).at("a")[17], std::byte{0x40});
}

TEST(SimClockTest, PassesOnlyWhenToldTo) {
  SimClock clock;
  const uint64_t start = clock.NowMicros();
  EXPECT_EQ(clock.NowMicros(), start);
  clock.SleepMicros(5);
  clock.Advance(7);
  EXPECT_EQ(clock.NowMicros(), start + 12);
}

}  // namespace
}  // namespace xtree
