// Time as a dependency, so that tests own it.
#pragma once

#include <cstdint>

namespace xtree {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t NowMicros() = 0;             // Monotonic.
  virtual void SleepMicros(uint64_t micros) = 0;
};

Clock* SystemClock();

}  // namespace xtree
