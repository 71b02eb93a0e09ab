// Writes the corpus that the fuzzers of fuzz_driver.cc begin with, in the present format of files:
//     fuzz_corpus DIRECTORY
// Each seed comes plain, and with the flags that let damage get past the checksums.
#include <cstdio>
#include <string>

#include "fuzz/fuzz_files.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: fuzz_corpus DIRECTORY\n");
    return 2;
  }
  constexpr uint8_t kRepairAll = xtree::kRepairData | xtree::kRepairPlace | xtree::kRepairLog;
  for (uint32_t number = 0; number < xtree::kFuzzSeeds; ++number) {
    xtree::FuzzInput seed = xtree::MakeFuzzSeed(number);
    for (const uint8_t flags : {uint8_t{0}, kRepairAll, uint8_t{kRepairAll | xtree::kWriteToo}}) {
      seed[0] = static_cast<uint8_t>((seed[0] & xtree::kHostPolicy) | flags);
      const std::string path =
          std::string(argv[1]) + "/seed" + std::to_string(number) + "-" + std::to_string(flags);
      FILE* file = fopen(path.c_str(), "wb");
      if (file == nullptr || fwrite(seed.data(), 1, seed.size(), file) != seed.size() ||
          fclose(file) != 0) {
        perror(path.c_str());
        return 1;
      }
    }
  }
  return 0;
}
