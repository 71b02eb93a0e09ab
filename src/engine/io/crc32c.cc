#include "io/crc32c.h"

#include <array>
#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace xtree {
namespace {

// x^32 + x^28 + x^27 + x^26 + x^25 + x^23 + x^22 + x^20 + x^19 + x^18 + x^14 + x^13 + x^11 + x^10 +
// x^9 + x^8 + x^6 + 1, bits reversed.
constexpr uint32_t kPolynomial = 0x82f63b78;

using ByteTable = std::array<uint32_t, 256>;

// kTables[k][b]: the effect of byte b followed by k zero bytes, so that eight bytes need eight
// independent look-ups instead of eight dependent ones ("slicing by 8").
constexpr std::array<ByteTable, 8> MakeTables() {
  std::array<ByteTable, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}
constexpr std::array<ByteTable, 8> kTables = MakeTables();

inline uint64_t Load64(const unsigned char* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

#if defined(__x86_64__)

// The CRC instruction has a latency of three cycles and a throughput of one, so long inputs run as
// three independent streams. Joining two streams needs the first one's register after as many zero
// bytes as the second is long; that is linear in the register's bits, hence a table per byte of it.
constexpr size_t kLongStripe = 1024;  // Three of them: most of a block.
constexpr size_t kShortStripe = 168;  // Three of them: the rest of a block, and log frames.

using ShiftTable = std::array<ByteTable, 4>;

constexpr ShiftTable MakeShiftTable(size_t zero_bytes) {
  std::array<uint32_t, 32> image{};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t i = 0; i < zero_bytes; ++i) crc = (crc >> 8) ^ kTables[0][crc & 0xff];
    image[bit] = crc;
  }
  ShiftTable table{};
  for (uint32_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t crc = 0;
      for (uint32_t bit = 0; bit < 8; ++bit) {
        if ((value >> bit & 1) != 0) crc ^= image[byte * 8 + bit];
      }
      table[byte][value] = crc;
    }
  }
  return table;
}
constexpr ShiftTable kLongShift = MakeShiftTable(kLongStripe);
constexpr ShiftTable kShortShift = MakeShiftTable(kShortStripe);

inline uint64_t Shift(const ShiftTable& table, uint64_t crc) {
  return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^
         table[3][crc >> 24 & 0xff];
}

template <size_t kStripe>
__attribute__((target("sse4.2"))) inline uint64_t ThreeStripes(uint64_t crc,
                                                               const unsigned char* p,
                                                               const ShiftTable& table) {
  static_assert(kStripe % 8 == 0);
  uint64_t second = 0;
  uint64_t third = 0;
  for (size_t i = 0; i < kStripe; i += 8) {
    crc = _mm_crc32_u64(crc, Load64(p + i));
    second = _mm_crc32_u64(second, Load64(p + kStripe + i));
    third = _mm_crc32_u64(third, Load64(p + 2 * kStripe + i));
  }
  return Shift(table, Shift(table, crc) ^ second) ^ third;
}

__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(uint32_t seed, const void* data,
                                                       size_t length) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint64_t crc = ~seed;
  while (length >= 3 * kLongStripe) {
    crc = ThreeStripes<kLongStripe>(crc, p, kLongShift);
    p += 3 * kLongStripe;
    length -= 3 * kLongStripe;
  }
  while (length >= 3 * kShortStripe) {
    crc = ThreeStripes<kShortStripe>(crc, p, kShortShift);
    p += 3 * kShortStripe;
    length -= 3 * kShortStripe;
  }
  for (; length >= 8; p += 8, length -= 8) crc = _mm_crc32_u64(crc, Load64(p));
  uint32_t tail = static_cast<uint32_t>(crc);
  for (; length > 0; ++p, --length) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

#endif  // __x86_64__

using CrcFunction = uint32_t(uint32_t, const void*, size_t);
uint32_t ChooseAndRun(uint32_t crc, const void* data, size_t length);

// Constant-initialized, so that a static initializer elsewhere may already compute a CRC. Threads
// that race through the first call all store the same choice.
constinit std::atomic<CrcFunction*> chosen{ChooseAndRun};

uint32_t ChooseAndRun(uint32_t crc, const void* data, size_t length) {
  CrcFunction* best = Crc32cPortable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) best = Crc32cSse42;
#endif
  chosen.store(best, std::memory_order_relaxed);
  return best(crc, data, length);
}

}  // namespace

uint32_t Crc32c(uint32_t crc, const void* data, size_t length) {
  return chosen.load(std::memory_order_relaxed)(crc, data, length);
}

uint32_t Crc32cPortable(uint32_t seed, const void* data, size_t length) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint32_t crc = ~seed;
  for (; length >= 8; p += 8, length -= 8) {
    const uint64_t word = Load64(p) ^ crc;
    crc = 0;
    for (uint32_t i = 0; i < 8; ++i) crc ^= kTables[7 - i][word >> (8 * i) & 0xff];
  }
  for (; length > 0; ++p, --length) crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xff];
  return ~crc;
}

}  // namespace xtree
