#include "tree/radix_sort.h"

#include <algorithm>
#include <array>

namespace xtree {

namespace {
// 256 write positions stay in the first-level cache and its TLB; more digits a pass do not.
constexpr uint32_t kDigitBits = 8;
constexpr uint32_t kDigits = 1u << kDigitBits;
constexpr uint32_t kPassesMax = 64 / kDigitBits;
}  // namespace

void RadixSort(std::vector<KeyIndex>* pairs, uint32_t bits) {
  const uint32_t passes = (bits + kDigitBits - 1) / kDigitBits;
  std::array<std::array<uint64_t, kDigits>, kPassesMax> counts{};
  for (const KeyIndex& pair : *pairs) {
    for (uint32_t p = 0; p < passes; ++p) ++counts[p][pair.key >> (p * kDigitBits) & (kDigits - 1)];
  }
  std::vector<KeyIndex> other(pairs->size());
  for (uint32_t p = 0; p < passes; ++p) {
    const uint32_t shift = p * kDigitBits;
    // A digit that all keys share needs no pass.
    if (*std::max_element(counts[p].begin(), counts[p].end()) == pairs->size()) continue;
    uint64_t next = 0;
    for (uint64_t& count : counts[p]) {
      const uint64_t begin = next;
      next += count;
      count = begin;
    }
    for (const KeyIndex& pair : *pairs) {
      other[counts[p][pair.key >> shift & (kDigits - 1)]++] = pair;
    }
    pairs->swap(other);
  }
}

}  // namespace xtree
