// CheckIndexFiles: verifies an index's files from the outside, as xtree-fsck does.
//
// It restates the formats (src/README.md) in code of its own, sharing with the engine only struct
// layouts, the checksum and the node layout, so that a bug of the writer does not hide here too.
// It sees what a recovery would start from: the newest capture and the log behind it.
//
// Checked: both superblock slots; the table directory and table pages; every live node's blocks
// (page header, CRC, identity, place); that no block is used twice; that every live node is reached
// exactly once from the roots; levels, counts, group boxes, and that each parent's box contains its
// child; the counters in the superblock; log blocks and frames.
//
// Threads:     one. The files may be in use: a fold meanwhile can make sound files look damaged.
// Durability:  opens files for reading only and changes nothing.
// Descriptors: one for each 1 GiB file segment while it runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace xtree {

struct FileReport {
  std::vector<std::string> notes;     // What the files hold, and what is odd but no damage.
  std::vector<std::string> problems;  // At most kFileProblemsMax; empty means sound.
};
inline constexpr size_t kFileProblemsMax = 100;

// The log that belongs to a data file: the visibility-map fork for the host's names (all digits, or
// t<backend>_<digits>), else NAME_log.
std::string LogPathFor(const std::string& data_path);

// A missing data file is an error; everything else that is wrong is a problem in the report.
Status CheckIndexFiles(const std::string& data_path, const std::string& log_path,
                       FileReport* report);

}  // namespace xtree
