// Turns a SIGBUS at a mapped file into an error of the call that meets it.
//
// A page of a mapping is not to be had when the file has been cut short under it, or when its device
// fails. The kernel says so by SIGBUS, at a load or a store in the middle of anything; a jump out of
// there would skip destructors. So the handler puts a page of zeros into the place, counts a fault for
// the mapping's owner and returns: the instruction is repeated, and the code goes on with zeros until
// somebody looks at the count. Therefore
//   - whoever has read through a mapping looks at the count before the result is used or kept;
//   - the zeros are private: what was stored is lost, and the owner must drop the mapping;
//   - code that reads a mapping stays within memory whatever it reads, as it must with damaged files
//     anyway. An assertion that fails after a fault throws MappingFault (base/macros.h).
//
// A SIGBUS anywhere else is left to the handler that was there before, or ends the process.
//
// Threads: all functions from any thread; the handler runs in the thread that met the fault.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "io/file_system.h"

namespace xtree {

// Once in a process; further calls do nothing.
void InstallMappingGuard();
// Faults within [base, base + bytes) are counted in *faults from now on. The range is mapped, and
// `faults` stays valid, until UnguardMapping. May throw std::bad_alloc.
void GuardMapping(std::byte* base, uint64_t bytes, std::atomic<uint32_t>* faults);
// Before the range is unmapped.
void UnguardMapping(std::byte* base) noexcept;

// A guarded mapping of the first `bytes` of a file, for a short look.
class GuardedMapping {
 public:
  GuardedMapping(FileSystem* fs, const char* path, uint64_t bytes);
  ~GuardedMapping();
  GuardedMapping(const GuardedMapping&) = delete;
  const Status& status() const { return status_; }
  std::byte* base() const { return base_; }
  bool faulted() const { return faults_.load(std::memory_order_relaxed) != 0; }

 private:
  FileSystem* const fs_;
  const uint64_t bytes_;
  std::atomic<uint32_t> faults_{0};
  std::byte* base_ = nullptr;
  Status status_;
};

}  // namespace xtree
