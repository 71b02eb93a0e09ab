// CheckLogFile: the part of CheckIndexFiles (tools/file_checker.h) that reads the delta log.
#pragma once

#include <string>

#include "base/status.h"
#include "checkpoint/superblock.h"
#include "tools/file_checker.h"

namespace xtree {

// Collects what a check has to say.
class FileFindings {
 public:
  explicit FileFindings(FileReport* report) : report_(report) {}
  void Note(const char* format, ...) XT_PRINTF(2, 3);
  void Problem(const char* format, ...) XT_PRINTF(2, 3);

 private:
  FileReport* const report_;
};

// A log that is missing under the host, or where the superblock expects none, is fine. Which of the host's frames count
// is the server's to say (its timeline history is elsewhere), so under the host unreadable bytes in
// front of later frames are a note; standalone they are judged as recovery would.
Status CheckLogFile(const std::string& path, const Superblock& superblock, FileFindings* findings);

}  // namespace xtree
