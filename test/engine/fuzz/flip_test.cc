// Goal: a byte of an index's files that has changed is noticed or harmless: an error, or the same
// answers as before. Never other answers, never a crash. The log of an index that was closed in good
// order is no exception: its last frame proves the ones before it.
// Method: sound files of several kinds; one bit flipped, the files opened, everything read, the
// answers compared. A hundred bytes a file, or every XTREE_FLIP_STRIDE-th (1: all; make
// check-torture takes many) of the blocks that are not all zeros; which bit, a seed chooses.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "fuzz/fuzz_files.h"

namespace xtree {
namespace {

class FlipTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(FlipTest, AFlippedBitIsNoticedOrHarmless) {
  const char* text = getenv("XTREE_FLIP_STRIDE");
  FuzzInput input = MakeFuzzSeed(GetParam());
  // Odd, so that bytes of headers get their turn in one block or another.
  const uint64_t stride = text != nullptr ? strtoull(text, nullptr, 10) : input.size() / 100 | 1;
  const FuzzOutcome whole = OpenFuzzedFiles(input.data(), input.size());
  ASSERT_TRUE(whole.opened && whole.searched);
  uint64_t refused = 0, failed = 0, harmless = 0, in_content = 0;
  SimRandom random(GetParam() + 1);
  for (size_t at = kFuzzHeaderBytes; at < input.size(); ++at) {
    if ((at - kFuzzHeaderBytes) % kFuzzRecordBytes < 8) continue;  // Not of the file.
    if (in_content++ % stride != 0) continue;
    const auto mask = static_cast<uint8_t>(1u << random.Below(8));
    input[at] ^= mask;
    const FuzzOutcome outcome = OpenFuzzedFiles(input.data(), input.size());
    input[at] ^= mask;
    ++(outcome.searched ? harmless : outcome.opened ? failed : refused);
    if (!outcome.searched) continue;
    const size_t record = (at - kFuzzHeaderBytes) / kFuzzRecordBytes;
    uint32_t place;
    std::memcpy(&place, &input[kFuzzHeaderBytes + record * kFuzzRecordBytes], sizeof(place));
    ASSERT_EQ(outcome.digest, whole.digest)
        << (place & kFuzzInLog ? "log" : "data") << " block " << (place & ~kFuzzInLog)
        << " offset " << (at - kFuzzHeaderBytes) % kFuzzRecordBytes - 8 << " mask " << int{mask};
  }
  printf("%lu flips refused, %lu noticed when read, %lu harmless\n", refused, failed, harmless);
  EXPECT_GT(refused + failed, harmless / 8);
}

// The host's log (the last seed) is not closed by the engine; what its checkpoint covers is proven
// by later records only, which log_reader_test.cc tests.
INSTANTIATE_TEST_SUITE_P(Seeds, FlipTest, ::testing::Range(0u, kFuzzSeeds - 1));

}  // namespace
}  // namespace xtree
