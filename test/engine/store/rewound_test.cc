// Goal: a data file beside another server's log is taken for whole only if it answers as that server
// did; otherwise the mark is on disk and the index does not open.
// Method: two copies of a directory go on by themselves, inserting, deleting and folding at random; then
// the data file of one is opened with the log of the other. Logs with holes are judged as well.
#include "store/rewound.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "log/delta_log.h"
#include "store/durable_runtime.h"

namespace xtree {
namespace {

namespace fs = std::filesystem;

Key PointKey(uint64_t id) {
  Key key;
  key.lo[0] = key.hi[0] = static_cast<double>(id * 7919 % 10007);
  key.lo[1] = key.hi[1] = static_cast<double>(id * 104729 % 10009);
  return key;
}

class Rewound : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/xtree_rewound_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string Path(const std::string& server) const { return root_ + "/" + server; }
  std::string Data(const std::string& server) const { return Path(server) + "/i"; }
  std::string Log(const std::string& server) const { return Path(server) + "/i_log"; }
  std::unique_ptr<DurableRuntime> Open(const std::string& server) const {
    RuntimeOptions options;
    options.directory = Path(server);
    options.background_checkpoints = false;
    return DurableRuntime::Open(options).value();
  }
  void Create(const std::string& server) {
    auto runtime = Open(server);
    ASSERT_TRUE(runtime->CreateIndex("i", IndexOptions{}).ok());
  }
  // 'i' inserts, 'd' deletes, 'F' folds; all is committed.
  void Run(const std::string& server, const std::string& steps, uint64_t first_id) {
    auto runtime = Open(server);
    Index* index = runtime->OpenIndex("i").value();
    for (const char step : steps) {
      if (step == 'F') {
        ASSERT_TRUE(index->Checkpoint().ok());
        continue;
      }
      for (int i = 0; i < 300; ++i, ++first_id) {
        bool found;
        ASSERT_TRUE((step == 'i' ? index->Insert(PointKey(first_id), first_id)
                                 : index->Delete(PointKey(first_id - 450), first_id - 450, &found))
                        .ok());
      }
      ASSERT_TRUE(index->Commit().ok());
    }
  }
  std::set<uint64_t> Ids(const std::string& server, Status* status) {
    auto runtime = Open(server);
    auto index = runtime->OpenIndex("i");
    *status = index.status();
    std::set<uint64_t> ids;
    if (status->ok()) {
      *status = (*index)->Search(Predicate::All(), [&](uint64_t id, const double*, const double*) {
        EXPECT_TRUE(ids.insert(id).second);
      });
    }
    return ids;
  }
  void Mix(const std::string& data_of, const std::string& log_of) {
    fs::remove_all(Path("mix"));
    fs::create_directory(Path("mix"));
    fs::copy_file(Data(data_of), Data("mix"));
    if (fs::exists(Log(log_of))) fs::copy_file(Log(log_of), Log("mix"));
  }
  void ExpectBroken() {
    bool whole = true;
    std::string why;
    ASSERT_TRUE(CheckRewound(Data("mix"), Log("mix"), &whole, &why).ok());
    EXPECT_FALSE(whole);
    EXPECT_FALSE(why.empty());
    ASSERT_TRUE(MarkFileBroken(PosixFileSystem(), Data("mix")).ok());
    Status status;
    Ids("mix", &status);
    EXPECT_EQ(status.code(), Code::kBroken) << status.message();
    EXPECT_EQ(CheckRewound(Data("mix"), Log("mix"), &whole, &why).code(), Code::kNotFound)
        << "what is marked need not be judged again";
  }
  std::string root_;
};

TEST_F(Rewound, WhatIsTakenForWholeAnswersAsTheOtherServer) {
  std::mt19937 random(5);
  const std::string letters = "iidFi";
  const auto script = [&](size_t length) {
    std::string steps;
    for (size_t i = 0; i < length; ++i) steps += letters[random() % letters.size()];
    return steps;
  };
  int whole_count = 0, broken_count = 0;
  for (int round = 0; round < 40; ++round) {
    const std::string common = script(random() % 3), mine = script(random() % 3),
                      others = script(random() % 3);
    SCOPED_TRACE(common + " / " + mine + " / " + others);
    for (const char* server : {"a", "b"}) fs::remove_all(Path(server));
    Create("a");
    Run("a", common, 1000);
    fs::copy(Path("a"), Path("b"));
    Run("a", mine, 5000);
    Run("b", others, 9000);
    Mix("a", "b");
    bool whole = false;
    std::string why;
    ASSERT_TRUE(CheckRewound(Data("mix"), Log("mix"), &whole, &why).ok());
    if (!whole) {
      ++broken_count;
      ExpectBroken();
      continue;
    }
    ++whole_count;
    Status status;
    const std::set<uint64_t> expected = Ids("b", &status);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(Ids("mix", &status), expected);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  EXPECT_GT(whole_count, 5);
  EXPECT_GT(broken_count, 5);
}

TEST_F(Rewound, AnEmptyLogProvesNothing) {
  Create("a");
  Run("a", "i", 0);
  fs::copy(Path("a"), Path("b"));
  Run("b", "F", 0);
  Mix("a", "b");
  ExpectBroken();
  Mix("a", "b");
  fs::remove(Log("mix"));
  ExpectBroken();
}

TEST_F(Rewound, ALogWithAHoleIsNotWhole) {
  Create("a");
  // Into the third log segment.
  Run("a", std::string(160, 'i'), 0);
  const uint64_t blocks = fs::file_size(Log("a")) / kBlockBytes;
  ASSERT_GT(blocks, 2 * kLogSegmentBlocks);
  Mix("a", "a");
  bool whole = false;
  std::string why;
  ASSERT_TRUE(CheckRewound(Data("mix"), Log("mix"), &whole, &why).ok());
  EXPECT_TRUE(whole) << why;
  // A block within the first segment, the whole second segment, the whole first one.
  const std::pair<uint64_t, uint64_t> holes[] = {
      {5, 1}, {kLogSegmentBlocks, kLogSegmentBlocks}, {0, kLogSegmentBlocks}};
  for (const auto& [first, count] : holes) {
    SCOPED_TRACE(first);
    Mix("a", "a");
    const std::string zeros(count * kBlockBytes, '\0');
    std::fstream file(Log("mix"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(first * kBlockBytes));
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
    file.close();
    ExpectBroken();
  }
}

TEST_F(Rewound, OtherFilesAreNotTouched) {
  fs::create_directory(Path("mix"));
  bool whole = true;
  std::string why;
  EXPECT_EQ(CheckRewound(Data("mix"), Log("mix"), &whole, &why).code(), Code::kNotFound);
  for (const size_t size : {size_t{0}, size_t{100}, size_t{4 * kBlockBytes}}) {
    std::ofstream(Data("mix")) << std::string(size, 'x');
    EXPECT_EQ(CheckRewound(Data("mix"), Log("mix"), &whole, &why).code(), Code::kNotFound) << size;
  }
}

}  // namespace
}  // namespace xtree
