// Packed coordinates: how logs write a key, in as few bytes as give each number back to the bit.
//
// All numbers of a key are written in one way, which takes a byte beside them: as f32 if none loses anything
// or is subnormal there, as the integers of one decimal scale (tree/decimal.h), or as they are.
//
// Threads: functions of their arguments alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tree/decimal.h"
#include "tree/geometry.h"

namespace xtree {

// In logs and the host's WAL. DO NOT CHANGE.
inline constexpr uint8_t kPackedF64 = 0;
inline constexpr uint8_t kPackedF32 = 1;
inline constexpr uint8_t kPackedDecimal = 2;  // i32 of scale 0; each further scale is one more.
inline constexpr uint8_t kPackingMax = kPackedDecimal + kDecimalScaleMax;

inline constexpr uint32_t PackedBytes(uint8_t packing, uint32_t dims, bool point) {
  return (point ? 1 : 2) * dims * (packing == kPackedF64 ? 8 : 4);
}
inline constexpr uint32_t kPackedBytesMax = PackedBytes(kPackedF64, kDimsMax, false);

// Writes lo, then hi unless it is a point. Returns how many bytes, PackedBytes of *packing.
uint32_t PackCoords(const double* lo, const double* hi, uint32_t dims, bool point, std::byte* to,
                    uint8_t* packing) noexcept;
// Reads what PackCoords wrote; a point's hi is its lo. False if no key of that shape is written so.
// REQUIRES: dims <= kDimsMax.
bool UnpackCoords(const std::byte* from, uint64_t bytes, uint8_t packing, uint32_t dims, bool point,
                  double* lo, double* hi) noexcept;

}  // namespace xtree
