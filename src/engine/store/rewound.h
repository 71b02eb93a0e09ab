// Judges the files of an index in a data directory that was synchronized with another server's
// (pg_rewind): the log comes from the other server as it is, the data file is this server's own, cut
// or extended to the other's size. Each server folds in its own time, so the log may describe the
// operations since a capture that the data file does not hold, or be empty where the other server has
// folded what this one has not. Opened as they are such files would answer short.
//
// Threads: nobody else may use the files.
// Errors:  kNotFound: no file, or not an xtree index. What else is wrong with the data file is for
//          Load to say. kIoError: nothing is known.
#pragma once

#include <string>

#include "base/status.h"
#include "io/file_system.h"

namespace xtree {

// Whether the log names the data file's capture as the one that it builds on, and is without gaps.
// Then both files are whole: a capture is the same on all servers that have it, and its blocks are
// never changed. An empty log names nothing, so it proves nothing. `why` says what is wrong.
Status CheckRewound(const std::string& data_path, const std::string& log_path, bool* whole,
                    std::string* why);

// Marks both superblocks broken, durably. Idempotent; a crash in between leaves one mark, which
// counts.
Status MarkFileBroken(FileSystem* fs, const std::string& data_path);

}  // namespace xtree
