#include "tree/packed_coords.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace xtree {
namespace {

// Numbers that are subnormal as f32 stay f64: where a library has set the processor to take subnormal ones
// for zero, as -ffast-math does, they would be read as zeros.
bool PackF32(const double* from, uint32_t count, std::byte* to) {
  constexpr float kNormalMin = std::numeric_limits<float>::min();
  for (uint32_t i = 0; i < count; ++i) {
    const float narrow = static_cast<float>(from[i]);
    if (std::bit_cast<uint64_t>(double{narrow}) != std::bit_cast<uint64_t>(from[i])) return false;
    if (std::fabs(narrow) < kNormalMin && narrow != 0) return false;
    std::memcpy(to + i * sizeof(narrow), &narrow, sizeof(narrow));
  }
  return true;
}

bool PackDecimal(const double* from, uint32_t count, double unit, std::byte* to) {
  for (uint32_t i = 0; i < count; ++i) {
    int32_t k;
    if (!ToDecimal(from[i], unit, &k)) return false;
    std::memcpy(to + i * sizeof(k), &k, sizeof(k));
  }
  return true;
}

}  // namespace

uint32_t PackCoords(const double* lo, const double* hi, uint32_t dims, bool point, std::byte* to,
                    uint8_t* packing) noexcept {
  const uint32_t corner = dims * sizeof(int32_t);  // Bytes of a packed one.
  if (PackF32(lo, dims, to) && (point || PackF32(hi, dims, to + corner))) {
    *packing = kPackedF32;
    return PackedBytes(kPackedF32, dims, point);
  }
  double magnitude = 0;
  for (uint32_t d = 0; d < dims; ++d) {
    magnitude = std::max({magnitude, std::fabs(lo[d]), point ? 0 : std::fabs(hi[d])});
  }
  // The largest scale with room: it has all numbers that smaller ones have.
  const int scale = DecimalScaleFor(magnitude);
  if (scale >= 0 && PackDecimal(lo, dims, kPowersOfTen[scale], to) &&
      (point || PackDecimal(hi, dims, kPowersOfTen[scale], to + corner))) {
    *packing = static_cast<uint8_t>(kPackedDecimal + scale);
    return PackedBytes(*packing, dims, point);
  }
  *packing = kPackedF64;
  CopyCoords(to, lo, dims);
  if (!point) CopyCoords(to + dims * sizeof(double), hi, dims);
  return PackedBytes(kPackedF64, dims, point);
}

bool UnpackCoords(const std::byte* from, uint64_t bytes, uint8_t packing, uint32_t dims, bool point,
                  double* lo, double* hi) noexcept {
  XT_ASSERT(dims <= kDimsMax);
  if (packing > kPackingMax || bytes != PackedBytes(packing, dims, point)) return false;
  const uint32_t corners = point ? 1 : 2;
  for (uint32_t corner = 0; corner < corners; ++corner) {
    double* to = corner == 0 ? lo : hi;
    for (uint32_t d = 0; d < dims; ++d) {
      const uint32_t i = corner * dims + d;
      if (packing == kPackedF64) {
        std::memcpy(&to[d], from + i * sizeof(double), sizeof(double));
      } else if (packing == kPackedF32) {
        float narrow;
        std::memcpy(&narrow, from + i * sizeof(narrow), sizeof(narrow));
        to[d] = narrow;
      } else {
        int32_t k;
        std::memcpy(&k, from + i * sizeof(k), sizeof(k));
        to[d] = FromDecimal(k, kPowersOfTen[packing - kPackedDecimal]);
      }
    }
  }
  if (point) CopyCoords(hi, lo, dims);
  return true;
}

}  // namespace xtree
