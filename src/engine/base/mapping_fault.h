// What is left of a fault in a mapped file until somebody reports it (io/mapping_guard.h).
// Threads: any; NoteMappingFault also from a signal handler.
#pragma once

#include <exception>

namespace xtree {

// Thrown instead of aborting by an assertion that fails while a fault is not reported yet: it has been
// computing with zeros.
class MappingFault final : public std::exception {
 public:
  const char* what() const noexcept override { return "a mapped file could not be read or written"; }
};

void NoteMappingFault() noexcept;
bool MappingFaultPending() noexcept;
// It has been reported.
void ForgetMappingFaults() noexcept;

}  // namespace xtree
