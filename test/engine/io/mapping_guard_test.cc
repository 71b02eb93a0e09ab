// Goal: a page of a mapped file that is not to be had becomes zeros and a count, wherever it is met; what
// was read before stays; a SIGBUS of another's making goes where it always went.
// Method: files are cut short under their mappings.
#include "io/mapping_guard.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mapping_fault.h"

namespace xtree {
namespace {

constexpr uint64_t kPages = 64;

class MappingGuard : public ::testing::Test {
 protected:
  MappingGuard() : page_(static_cast<uint64_t>(sysconf(_SC_PAGESIZE))) {
    InstallMappingGuard();
    ForgetMappingFaults();
    path_ = ::testing::TempDir() + "mapping_guard_test." + std::to_string(getpid());
    unlink(path_.c_str());
    EXPECT_TRUE(fs_->Reserve(path_.c_str(), 0, kPages * page_).ok());
    base_ = fs_->Map(path_.c_str(), kPages * page_, true).value();
    std::memset(base_, 7, kPages * page_);
  }
  ~MappingGuard() override {
    fs_->Unmap(base_, kPages * page_);
    unlink(path_.c_str());
  }
  void Cut(uint64_t pages) { ASSERT_TRUE(fs_->Truncate(path_.c_str(), pages * page_).ok()); }
  int At(uint64_t page) const {
    return static_cast<int>(*reinterpret_cast<volatile char*>(base_ + page * page_));
  }

  FileSystem* const fs_ = PosixFileSystem();
  const uint64_t page_;
  std::string path_;
  std::byte* base_ = nullptr;
  std::atomic<uint32_t> faults_{0};
};

TEST_F(MappingGuard, APageThatIsGoneReadsAsZerosAndIsCounted) {
  GuardMapping(base_, kPages * page_, &faults_);
  Cut(10);
  EXPECT_EQ(At(9), 7);
  EXPECT_EQ(faults_.load(), 0u);
  EXPECT_FALSE(MappingFaultPending());
  EXPECT_EQ(At(10), 0);
  EXPECT_EQ(faults_.load(), 1u);
  EXPECT_TRUE(MappingFaultPending());
  EXPECT_EQ(At(10), 0);
  EXPECT_EQ(faults_.load(), 1u);
  EXPECT_EQ(At(9), 7);
  UnguardMapping(base_);
}

TEST_F(MappingGuard, AStoreGoesOnAndIsLost) {
  GuardMapping(base_, kPages * page_, &faults_);
  Cut(10);
  std::memset(base_, 8, kPages * page_);
  EXPECT_EQ(faults_.load(), kPages - 10);
  EXPECT_EQ(At(50), 8);  // In this process.
  UnguardMapping(base_);
  std::byte* again = fs_->Map(path_.c_str(), page_, true).value();
  EXPECT_EQ(static_cast<int>(again[0]), 8);
  fs_->Unmap(again, page_);
  EXPECT_EQ(fs_->Stat(path_.c_str())->size_bytes, 10 * page_);
}

TEST_F(MappingGuard, AFaultOfAnyThreadIsCounted) {
  GuardMapping(base_, kPages * page_, &faults_);
  Cut(0);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t p = t; p < kPages; p += 4) EXPECT_EQ(At(p), 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(faults_.load(), kPages);
  UnguardMapping(base_);
}

TEST_F(MappingGuard, ManyRegionsAreToldApart) {
  std::vector<std::byte*> bases;
  std::vector<std::unique_ptr<std::atomic<uint32_t>>> counts;
  for (int i = 0; i < 2500; ++i) {
    bases.push_back(fs_->Map(path_.c_str(), page_, true).value());
    counts.push_back(std::make_unique<std::atomic<uint32_t>>(0));
    GuardMapping(bases.back(), page_, counts.back().get());
  }
  Cut(0);
  for (const int i : {0, 127, 128, 2499}) {
    EXPECT_EQ(static_cast<int>(*reinterpret_cast<volatile char*>(bases[i])), 0);
    EXPECT_EQ(counts[i]->load(), 1u) << i;
  }
  EXPECT_EQ(counts[1]->load(), 0u);
  for (std::byte* base : bases) {
    UnguardMapping(base);
    fs_->Unmap(base, page_);
  }
}

TEST_F(MappingGuard, AMappingForAShortLookSaysWhetherItFaulted) {
  {
    GuardedMapping whole(fs_, path_.c_str(), page_);
    ASSERT_TRUE(whole.status().ok());
    EXPECT_EQ(static_cast<int>(whole.base()[0]), 7);
    EXPECT_FALSE(whole.faulted());
  }
  GuardedMapping cut(fs_, path_.c_str(), page_);
  Cut(0);
  EXPECT_EQ(static_cast<int>(*reinterpret_cast<volatile char*>(cut.base())), 0);
  EXPECT_TRUE(cut.faulted());
  EXPECT_EQ(GuardedMapping(fs_, "/does/not/exist", page_).status().code(), Code::kNotFound);
}

TEST_F(MappingGuard, AnAssertionThatFailsAfterAFaultThrows) {
  GuardMapping(base_, kPages * page_, &faults_);
  Cut(0);
  EXPECT_THROW(XT_ASSERT(At(0) == 7), MappingFault);
  ForgetMappingFaults();
  EXPECT_DEATH(XT_ASSERT(At(0) == 7), "assertion failed");
  UnguardMapping(base_);
}

using MappingGuardDeathTest = MappingGuard;

TEST_F(MappingGuardDeathTest, AFaultElsewhereEndsTheProcessAsBefore) {
  const auto died = [](int status) {
    // A sanitizer's own handler reports the signal and exits.
    return ::testing::KilledBySignal(SIGBUS)(status) ||
           (WIFEXITED(status) && WEXITSTATUS(status) != 0);
  };
  Cut(0);
  EXPECT_EXIT(At(0), died, "");
  GuardMapping(base_, kPages * page_, &faults_);
  UnguardMapping(base_);
  EXPECT_EXIT(At(0), died, "");
  EXPECT_EXIT(raise(SIGBUS), died, "");
}

}  // namespace
}  // namespace xtree
