// Reads blocks of an index's data file or log, over all its 1 GiB segments, without ever writing.
// Threads: one. Descriptors: one for each segment, until the reader is gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "segment/block.h"

namespace xtree {

class FileReader {
 public:
  FileReader() = default;
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // kNotFound if there is no such file.
  Status Open(const std::string& path);
  // Whole blocks in all segments together, and bytes behind the last whole block.
  uint32_t blocks() const { return blocks_; }
  uint64_t stray_bytes() const { return stray_bytes_; }
  const std::string& path() const { return path_; }
  // REQUIRES: first + count <= blocks().
  Status Read(uint32_t first, uint32_t count, std::byte* to) const;

 private:
  std::string path_;
  std::vector<int> segments_;
  uint32_t blocks_ = 0;
  uint64_t stray_bytes_ = 0;
};

}  // namespace xtree
