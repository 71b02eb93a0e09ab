// The kernels over an abstract vector unit. kernels.cc includes this once for each instruction set,
// inside a namespace of its own that has defined:
//   F, I, D      vectors of kF floats, kF 32-bit integers and kD doubles (kF, kD <= 16).
//   LoadF, SetF, LoadI, SetI, LoadD, SetD, StoreF, StoreD, Widen (the first kD floats or integers from
//     memory to a D)
//   FromDecimals(x, unit): FromDecimal of each lane, which are integers.
//   Add, Sub, Mul, Div, Min, Max, Sqrt (Min and Max return the second operand if one is NaN)
//   MaskLe<nan>(x, y), MaskGe<nan>(x, y): a bit for each lane; `nan`: unordered lanes count as true.
//     MaskLe(x, y) of integers.
//   EmitLeafIds<G>(ids, mask, out), EmitChildIds<G>(ids, mask, out): store the ids whose mask bits
//     are set, in order; may write G elements.
// and the macros XT_KERNEL (declares a function that is inlined) and XT_ENTRY (one that is called),
// which carry the instruction set, so that no other function of the program is compiled for it.
// There is deliberately no include guard.

template <uint32_t G>
constexpr uint32_t kLanes = static_cast<uint32_t>((uint64_t{1} << G) - 1);

XT_KERNEL uint64_t FirstBits(uint32_t n) {
  return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// Lanes [0, N) of a row against a bound. Loads may run past the row, never past the block.
template <uint32_t N, bool kLess, bool kNan>
XT_KERNEL uint32_t TestRow(const float* row, float bound) {
  uint32_t mask = 0;
  const F b = SetF(bound);
  for (uint32_t i = 0; i < N; i += kF) {
    const F x = LoadF(row + i);
    mask |= (kLess ? MaskLe<kNan>(x, b) : MaskGe<kNan>(x, b)) << i;
  }
  return mask & kLanes<N>;
}
template <uint32_t N, bool kLess, bool kNan>
XT_KERNEL uint32_t TestRow(const double* row, double bound) {
  uint32_t mask = 0;
  const D b = SetD(bound);
  for (uint32_t i = 0; i < N; i += kD) {
    const D x = LoadD(row + i);
    mask |= (kLess ? MaskLe<kNan>(x, b) : MaskGe<kNan>(x, b)) << i;
  }
  return mask & kLanes<N>;
}
template <uint32_t N, bool kLess, bool kNan>
XT_KERNEL uint32_t TestRow(const int32_t* row, int32_t bound) {
  uint32_t mask = 0;
  const I b = SetI(bound);
  for (uint32_t i = 0; i < N; i += kF) {
    const I x = LoadI(row + i);
    mask |= (kLess ? MaskLe(x, b) : MaskLe(b, x)) << i;
  }
  return mask & kLanes<N>;
}
XT_KERNEL int32_t BoundOf(const BoundTest& test, int32_t) { return test.bound_k; }
XT_KERNEL float BoundOf(const BoundTest& test, float) { return test.bound32; }
XT_KERNEL double BoundOf(const BoundTest& test, double) { return test.bound; }

struct GroupMasks {
  uint64_t overlap;  // May hold matches.
  uint64_t inside;   // All keys match. Only among `overlap`.
};

// Compares the group boxes; 16 groups at a time. Beyond the used groups lie stale boxes or ids.
template <bool kInside>
XT_KERNEL GroupMasks TestGroups(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                                const WindowQuery& q) {
  const uint32_t used = (count + l.group_size - 1) >> l.group_shift;
  GroupMasks masks{0, 0};
  for (uint32_t base = 0; base < used; base += 16) {
    uint32_t overlap = 0xffff, inside = 0xffff;
    for (uint32_t t = 0; t < q.upper_count; ++t) {
      const float* lo = l.GroupLo(block, 0) + q.upper[t].row * l.groups + base;
      overlap &= TestRow<16, true, false>(lo, q.upper[t].bound32);
      if (kInside) inside &= TestRow<16, true, false>(lo + l.groups, q.upper[t].bound32);
    }
    for (uint32_t t = 0; t < q.lower_count; ++t) {
      const float* lo = l.GroupLo(block, 0) + q.lower[t].row * l.groups + base;
      overlap &= TestRow<16, false, false>(lo + l.groups, q.lower[t].bound32);
      if (kInside) inside &= TestRow<16, false, false>(lo, q.lower[t].bound32);
    }
    masks.overlap |= uint64_t{overlap} << base;
    masks.inside |= uint64_t{overlap & inside} << base;
  }
  masks.overlap &= FirstBits(used);
  return masks;
}

template <class T, uint32_t G, bool kNan>
XT_KERNEL uint32_t TestLeafGroup(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                                 const WindowQuery& q) {
  const T* coords = reinterpret_cast<const T*>(l.Coords(block, group));
  uint32_t mask = kLanes<G>;
  for (uint32_t t = 0; t < q.le_count; ++t) {
    mask &= TestRow<G, true, kNan>(coords + q.le[t].row * G, BoundOf(q.le[t], T{}));
  }
  for (uint32_t t = 0; t < q.ge_count; ++t) {
    mask &= TestRow<G, false, kNan>(coords + q.ge[t].row * G, BoundOf(q.ge[t], T{}));
  }
  return mask;
}

template <uint32_t G>
XT_KERNEL uint32_t TestInnerGroup(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                                  const WindowQuery& q) {
  const float* coords = reinterpret_cast<const float*>(l.Coords(block, group));
  uint32_t mask = kLanes<G>;
  for (uint32_t t = 0; t < q.upper_count; ++t) {
    mask &= TestRow<G, true, false>(coords + q.upper[t].row * G, q.upper[t].bound32);
  }
  for (uint32_t t = 0; t < q.lower_count; ++t) {
    mask &= TestRow<G, false, false>(coords + (q.lower[t].row + 1) * G, q.lower[t].bound32);
  }
  return mask;
}

// Which lanes of a group hold entries.
template <uint32_t G>
XT_KERNEL uint32_t UsedLanes(uint32_t count, uint32_t group) {
  const uint32_t rest = count - group * G;
  return rest >= G ? kLanes<G> : kLanes<G> >> (G - rest);
}

// The lines of all groups that will be compared, asked for together: the misses then overlap,
// while the branches below would take them one after the other.
XT_KERNEL void PrefetchGroups(const NodeLayout& l, const BlockHeader* block, uint64_t groups,
                              uint64_t inside) {
  constexpr uint32_t kAhead = 4;
  for (uint32_t i = 0; i < kAhead && groups != 0; ++i, groups &= groups - 1) {
    const uint32_t g = static_cast<uint32_t>(__builtin_ctzll(groups));
    __builtin_prefetch(l.GroupIds(block, g));
    __builtin_prefetch(l.GroupIds(block, g) + 64);
    if (inside >> g & 1) continue;
    const std::byte* coords = l.Coords(block, g);
    const uint32_t bytes = l.group_coord_bytes < 512 ? l.group_coord_bytes : 512;
    for (uint32_t b = 0; b < bytes; b += 64) __builtin_prefetch(coords + b);
  }
}

template <class T, uint32_t G, bool kNan, class Out>
XT_ENTRY uint32_t ScanLeaf(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                  const WindowQuery& q, Out* out) {
  GroupMasks groups = TestGroups<true>(l, block, count, q);
  PrefetchGroups(l, block, groups.overlap, groups.inside);
  uint32_t n = 0;
  for (uint64_t rest = groups.overlap; rest != 0; rest &= rest - 1) {
    const uint32_t g = static_cast<uint32_t>(__builtin_ctzll(rest));
    uint32_t mask = UsedLanes<G>(count, g);
    if (!(groups.inside >> g & 1)) mask &= TestLeafGroup<T, G, kNan>(l, block, g, q);
    if (mask == 0) continue;
    if constexpr (sizeof(Out) == sizeof(uint64_t)) {
      EmitLeafIds<G>(l.GroupIds(block, g), mask, out + n);
      n += static_cast<uint32_t>(__builtin_popcount(mask));
    } else {
      for (; mask != 0; mask &= mask - 1) {
        out[n++] = static_cast<Out>(g * G + static_cast<uint32_t>(__builtin_ctz(mask)));
      }
    }
  }
  return n;
}

template <class T, class Out>
XT_KERNEL uint32_t ScanLeafOf(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                              const WindowQuery& q, Out* out) {
  // No decimal is a NaN.
  if (std::is_same_v<T, int32_t> || !q.nan_matches) {
    if (l.group_size == 16) return ScanLeaf<T, 16, false>(l, block, count, q, out);
    if (l.group_size == 8) return ScanLeaf<T, 8, false>(l, block, count, q, out);
    return ScanLeaf<T, 4, false>(l, block, count, q, out);
  }
  if (l.group_size == 16) return ScanLeaf<T, 16, true>(l, block, count, q, out);
  if (l.group_size == 8) return ScanLeaf<T, 8, true>(l, block, count, q, out);
  return ScanLeaf<T, 4, true>(l, block, count, q, out);
}

template <class Out>
XT_ENTRY uint32_t ScanLeafAny(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                     const WindowQuery& q, Out* out) {
  if (l.format == CoordFormat::kF64) return ScanLeafOf<double>(l, block, count, q, out);
  if (l.format == CoordFormat::kF32) return ScanLeafOf<float>(l, block, count, q, out);
  return ScanLeafOf<int32_t>(l, block, count, q, out);
}

template <uint32_t G>
XT_ENTRY uint32_t ScanInner(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                   const WindowQuery& q, uint64_t* out) {
  uint32_t n = 0;
  for (uint64_t rest = TestGroups<false>(l, block, count, q).overlap; rest != 0;
       rest &= rest - 1) {
    const uint32_t g = static_cast<uint32_t>(__builtin_ctzll(rest));
    const uint32_t mask = UsedLanes<G>(count, g) & TestInnerGroup<G>(l, block, g, q);
    if (mask == 0) continue;
    EmitChildIds<G>(l.GroupIds(block, g), mask, out + n);
    n += static_cast<uint32_t>(__builtin_popcount(mask));
  }
  return n;
}

XT_ENTRY uint32_t ScanInnerAny(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                      const WindowQuery& q, uint64_t* out) {
  if (l.group_size == 16) return ScanInner<16>(l, block, count, q, out);
  if (l.group_size == 8) return ScanInner<8>(l, block, count, q, out);
  return ScanInner<4>(l, block, count, q, out);
}

XT_ENTRY uint64_t MatchGroups(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                     const WindowQuery& q) {
  return TestGroups<false>(l, block, count, q).overlap;
}

template <uint32_t G>
XT_KERNEL uint32_t MatchEntriesOf(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                                  const WindowQuery& q) {
  if (!l.leaf) return TestInnerGroup<G>(l, block, group, q);
  if (l.decimal()) return TestLeafGroup<int32_t, G, false>(l, block, group, q);
  if (l.format == CoordFormat::kF64) {
    return q.nan_matches ? TestLeafGroup<double, G, true>(l, block, group, q)
                         : TestLeafGroup<double, G, false>(l, block, group, q);
  }
  return q.nan_matches ? TestLeafGroup<float, G, true>(l, block, group, q)
                       : TestLeafGroup<float, G, false>(l, block, group, q);
}

XT_ENTRY uint32_t MatchEntries(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                      const WindowQuery& q) {
  if (l.group_size == 16) return MatchEntriesOf<16>(l, block, group, q);
  if (l.group_size == 8) return MatchEntriesOf<8>(l, block, group, q);
  return MatchEntriesOf<4>(l, block, group, q);
}

// Lower bounds in f32. Differences against the outer roundings of p err by a relative 2^-24 each, as
// do squares, sums and root, so the result is shrunk by more than all of these together. Sums so
// large that they overflow count as FLT_MAX, and so small that they lose bits as 0: both too near,
// which is the safe direction. Max(x, 0) is 0 for the NaN of infinity minus infinity.
XT_KERNEL void LowerBounds(const float* lo, const float* hi, size_t stride, uint32_t lanes,
                           const NearestQuery& q, float* distances) {
  const F zero = SetF(0);
  for (uint32_t i = 0; i < lanes; i += kF) {
    F sum = zero;
    for (uint32_t d = 0; d < q.dims; ++d) {
      F side = Max(Sub(LoadF(lo + d * stride + i), SetF(q.up[d])), zero);
      side = Max(Sub(SetF(q.down[d]), LoadF(hi + d * stride + i)), side);
      sum = Add(sum, Mul(side, side));
    }
    sum = Min(sum, SetF(std::numeric_limits<float>::max()));
    sum = Sub(Max(sum, SetF(1e-30f)), SetF(1e-30f));
    StoreF(distances + i, Mul(Sqrt(sum), SetF(1.0f - 0x1p-17f)));
  }
}

XT_ENTRY void GroupDistances(const NodeLayout& l, const BlockHeader* block, uint32_t count,
                    const NearestQuery& q, float* distances) {
  const uint32_t used = (count + l.group_size - 1) >> l.group_shift;
  LowerBounds(l.GroupLo(block, 0), l.GroupLo(block, 0) + l.groups, size_t{2} * l.groups, used, q,
              distances);
}

XT_ENTRY void ChildDistances(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                    const NearestQuery& q, float* distances) {
  const float* coords = reinterpret_cast<const float*>(l.Coords(block, group));
  LowerBounds(coords, coords + l.group_size, size_t{2} * l.group_size, l.group_size, q, distances);
}

XT_KERNEL D LoadCoord(const NodeLayout&, const double* row) { return LoadD(row); }
XT_KERNEL D LoadCoord(const NodeLayout&, const float* row) { return Widen(row); }
XT_KERNEL D LoadCoord(const NodeLayout& l, const int32_t* row) {
  return FromDecimals(Widen(row), l.unit);
}

// Distance of kD points or boxes in one dimension; NaN (of a point at infinity) is kept.
template <class T>
XT_KERNEL D SideOf(const NodeLayout& l, const T* row, double p, bool points) {
  const D x = SetD(p);
  const D lo = LoadCoord(l, row);
  if (points) {
    const D side = Sub(x, lo);
    // The absolute value: both are NaN, or one is negative; and -0 + 0 is 0, whose bits sort first.
    return Add(Max(Sub(lo, x), side), SetD(0));
  }
  const D hi = LoadCoord(l, row + l.group_size);
  return Max(Sub(lo, x), Max(Sub(x, hi), SetD(0)));
}

// Returns false if a lane may hold something not finite; KeyDistance must then be asked.
template <class T>
XT_KERNEL bool LeafDistancesOf(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                               const NearestQuery& q, double* distances) {
  const T* coords = reinterpret_cast<const T*>(l.Coords(block, group));
  const uint32_t step = l.corners * l.group_size;
  const D huge = SetD(std::numeric_limits<double>::max());
  uint32_t odd = 0;
  for (uint32_t i = 0; i < l.group_size; i += kD) {
    D x = SideOf(l, coords + i, q.p[0], q.points);
    odd |= ~MaskLe<false>(x, huge);
    if (q.dims == 2) {
      const D y = SideOf(l, coords + step + i, q.p[1], q.points);
      odd |= ~MaskLe<false>(y, huge);
      // x * sqrt(1 + (y / x)^2) of the larger side, as the host's pg_hypot. 0 / 0 is NaN, which Max
      // replaces by the side itself; for a smaller side of 0 the product is exact without help.
      const D large = Max(x, y);
      const D ratio = Div(Min(x, y), large);
      x = Max(Mul(large, Sqrt(Add(SetD(1), Mul(ratio, ratio)))), large);
    } else if (q.dims > 2) {
      D sum = Mul(x, x);
      for (uint32_t d = 1; d < q.dims; ++d) {
        const D y = SideOf(l, coords + d * step + i, q.p[d], q.points);
        odd |= ~MaskLe<false>(y, huge);
        sum = Add(sum, Mul(y, y));
      }
      x = Sqrt(sum);
    }
    StoreD(distances + i, x);
  }
  return (odd & ((1u << kD) - 1)) == 0;
}

XT_ENTRY void LeafDistances(const NodeLayout& l, const BlockHeader* block, uint32_t group,
                   const NearestQuery& q, double* distances) {
  bool finite = q.finite;
  if (finite && l.decimal()) {
    LeafDistancesOf<int32_t>(l, block, group, q, distances);
  } else if (finite) {
    finite = l.format == CoordFormat::kF64 ? LeafDistancesOf<double>(l, block, group, q, distances)
                                           : LeafDistancesOf<float>(l, block, group, q, distances);
  }
  if (!finite) SlowLeafDistances(l, block, group, q, distances);
}

constexpr Kernels kKernels = {
    kName,          ScanLeafAny<uint64_t>, ScanLeafAny<uint16_t>, ScanInnerAny, MatchGroups,
    MatchEntries,   GroupDistances,        ChildDistances,        LeafDistances,
};
