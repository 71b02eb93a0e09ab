// Goal: the system clock never goes back and sleeps at least as long as asked.
// Method: read it in a loop; sleep briefly and compare. No upper bound is tested: machines stall.
#include "io/clock.h"

#include <gtest/gtest.h>

namespace xtree {
namespace {

TEST(ClockTest, NeverGoesBack) {
  uint64_t last = SystemClock()->NowMicros();
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t now = SystemClock()->NowMicros();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(ClockTest, SleepsAtLeastAsLongAsAsked) {
  for (const uint64_t micros : {0u, 1u, 1'500u, 20'000u}) {
    const uint64_t before = SystemClock()->NowMicros();
    SystemClock()->SleepMicros(micros);
    EXPECT_GE(SystemClock()->NowMicros() - before, micros);
  }
}

}  // namespace
}  // namespace xtree
