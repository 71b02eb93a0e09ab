#include "tree/kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tree/node_layout.h"

#if defined(__x86_64__) && !XT_TSAN
#define XT_X86 1
#if !defined(__clang__)
// GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#else
#define XT_X86 0
#endif

namespace xtree {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

void AddTest(BoundTest* tests, uint32_t* count, uint32_t row, double bound, bool upper) {
  tests[(*count)++] = BoundTest{row, upper ? RoundDown(bound) : RoundUp(bound), 0, bound};
}

// The distance in one dimension. A NaN coordinate of a box bounds nothing.
double Side(double p, double lo, double hi, bool point) {
  if (point) return std::fabs(p - lo);
  if (std::isnan(p)) return p;
  return p > hi ? p - hi : lo > p ? lo - p : 0;
}

// As the host's pg_hypot, for sides that are not negative.
double Hypot(double x, double y) {
  if (std::isinf(x) || std::isinf(y)) return kInf;
  if (std::isnan(x) || std::isnan(y)) return std::numeric_limits<double>::quiet_NaN();
  const double large = std::max(x, y);
  const double small = std::min(x, y);
  if (small == 0) return large;
  const double ratio = small / large;
  return large * std::sqrt(1.0 + ratio * ratio);
}

void SlowLeafDistances(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                       const NearestQuery& q, double* distances) {
  double lo[kDimsMax], hi[kDimsMax];
  for (uint32_t i = 0; i < l.group_size; ++i) {
    l.ReadKey(block, group * l.group_size + i, lo, hi);
    distances[i] = KeyDistance(q, lo, hi);
  }
}

}  // namespace

void WindowQuery::Prepare(const KeySpec& spec, const Predicate& p) {
  empty = false;
  nan_matches = p.nan_matches;
  unit = 0;
  upper_count = lower_count = le_count = ge_count = 0;
  for (uint32_t d = 0; d < spec.dims; ++d) {
    // Written so that a NaN bound is impossible too.
    if (!(p.lo_min[d] <= p.lo_max[d] && p.hi_min[d] <= p.hi_max[d])) empty = true;
    const double upper_bound = std::min(p.lo_max[d], p.hi_max[d]);
    const double lower_bound = std::max(p.lo_min[d], p.hi_min[d]);
    if (upper_bound < kInf) AddTest(upper, &upper_count, 2 * d, upper_bound, true);
    if (lower_bound > -kInf) AddTest(lower, &lower_count, 2 * d, lower_bound, false);
    if (spec.kind == KeyKind::kPoint) {
      if (upper_bound < kInf) AddTest(le, &le_count, d, upper_bound, true);
      if (lower_bound > -kInf) AddTest(ge, &ge_count, d, lower_bound, false);
      continue;
    }
    if (p.lo_max[d] < kInf) AddTest(le, &le_count, 2 * d, p.lo_max[d], true);
    if (p.hi_max[d] < kInf) AddTest(le, &le_count, 2 * d + 1, p.hi_max[d], true);
    if (p.lo_min[d] > -kInf) AddTest(ge, &ge_count, 2 * d, p.lo_min[d], false);
    if (p.hi_min[d] > -kInf) AddTest(ge, &ge_count, 2 * d + 1, p.hi_min[d], false);
  }
}

void WindowQuery::PrepareDecimal(double decimal_unit) {
  unit = decimal_unit;
  // An infinite bound that no key meets is possible too.
  for (uint32_t t = 0; t < le_count; ++t) le[t].bound_k = DecimalAtMost(le[t].bound, unit);
  for (uint32_t t = 0; t < ge_count; ++t) ge[t].bound_k = DecimalAtLeast(ge[t].bound, unit);
}

void NearestQuery::Prepare(const KeySpec& spec, const double* point) {
  dims = spec.dims;
  points = spec.kind == KeyKind::kPoint;
  finite = true;
  for (uint32_t d = 0; d < dims; ++d) {
    p[d] = point[d];
    down[d] = RoundDown(point[d]);
    up[d] = RoundUp(point[d]);
    finite = finite && std::isfinite(point[d]);
  }
}

double KeyDistance(const NearestQuery& q, const double* lo, const double* hi) {
  const double x = Side(q.p[0], lo[0], hi[0], q.points);
  if (q.dims == 1) return x;
  if (q.dims == 2) return Hypot(x, Side(q.p[1], lo[1], hi[1], q.points));
  double sum = x * x;
  for (uint32_t d = 1; d < q.dims; ++d) {
    const double y = Side(q.p[d], lo[d], hi[d], q.points);
    sum += y * y;
  }
  return std::sqrt(sum);
}

// ---------------------------------------------------------------------------------- Portable.
namespace {
namespace portable {

#define XT_KERNEL static inline
#define XT_ENTRY static
constexpr const char* kName = "portable";
constexpr uint32_t kF = 4;
constexpr uint32_t kD = 4;
struct F {
  float v[kF];
};
struct D {
  double v[kD];
};
struct I {
  int32_t v[kF];
};

template <class V, class T, class Op>
inline V Map(Op op) {
  V r;
  for (uint32_t i = 0; i < 4; ++i) r.v[i] = static_cast<T>(op(i));
  return r;
}
inline F LoadF(const float* p) {
  return Map<F, float>([p](uint32_t i) { return LoadRelaxed(p + i); });
}
inline D LoadD(const double* p) {
  return Map<D, double>([p](uint32_t i) { return LoadRelaxed(p + i); });
}
inline D Widen(const float* p) {
  return Map<D, double>([p](uint32_t i) { return LoadRelaxed(p + i); });
}
inline D Widen(const int32_t* p) {
  return Map<D, double>([p](uint32_t i) { return LoadRelaxed(p + i); });
}
inline I LoadI(const int32_t* p) {
  return Map<I, int32_t>([p](uint32_t i) { return LoadRelaxed(p + i); });
}
inline I SetI(int32_t x) {
  return Map<I, int32_t>([x](uint32_t) { return x; });
}
inline uint32_t MaskLe(const I& x, const I& y) {
  uint32_t m = 0;
  for (uint32_t i = 0; i < kF; ++i) m |= uint32_t{x.v[i] <= y.v[i]} << i;
  return m;
}
inline F SetF(float x) {
  return Map<F, float>([x](uint32_t) { return x; });
}
inline D SetD(double x) {
  return Map<D, double>([x](uint32_t) { return x; });
}
inline void StoreF(float* p, const F& x) { std::copy(x.v, x.v + kF, p); }
inline void StoreD(double* p, const D& x) { std::copy(x.v, x.v + kD, p); }

#define XT_PORTABLE_OPS(V, T)                                                               \
  inline V Add(const V& x, const V& y) {                                                    \
    return Map<V, T>([&](uint32_t i) { return x.v[i] + y.v[i]; });                          \
  }                                                                                         \
  inline V Sub(const V& x, const V& y) {                                                    \
    return Map<V, T>([&](uint32_t i) { return x.v[i] - y.v[i]; });                          \
  }                                                                                         \
  inline V Mul(const V& x, const V& y) {                                                    \
    return Map<V, T>([&](uint32_t i) { return x.v[i] * y.v[i]; });                          \
  }                                                                                         \
  inline V Min(const V& x, const V& y) {                                                    \
    return Map<V, T>([&](uint32_t i) { return x.v[i] < y.v[i] ? x.v[i] : y.v[i]; });        \
  }                                                                                         \
  inline V Max(const V& x, const V& y) {                                                    \
    return Map<V, T>([&](uint32_t i) { return x.v[i] > y.v[i] ? x.v[i] : y.v[i]; });        \
  }                                                                                         \
  inline V Sqrt(const V& x) {                                                               \
    return Map<V, T>([&](uint32_t i) { return std::sqrt(x.v[i]); });                        \
  }                                                                                         \
  template <bool kNan>                                                                      \
  inline uint32_t MaskLe(const V& x, const V& y) {                                          \
    uint32_t m = 0;                                                                         \
    for (uint32_t i = 0; i < 4; ++i) {                                                      \
      m |= uint32_t{kNan ? !(x.v[i] > y.v[i]) : x.v[i] <= y.v[i]} << i;                     \
    }                                                                                       \
    return m;                                                                               \
  }                                                                                         \
  template <bool kNan>                                                                      \
  inline uint32_t MaskGe(const V& x, const V& y) {                                          \
    uint32_t m = 0;                                                                         \
    for (uint32_t i = 0; i < 4; ++i) {                                                      \
      m |= uint32_t{kNan ? !(x.v[i] < y.v[i]) : x.v[i] >= y.v[i]} << i;                     \
    }                                                                                       \
    return m;                                                                               \
  }
XT_PORTABLE_OPS(F, float)
XT_PORTABLE_OPS(D, double)
#undef XT_PORTABLE_OPS
inline D Div(const D& x, const D& y) {
  return Map<D, double>([&](uint32_t i) { return x.v[i] / y.v[i]; });
}
inline D FromDecimals(const D& k, double unit) { return Div(k, SetD(unit)); }

template <uint32_t G>
inline void EmitLeafIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* low = reinterpret_cast<const uint32_t*>(ids);
  const auto* high = reinterpret_cast<const uint16_t*>(ids + G * sizeof(uint32_t));
  for (; mask != 0; mask &= mask - 1) {
    const int i = __builtin_ctz(mask);
    *out++ = uint64_t{LoadRelaxed(high + i)} << 32 | LoadRelaxed(low + i);
  }
}
template <uint32_t G>
inline void EmitChildIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* id = reinterpret_cast<const uint64_t*>(ids);
  for (; mask != 0; mask &= mask - 1) *out++ = LoadRelaxed(id + __builtin_ctz(mask));
}

#include "tree/kernels_body.h"
#undef XT_KERNEL
#undef XT_ENTRY
}  // namespace portable

// FromDecimals by vector: k / unit, rounded once, for a fifth of what a division costs. q is within 2 ulp
// of the quotient, r = k - q * unit is exact (a multiple of q's ulp, less than 2^32 of them), and q +
// r / unit would be the quotient. That r * y misses r / unit by a part in 2^53 cannot change how the
// sum is rounded: the quotient is no nearer to the middle of two doubles than 1 / (2 * unit) ulp.
// Source: Markstein, "Computation of elementary functions on the IBM RISC System/6000", 1990.
#if XT_X86
// -------------------------------------------------------------------------------------- AVX2.
namespace avx2 {

#define XT_TARGET target("avx2,fma,bmi,bmi2,popcnt")
#define XT_KERNEL static inline __attribute__((always_inline, XT_TARGET))
#define XT_ENTRY static __attribute__((XT_TARGET))
constexpr const char* kName = "avx2";
constexpr uint32_t kF = 8;
constexpr uint32_t kD = 4;
using F = __m256;
using D = __m256d;
using I = __m256i;

XT_KERNEL F LoadF(const float* p) { return _mm256_loadu_ps(p); }
XT_KERNEL D LoadD(const double* p) { return _mm256_loadu_pd(p); }
XT_KERNEL D Widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
XT_KERNEL D Widen(const int32_t* p) {
  return _mm256_cvtepi32_pd(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
XT_KERNEL I LoadI(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
XT_KERNEL I SetI(int32_t x) { return _mm256_set1_epi32(x); }
XT_KERNEL uint32_t MaskLe(I x, I y) {
  return static_cast<uint32_t>(~_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y)))) &
         0xff;
}
XT_KERNEL F SetF(float x) { return _mm256_set1_ps(x); }
XT_KERNEL D SetD(double x) { return _mm256_set1_pd(x); }
XT_KERNEL void StoreF(float* p, F x) { _mm256_storeu_ps(p, x); }
XT_KERNEL void StoreD(double* p, D x) { _mm256_storeu_pd(p, x); }
XT_KERNEL F Add(F x, F y) { return _mm256_add_ps(x, y); }
XT_KERNEL F Sub(F x, F y) { return _mm256_sub_ps(x, y); }
XT_KERNEL F Mul(F x, F y) { return _mm256_mul_ps(x, y); }
XT_KERNEL F Min(F x, F y) { return _mm256_min_ps(x, y); }
XT_KERNEL F Max(F x, F y) { return _mm256_max_ps(x, y); }
XT_KERNEL F Sqrt(F x) { return _mm256_sqrt_ps(x); }
XT_KERNEL D Add(D x, D y) { return _mm256_add_pd(x, y); }
XT_KERNEL D Sub(D x, D y) { return _mm256_sub_pd(x, y); }
XT_KERNEL D Mul(D x, D y) { return _mm256_mul_pd(x, y); }
XT_KERNEL D Div(D x, D y) { return _mm256_div_pd(x, y); }
XT_KERNEL D FromDecimals(D k, double unit) {
  const D y = SetD(1 / unit);
  const D q = Mul(k, y);
  return _mm256_fmadd_pd(_mm256_fnmadd_pd(q, SetD(unit), k), y, q);
}
XT_KERNEL D Min(D x, D y) { return _mm256_min_pd(x, y); }
XT_KERNEL D Max(D x, D y) { return _mm256_max_pd(x, y); }
XT_KERNEL D Sqrt(D x) { return _mm256_sqrt_pd(x); }
template <bool kNan>
XT_KERNEL uint32_t MaskLe(F x, F y) {
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(x, y, kNan ? _CMP_NGT_UQ : _CMP_LE_OQ)));
}
template <bool kNan>
XT_KERNEL uint32_t MaskGe(F x, F y) {
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(x, y, kNan ? _CMP_NLT_UQ : _CMP_GE_OQ)));
}
template <bool kNan>
XT_KERNEL uint32_t MaskLe(D x, D y) {
  return static_cast<uint32_t>(
      _mm256_movemask_pd(_mm256_cmp_pd(x, y, kNan ? _CMP_NGT_UQ : _CMP_LE_OQ)));
}
template <bool kNan>
XT_KERNEL uint32_t MaskGe(D x, D y) {
  return static_cast<uint32_t>(
      _mm256_movemask_pd(_mm256_cmp_pd(x, y, kNan ? _CMP_NLT_UQ : _CMP_GE_OQ)));
}

template <uint32_t G>
XT_KERNEL void EmitLeafIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* low = reinterpret_cast<const uint32_t*>(ids);
  const auto* high = reinterpret_cast<const uint16_t*>(ids + G * sizeof(uint32_t));
  if (mask == (1u << G) - 1) {
    for (uint32_t i = 0; i < G; i += 4) {
      const __m256i l = _mm256_cvtepu32_epi64(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(low + i)));
      const __m256i h = _mm256_cvtepu16_epi64(
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high + i)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                          _mm256_or_si256(l, _mm256_slli_epi64(h, 32)));
    }
    return;
  }
  for (; mask != 0; mask &= mask - 1) {
    const int i = __builtin_ctz(mask);
    *out++ = uint64_t{high[i]} << 32 | low[i];
  }
}
template <uint32_t G>
XT_KERNEL void EmitChildIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* id = reinterpret_cast<const uint64_t*>(ids);
  for (; mask != 0; mask &= mask - 1) *out++ = id[__builtin_ctz(mask)];
}

#include "tree/kernels_body.h"
#undef XT_TARGET
#undef XT_KERNEL
#undef XT_ENTRY
}  // namespace avx2

// ----------------------------------------------------------------------------------- AVX-512.
namespace avx512 {

#define XT_TARGET target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")
#define XT_KERNEL static inline __attribute__((always_inline, XT_TARGET))
#define XT_ENTRY static __attribute__((XT_TARGET))
constexpr const char* kName = "avx512";
constexpr uint32_t kF = 16;
constexpr uint32_t kD = 8;
using F = __m512;
using D = __m512d;
using I = __m512i;

XT_KERNEL F LoadF(const float* p) { return _mm512_loadu_ps(p); }
XT_KERNEL D LoadD(const double* p) { return _mm512_loadu_pd(p); }
XT_KERNEL D Widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
XT_KERNEL D Widen(const int32_t* p) {
  return _mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
XT_KERNEL I LoadI(const int32_t* p) { return _mm512_loadu_si512(p); }
XT_KERNEL I SetI(int32_t x) { return _mm512_set1_epi32(x); }
XT_KERNEL uint32_t MaskLe(I x, I y) { return _mm512_cmple_epi32_mask(x, y); }
XT_KERNEL F SetF(float x) { return _mm512_set1_ps(x); }
XT_KERNEL D SetD(double x) { return _mm512_set1_pd(x); }
XT_KERNEL void StoreF(float* p, F x) { _mm512_storeu_ps(p, x); }
XT_KERNEL void StoreD(double* p, D x) { _mm512_storeu_pd(p, x); }
XT_KERNEL F Add(F x, F y) { return _mm512_add_ps(x, y); }
XT_KERNEL F Sub(F x, F y) { return _mm512_sub_ps(x, y); }
XT_KERNEL F Mul(F x, F y) { return _mm512_mul_ps(x, y); }
XT_KERNEL F Min(F x, F y) { return _mm512_min_ps(x, y); }
XT_KERNEL F Max(F x, F y) { return _mm512_max_ps(x, y); }
XT_KERNEL F Sqrt(F x) { return _mm512_sqrt_ps(x); }
XT_KERNEL D Add(D x, D y) { return _mm512_add_pd(x, y); }
XT_KERNEL D Sub(D x, D y) { return _mm512_sub_pd(x, y); }
XT_KERNEL D Mul(D x, D y) { return _mm512_mul_pd(x, y); }
XT_KERNEL D Div(D x, D y) { return _mm512_div_pd(x, y); }
XT_KERNEL D FromDecimals(D k, double unit) {
  const D y = SetD(1 / unit);
  const D q = Mul(k, y);
  return _mm512_fmadd_pd(_mm512_fnmadd_pd(q, SetD(unit), k), y, q);
}
XT_KERNEL D Min(D x, D y) { return _mm512_min_pd(x, y); }
XT_KERNEL D Max(D x, D y) { return _mm512_max_pd(x, y); }
XT_KERNEL D Sqrt(D x) { return _mm512_sqrt_pd(x); }
template <bool kNan>
XT_KERNEL uint32_t MaskLe(F x, F y) {
  return _mm512_cmp_ps_mask(x, y, kNan ? _CMP_NGT_UQ : _CMP_LE_OQ);
}
template <bool kNan>
XT_KERNEL uint32_t MaskGe(F x, F y) {
  return _mm512_cmp_ps_mask(x, y, kNan ? _CMP_NLT_UQ : _CMP_GE_OQ);
}
template <bool kNan>
XT_KERNEL uint32_t MaskLe(D x, D y) {
  return _mm512_cmp_pd_mask(x, y, kNan ? _CMP_NGT_UQ : _CMP_LE_OQ);
}
template <bool kNan>
XT_KERNEL uint32_t MaskGe(D x, D y) {
  return _mm512_cmp_pd_mask(x, y, kNan ? _CMP_NLT_UQ : _CMP_GE_OQ);
}

// Compressed in a register and stored whole: a compressing store takes many times as long.
template <uint32_t G>
XT_KERNEL void EmitLeafIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* low = reinterpret_cast<const uint32_t*>(ids);
  const auto* high = reinterpret_cast<const uint16_t*>(ids + G * sizeof(uint32_t));
  if constexpr (G >= 8) {
    for (uint32_t i = 0; i < G; i += 8, mask >>= 8) {
      const __m512i l = _mm512_cvtepu32_epi64(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low + i)));
      const __m512i h = _mm512_cvtepu16_epi64(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(high + i)));
      const __m512i id = _mm512_or_si512(l, _mm512_slli_epi64(h, 32));
      const auto lanes = static_cast<__mmask8>(mask);
      _mm512_storeu_si512(out, _mm512_maskz_compress_epi64(lanes, id));
      out += __builtin_popcount(lanes);
    }
  } else {
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      *out++ = uint64_t{high[i]} << 32 | low[i];
    }
  }
}
template <uint32_t G>
XT_KERNEL void EmitChildIds(const std::byte* ids, uint32_t mask, uint64_t* out) {
  const auto* id = reinterpret_cast<const uint64_t*>(ids);
  for (; mask != 0; mask &= mask - 1) *out++ = id[__builtin_ctz(mask)];
}

#include "tree/kernels_body.h"
#undef XT_TARGET
#undef XT_KERNEL
#undef XT_ENTRY
}  // namespace avx512
#endif  // XT_X86

struct KernelSets {
  const Kernels* sets[3];
  uint32_t count;
};

KernelSets FindKernelSets() {
  KernelSets s{{&portable::kKernels, nullptr, nullptr}, 1};
#if XT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2")) {
    s.sets[s.count++] = &avx2::kKernels;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
      s.sets[s.count++] = &avx512::kKernels;
    }
  }
#endif
  return s;
}

const KernelSets& Sets() {
  static const KernelSets sets = FindKernelSets();
  return sets;
}

}  // namespace

const Kernels& ActiveKernels() {
  static const Kernels* const best = Sets().sets[Sets().count - 1];
  return *best;
}

const Kernels* KernelSet(uint32_t i) { return i < Sets().count ? Sets().sets[i] : nullptr; }

}  // namespace xtree
