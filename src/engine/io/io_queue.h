// Batches of syncs over many files: one io_uring submission where the kernel allows it, plain calls
// where it does not (containers often forbid io_uring).
//
// Threads: one batch at a time per IoQueue; different queues are independent.
// Errors:  each file gets its own Status; a batch does not stop at the first failure.
// Source:  io_uring(7); liburing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace xtree {

struct SyncRequest {
  std::string path;
  Status status;      // Result. kNotFound if the file is gone, which a caller may accept.
};

class IoQueue {
 public:
  virtual ~IoQueue() = default;
  // fdatasync of every file in the batch, all in flight together as far as the queue can.
  virtual void SyncAll(std::vector<SyncRequest>* batch) = 0;
  virtual const char* name() const = 0;  // "io_uring" or "portable".
};

// io_uring if permitted, else the portable queue; `why_portable` (may be null) then says why.
std::unique_ptr<IoQueue> NewIoQueue(std::string* why_portable);
std::unique_ptr<IoQueue> NewPortableIoQueue();

}  // namespace xtree
