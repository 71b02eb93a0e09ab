// Reader slots for tests, in memory of their own.
#pragma once

#include <cstdlib>
#include <new>

#include "object/epoch.h"

namespace xtree {

class Epochs {
 public:
  explicit Epochs(uint32_t slots) {
    const size_t bytes = (EpochShared::BytesFor(slots) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    shared_ = static_cast<EpochShared*>(memory);
    InitEpochShared(shared_, slots);
  }
  ~Epochs() { std::free(shared_); }
  Epochs(const Epochs&) = delete;
  EpochShared* get() const { return shared_; }

 private:
  EpochShared* shared_;
};

}  // namespace xtree
