// What the engine's benchmarks share: reading the data files, a clock, medians, scratch directories.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/macros.h"

namespace xtree {

// The directory of the large files if XTREE_DATA names one that has `file`, else the bundled data.
inline std::string DataPath(const std::string& file) {
  const char* data = getenv("XTREE_DATA");
  if (data != nullptr) {
    const std::string path = std::string(data) + "/" + file;
    if (FILE* opened = fopen(path.c_str(), "rb")) {
      fclose(opened);
      return path;
    }
  }
  return std::string(XTREE_SOURCE_DIR) + "/test/data/" + file;
}

// The first `columns` numbers of every line; at most `rows_max` lines. Empty if there is no file.
inline std::vector<double> ReadColumns(const std::string& path, uint32_t columns,
                                       uint64_t rows_max = UINT64_MAX) {
  std::vector<double> values;
  FILE* pipe = popen(("gzip -dc '" + path + "' 2>/dev/null").c_str(), "r");
  XT_ASSERT(pipe != nullptr);
  char line[4096];
  for (uint64_t row = 0; row < rows_max && fgets(line, sizeof(line), pipe) != nullptr; ++row) {
    char* at = line;
    for (uint32_t c = 0; c < columns; ++c) {
      values.push_back(strtod(at, &at));
      if (*at == ',') ++at;
    }
  }
  pclose(pipe);
  return values;
}

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

inline double Median(std::vector<double> values) {
  XT_ASSERT(!values.empty());
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// A directory of its own below XTREE_BENCH_DIR (default: where the program runs), gone at the end.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    const char* parent = getenv("XTREE_BENCH_DIR");
    path_ = std::string(parent != nullptr ? parent : ".") + "/xtree-bench-XXXXXX";
    XT_ASSERT(mkdtemp(path_.data()) != nullptr);
  }
  ~ScratchDirectory() { (void)!system(("rm -rf '" + path_ + "'").c_str()); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace xtree
