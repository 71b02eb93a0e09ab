#include "io/clock.h"

#include <cerrno>
#include <ctime>

namespace xtree {
namespace {

class MonotonicClock final : public Clock {
 public:
  uint64_t NowMicros() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000 +
           static_cast<uint64_t>(now.tv_nsec) / 1'000;
  }
  void SleepMicros(uint64_t micros) override {
    timespec left = {static_cast<time_t>(micros / 1'000'000),
                     static_cast<long>(micros % 1'000'000 * 1'000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
  }
};

}  // namespace

Clock* SystemClock() {
  static MonotonicClock clock;
  return &clock;
}

}  // namespace xtree
