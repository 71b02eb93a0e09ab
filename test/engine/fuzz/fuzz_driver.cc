// Entry points for clang's libFuzzer. One source, three programs: XT_FUZZ_TARGET says which target
// (src/README.md, "Tests"). Without a corpus the first inputs are seeds made on the spot.
#include <algorithm>
#include <cstring>

#include "fuzz/fuzz_files.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  xtree::XT_FUZZ_TARGET(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max,
                                          unsigned int seed) {
  xtree::SimRandom random(seed);
  xtree::FuzzInput input;
  if (size < 2 * xtree::kFuzzHeaderBytes) {
    input = xtree::MakeFuzzSeed(static_cast<uint32_t>(random.Below(xtree::kFuzzSeeds)));
  } else {
    if (random.Below(4) == 0) size = LLVMFuzzerMutate(data, size, size_max);
    input.assign(data, data + size);
  }
  xtree::Mutate(&random, &input);
  input.resize(std::min(input.size(), size_max));
  std::copy(input.begin(), input.end(), data);
  return input.size();
}
