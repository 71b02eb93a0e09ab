// Goal: each call keeps its contract on a real file system, above all that a failed reservation
// changes nothing and that no descriptor is kept but an open file's.
// Method: a directory of its own; a full disk is a small tmpfs, a disk without fallocate a ramfs;
// both need root (skipped, and said, otherwise). What a mapping stores is read with plain reads.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/file_system.h"
#include "support/odd_system_calls.h"

namespace xtree {
namespace {

namespace stdfs = std::filesystem;

class PosixFileSystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = (stdfs::temp_directory_path() /
                  ("xtree_posix_test." + std::to_string(getpid()))).string();
    ASSERT_TRUE(fs_->CreateDirectory(directory_.c_str()).ok());
    path_ = directory_ + "/file";
  }
  void TearDown() override { stdfs::remove_all(directory_); }
  static std::string ReadAll(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  static auto OpenDescriptors() {
    return std::distance(stdfs::directory_iterator("/proc/self/fd"), stdfs::directory_iterator());
  }
  uint64_t Size() { return fs_->Stat(path_.c_str()).value().size_bytes; }

  FileSystem* const fs_ = PosixFileSystem();
  std::string directory_;
  std::string path_;
};

TEST_F(PosixFileSystemTest, AnOpenFileIsWrittenAndSyncedAndClosed) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 16384).ok());
  std::byte* base = fs_->Map(path_.c_str(), 16384, true).value();
  const auto before = OpenDescriptors();
  {
    const std::unique_ptr<OpenFile> file = fs_->Open(path_.c_str()).value();
    EXPECT_EQ(OpenDescriptors(), before + 1);
    const std::string text(5000, 'x');
    ASSERT_TRUE(file->Write(100, reinterpret_cast<const std::byte*>(text.data()), text.size()).ok());
    ASSERT_TRUE(file->Sync().ok());
    EXPECT_EQ(base[100], std::byte{'x'});
    EXPECT_EQ(ReadAll(path_), std::string(100, '\0') + text + std::string(11284, '\0'));
  }
  EXPECT_EQ(OpenDescriptors(), before);
  fs_->Unmap(base, 16384);
  EXPECT_EQ(fs_->Open((path_ + "2").c_str()).status().code(), Code::kNotFound);
}

TEST_F(PosixFileSystemTest, ReserveCreatesAndGrowsWithZerosAndNeverShrinks) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 16384).ok());
  EXPECT_EQ(ReadAll(path_), std::string(16384, '\0'));
  EXPECT_GE(fs_->Stat(path_.c_str()).value().disk_bytes, 16384u);
  std::byte* base = fs_->Map(path_.c_str(), 65536, true).value();
  std::memset(base, 'x', 16384);
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 16384, 8192).ok());
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 4096).ok());
  EXPECT_EQ(ReadAll(path_), std::string(16384, 'x') + std::string(8192, '\0'));
  base[20000] = std::byte{'y'};  // The mapping was longer than the file and has grown into it.
  EXPECT_EQ(ReadAll(path_)[20000], 'y');
  fs_->Unmap(base, 65536);
}

TEST_F(PosixFileSystemTest, EveryCallOnAMissingFileSaysNotFound) {
  EXPECT_EQ(fs_->Stat(path_.c_str()).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->Punch(path_.c_str(), 0, 4096).code(), Code::kNotFound);
  EXPECT_EQ(fs_->Truncate(path_.c_str(), 0).code(), Code::kNotFound);
  EXPECT_EQ(fs_->Map(path_.c_str(), 4096, true).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->Sync(path_.c_str()).code(), Code::kNotFound);
  EXPECT_EQ(fs_->Remove(path_.c_str()).code(), Code::kNotFound);
  fs_->StartWriteback(path_.c_str(), 0, 4096);  // A hint: says nothing and creates nothing.
  EXPECT_EQ(fs_->Stat(path_.c_str()).status().code(), Code::kNotFound);
}

TEST_F(PosixFileSystemTest, PunchZeroesTheRangeAndGivesItsBlocksBack) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 1 << 20).ok());
  std::byte* base = fs_->Map(path_.c_str(), 1 << 20, true).value();
  std::memset(base, 'x', 1 << 20);
  const uint64_t before = fs_->Stat(path_.c_str()).value().disk_bytes;
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 65536, 131072).ok());
  EXPECT_EQ(base[65535], std::byte{'x'});
  for (uint64_t i = 65536; i < 65536 + 131072; ++i) ASSERT_EQ(base[i], std::byte{0}) << i;
  EXPECT_EQ(base[65536 + 131072], std::byte{'x'});
  EXPECT_EQ(Size(), 1u << 20);
  EXPECT_LE(fs_->Stat(path_.c_str()).value().disk_bytes, before);
  fs_->Unmap(base, 1 << 20);
}

TEST_F(PosixFileSystemTest, PunchBeyondTheEndDoesNotGrowTheFile) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 8192).ok());
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 4096, 1 << 20).ok());
  EXPECT_EQ(Size(), 8192u);
}

TEST_F(PosixFileSystemTest, TwoMappingsOfAFileAgree) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 8192).ok());
  std::byte* first = fs_->Map(path_.c_str(), 8192, true).value();
  std::byte* second = fs_->Map(path_.c_str(), 8192, false).value();
  first[100] = std::byte{42};
  EXPECT_EQ(second[100], std::byte{42});
  fs_->Unmap(first, 8192);
  EXPECT_EQ(second[100], std::byte{42});
  fs_->Unmap(second, 8192);
  ASSERT_TRUE(fs_->Sync(path_.c_str()).ok());
  EXPECT_EQ(ReadAll(path_)[100], 42);
}

TEST_F(PosixFileSystemTest, NamesComeAndGo) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 1).ok());
  EXPECT_TRUE(fs_->SyncDirectory(path_.c_str()).ok());
  EXPECT_TRUE(fs_->Truncate(path_.c_str(), 0).ok());
  EXPECT_EQ(Size(), 0u);
  EXPECT_TRUE(fs_->Remove(path_.c_str()).ok());
  EXPECT_EQ(fs_->Stat(path_.c_str()).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->CreateDirectory(directory_.c_str()).code(), Code::kIoError);  // It exists.
}

TEST_F(PosixFileSystemTest, StatTellsTwoFilesApart) {
  const std::string other = directory_ + "/other";
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 1).ok());
  ASSERT_TRUE(fs_->Reserve(other.c_str(), 0, 1).ok());
  const FileInfo a = fs_->Stat(path_.c_str()).value();
  const FileInfo b = fs_->Stat(other.c_str()).value();
  EXPECT_EQ(a.device, b.device);
  EXPECT_NE(a.inode, b.inode);
}

TEST_F(PosixFileSystemTest, NoDescriptorIsKept) {
  const auto before = OpenDescriptors();
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 8192).ok());
  std::byte* base = fs_->Map(path_.c_str(), 8192, true).value();
  ASSERT_TRUE(fs_->Sync(path_.c_str()).ok());
  fs_->StartWriteback(path_.c_str(), 0, 8192);
  ASSERT_TRUE(fs_->SyncDirectory(path_.c_str()).ok());
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 0, 8192).ok());
  ASSERT_TRUE(fs_->Truncate(path_.c_str(), 4096).ok());
  EXPECT_FALSE(fs_->Map("/nonexistent/file", 1, true).ok());
  EXPECT_EQ(OpenDescriptors(), before);
  fs_->Unmap(base, 8192);
}

// A disk of 1 MiB.
class FullDiskTest : public PosixFileSystemTest {
 protected:
  void SetUp() override {
    PosixFileSystemTest::SetUp();
    mounted_ = mount("none", directory_.c_str(), type(), 0, "size=1m") == 0;
    if (!mounted_) GTEST_SKIP() << "cannot mount a " << type() << ": " << strerror(errno);
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(umount2(directory_.c_str(), MNT_DETACH), 0);
    }
    PosixFileSystemTest::TearDown();
  }
  virtual const char* type() const { return "tmpfs"; }
  bool mounted_ = false;
};

TEST_F(FullDiskTest, AFailedReservationIsNoSpaceAndLeavesTheFileAsItWas) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 65536).ok());
  const FileInfo before = fs_->Stat(path_.c_str()).value();
  const Status status = fs_->Reserve(path_.c_str(), 65536, 4 << 20);
  EXPECT_EQ(status.code(), Code::kNoSpace) << status.message();
  const FileInfo after = fs_->Stat(path_.c_str()).value();
  EXPECT_EQ(after.size_bytes, before.size_bytes);
  EXPECT_EQ(after.disk_bytes, before.disk_bytes);
  EXPECT_TRUE(fs_->Reserve(path_.c_str(), 65536, 65536).ok());  // What fits, still fits.
}

TEST_F(FullDiskTest, PunchedBlocksCanBeReservedAgain) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 900 << 10).ok());
  const std::string other = directory_ + "/other";
  EXPECT_EQ(fs_->Reserve(other.c_str(), 0, 512 << 10).code(), Code::kNoSpace);
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 0, 600 << 10).ok());
  EXPECT_TRUE(fs_->Reserve(other.c_str(), 0, 512 << 10).ok());
  EXPECT_EQ(fs_->Reserve(path_.c_str(), 0, 600 << 10).code(), Code::kNoSpace);
}

// A file system without fallocate, and so without holes to punch.
class NoFallocateTest : public FullDiskTest {
 protected:
  const char* type() const override { return "ramfs"; }
};

TEST_F(NoFallocateTest, ReserveWritesZerosAndKeepsWhatIsThere) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 100'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(100'000, '\0'));
  std::byte* base = fs_->Map(path_.c_str(), 200'000, true).value();
  std::memset(base, 'x', 100'000);
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 50'000, 150'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(100'000, 'x') + std::string(100'000, '\0'));
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 10'000, 20'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(10'000, 'x') + std::string(20'000, '\0') +
                                std::string(70'000, 'x') + std::string(100'000, '\0'));
  ASSERT_TRUE(fs_->Punch(path_.c_str(), 190'000, 1 << 20).ok());
  EXPECT_EQ(Size(), 200'000u);
  fs_->Unmap(base, 200'000);
}

TEST_F(PosixFileSystemTest, AReservationIsWholeThoughWritesAreInterruptedAndShort) {
  OddSystemCalls odd;
  odd.short_io = true;
  odd.no_fallocate = true;
  ScopedOddSystemCalls scope(odd);
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 100'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(100'000, '\0'));
  std::byte* base = fs_->Map(path_.c_str(), 400'000, true).value();
  std::memset(base, 'x', 100'000);
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 50'000, 350'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(100'000, 'x') + std::string(300'000, '\0'));
  fs_->Prefill(path_.c_str(), 100'000, 300'000);
  EXPECT_EQ(ReadAll(path_), std::string(100'000, 'x') + std::string(300'000, '\0'));
  ASSERT_TRUE(fs_->Rewrite(path_.c_str(), 10, 99'999).ok());
  ASSERT_TRUE(fs_->Rewrite(path_.c_str(), 399'000, 9'000).ok());
  EXPECT_EQ(ReadAll(path_), std::string(100'000, 'x') + std::string(300'000, '\0'));
  fs_->Unmap(base, 400'000);
  EXPECT_GT(scope.calls(), 100u);
}

TEST_F(PosixFileSystemTest, APathThroughAFileIsAnIoErrorThatNamesIt) {
  ASSERT_TRUE(fs_->Reserve(path_.c_str(), 0, 1).ok());
  const std::string below = path_ + "/below";
  const Status status = fs_->Sync(below.c_str());
  EXPECT_EQ(status.code(), Code::kIoError);
  EXPECT_NE(std::string(status.message()).find(below), std::string::npos);
}

}  // namespace
}  // namespace xtree
