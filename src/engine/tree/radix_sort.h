// Sorts (key, index) pairs by key, stably, in time that grows only with their number.
#pragma once

#include <cstdint>
#include <vector>

namespace xtree {

struct KeyIndex {
  uint64_t key;
  uint32_t index;
};

// Sorts by the low `bits` bits of the keys. REQUIRES: the higher bits are zero.
void RadixSort(std::vector<KeyIndex>* pairs, uint32_t bits);

}  // namespace xtree
