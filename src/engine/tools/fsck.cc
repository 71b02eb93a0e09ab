// xtree-fsck FILE...: verifies index files without changing them (tools/file_checker.h).
//
// FILE is an index's data file: NAME in a standalone directory, or a relation's main fork under the
// host. Its log is found beside it.
// Exit status: 0 all sound, 1 problems or files that cannot be read, 2 wrong usage.
#include <cstdio>
#include <cstring>

#include "tools/file_checker.h"

namespace {

constexpr char kUsage[] =
    "usage: xtree-fsck [-q] FILE...\n"
    "Verifies xtree index files: NAME (with NAME_log), or a relation's main fork (with its _vm\n"
    "fork).\n"
    "  -q  print problems only\n";

bool CheckOne(const char* path, bool quiet) {
  xtree::FileReport report;
  const xtree::Status status =
      xtree::CheckIndexFiles(path, xtree::LogPathFor(path), &report);
  if (!quiet) {
    for (const std::string& note : report.notes) std::printf("%s: %s\n", path, note.c_str());
  }
  for (const std::string& problem : report.problems) {
    std::printf("%s: PROBLEM: %s\n", path, problem.c_str());
  }
  if (!status.ok()) std::fprintf(stderr, "xtree-fsck: %s\n", status.message());
  const bool sound = status.ok() && report.problems.empty();
  if (!quiet) std::printf("%s: %s\n", path, sound ? "sound" : "NOT SOUND");
  return sound;
}

}  // namespace

int main(int argc, char** argv) {
  bool quiet = false;
  int first = 1;
  for (; first < argc && argv[first][0] == '-'; ++first) {
    if (std::strcmp(argv[first], "-q") == 0) {
      quiet = true;
    } else if (std::strcmp(argv[first], "--help") == 0) {
      std::fputs(kUsage, stdout);
      return 0;
    } else {
      std::fputs(kUsage, stderr);
      return 2;
    }
  }
  if (first == argc) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  bool sound = true;
  for (int i = first; i < argc; ++i) sound &= CheckOne(argv[i], quiet);
  return sound ? 0 : 1;
}
