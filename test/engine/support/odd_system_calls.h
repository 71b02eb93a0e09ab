// System calls that do what they are allowed to do, and hardly ever do on a quiet machine: reads and writes that are
// interrupted or come back short, a file system that cannot reserve, completions in another order than that of their
// requests. For programs that are linked with xtree_test_odd_calls (CMakeLists.txt), which wraps the calls.
//
// Threads: set before others run.
#pragma once

#include <cstdint>

namespace xtree {

struct OddSystemCalls {
  bool short_io = false;             // pread and pwrite: interrupted, or cut to some bytes, never refused.
  bool no_fallocate = false;         // fallocate: EOPNOTSUPP.
  bool shuffle_completions = false;  // io_uring_submit waits for all completions, and turns their order around.
  uint64_t calls = 0;                // How many have been odd.
};

// In force until the end of its life.
class ScopedOddSystemCalls {
 public:
  explicit ScopedOddSystemCalls(const OddSystemCalls& odd) { current = odd; }
  ~ScopedOddSystemCalls() { current = OddSystemCalls{}; }
  ScopedOddSystemCalls(const ScopedOddSystemCalls&) = delete;
  uint64_t calls() const { return current.calls; }

  static inline OddSystemCalls current;
};

}  // namespace xtree
