// CRC-32C (Castagnoli, reflected, initial and final complement), as in iSCSI (RFC 3720, B.4).
// Hardware instruction with run-time dispatch, slicing tables elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xtree {

// Extends `crc` (0 to begin) with `length` bytes.
uint32_t Crc32c(uint32_t crc, const void* data, size_t length);
uint32_t Crc32cPortable(uint32_t crc, const void* data, size_t length);  // For tests.

}  // namespace xtree
