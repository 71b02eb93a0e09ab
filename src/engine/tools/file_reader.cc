#include "tools/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace xtree {

FileReader::~FileReader() {
  for (const int fd : segments_) close(fd);
}

Status FileReader::Open(const std::string& path) {
  XT_ASSERT(segments_.empty());
  path_ = path;
  for (uint32_t i = 0;; ++i) {
    const std::string name = i == 0 ? path : path + "." + std::to_string(i);
    const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      if (i > 0 && errno == ENOENT) return Status::Ok();
      return Status::FromErrno(errno, "could not open file \"%s\"", name.c_str());
    }
    segments_.push_back(fd);
    struct stat st;
    if (fstat(fd, &st) != 0) {
      return Status::FromErrno(errno, "could not stat file \"%s\"", name.c_str());
    }
    const uint64_t size = static_cast<uint64_t>(st.st_size);
    blocks_ += static_cast<uint32_t>(size / kBlockBytes);
    stray_bytes_ += size % kBlockBytes;
    if (size < kWindowBytes) return Status::Ok();
  }
}

Status FileReader::Read(uint32_t first, uint32_t count, std::byte* to) const {
  XT_ASSERT(uint64_t{first} + count <= blocks_);
  while (count > 0) {
    const uint32_t within = first % kWindowBlocks;
    const uint32_t blocks = std::min(count, kWindowBlocks - within);
    uint64_t offset = uint64_t{within} * kBlockBytes;
    uint64_t left = uint64_t{blocks} * kBlockBytes;
    while (left > 0) {
      const ssize_t got = pread(segments_[first / kWindowBlocks], to, left,
                                static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        return Status::FromErrno(got < 0 ? errno : EIO, "could not read block %u of file \"%s\"",
                                 first, path_.c_str());
      }
      to += got;
      offset += static_cast<uint64_t>(got);
      left -= static_cast<uint64_t>(got);
    }
    first += blocks;
    count -= blocks;
  }
  return Status::Ok();
}

}  // namespace xtree
