// Goal: whatever the files of an index hold, opening, reading, changing and checking them ends in an
// answer or an error: no crash, no endless loop, no access outside what is mapped.
// Method: sound indexes of several kinds, a few mutations each, checksums mostly made right again
// so that the damage is looked at; the targets of fuzz_files.h under the sanitizers. Choices come
// from one seed: XTREE_FUZZ_SEED picks another, XTREE_FUZZ_INPUTS says how many inputs a target
// gets. A failure names both. (libFuzzer runs the same targets for as long as one likes.)
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "fuzz/fuzz_files.h"

namespace xtree {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

// Gives `target` mutations of all seeds in turn.
template <class Target>
void ForMutations(uint64_t inputs, const Target& target) {
  const uint64_t seed = FromEnvironment("XTREE_FUZZ_SEED", 1);
  inputs = FromEnvironment("XTREE_FUZZ_INPUTS", inputs);
  std::vector<FuzzInput> seeds;
  for (uint32_t s = 0; s < kFuzzSeeds; ++s) seeds.push_back(MakeFuzzSeed(s));
  for (uint64_t i = FromEnvironment("XTREE_FUZZ_FIRST", 0); i < inputs; ++i) {
    SimRandom random(seed << 32 | i);
    FuzzInput input = seeds[i % kFuzzSeeds];
    Mutate(&random, &input);
    if (getenv("XTREE_FUZZ_TRACE") != nullptr) fprintf(stderr, "input %lu\n", i);
    target(input);
  }
}

TEST(FuzzTest, SeedsOpenAndAreSoundForTheChecker) {
  for (uint32_t s = 0; s < kFuzzSeeds; ++s) {
    SCOPED_TRACE(s);
    FuzzInput input = MakeFuzzSeed(s);
    EXPECT_LT(input.size(), kFuzzInputBytesMax);
    EXPECT_TRUE(CheckFuzzedFiles(input.data(), input.size()));
    input[0] |= kWriteToo | kRepairData | kRepairPlace | kRepairLog;
    const FuzzOutcome outcome = OpenFuzzedFiles(input.data(), input.size());
    EXPECT_TRUE(outcome.opened && outcome.searched);
    EXPECT_TRUE(outcome.written || (input[0] & kHostPolicy) != 0);
    ReadFuzzedLog(input.data(), input.size());
  }
}

TEST(FuzzTest, AnyFilesOpenOrAreRefused) {
  uint64_t opened = 0, searched = 0, refused = 0;
  ForMutations(250, [&](const FuzzInput& input) {
    const FuzzOutcome outcome = OpenFuzzedFiles(input.data(), input.size());
    ++(outcome.searched ? searched : outcome.opened ? opened : refused);
  });
  // All three happen often, or the mutations do not reach what they are meant for.
  EXPECT_GT(searched, 20u);
  EXPECT_GT(opened, 1u);
  EXPECT_GT(refused, 30u);
}

TEST(FuzzTest, TheCheckerReadsAnyFiles) {
  uint64_t sound = 0, unsound = 0;
  ForMutations(300, [&](const FuzzInput& input) {
    ++(CheckFuzzedFiles(input.data(), input.size()) ? sound : unsound);
  });
  EXPECT_GT(sound, 0u);
  EXPECT_GT(unsound, 30u);
}

TEST(FuzzTest, AnyLogEndsSomewhereAndGoesOnFromThere) {
  ForMutations(800, [](const FuzzInput& input) { ReadFuzzedLog(input.data(), input.size()); });
}

TEST(FuzzTest, TruncatedAndTinyInputsAreHarmless) {
  const FuzzInput seed = MakeFuzzSeed(0);
  for (size_t bytes = 0; bytes < seed.size(); bytes += bytes < 64 ? 1 : 4'099) {
    FuzzInput input(seed.begin(), seed.begin() + static_cast<ptrdiff_t>(bytes));
    OpenFuzzedFiles(input.data(), input.size());
    CheckFuzzedFiles(input.data(), input.size());
    ReadFuzzedLog(input.data(), input.size());
  }
}

}  // namespace
}  // namespace xtree
