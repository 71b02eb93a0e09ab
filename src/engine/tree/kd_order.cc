#include "tree/kd_order.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/scratch_array.h"
#include "tree/parallel.h"

namespace xtree {

namespace {

// Buckets that entries are counted in, for many and for few of them. One pass that counts and one that deals
// out beat quickselect's mispredicted branches, except for very few.
constexpr uint32_t kBuckets = 1024;
constexpr uint64_t kManyMin = 2048;
constexpr uint32_t kFewBuckets = 64;
constexpr uint64_t kFewMin = 48;

// Up to three dimensions an entry carries its centre, so that all passes run over memory in order.
template <uint32_t kDims>
struct Item {
  float centre[kDims];
  uint32_t index;
};
template <>
struct Item<0> {
  uint32_t index;
};

template <uint32_t kDims>
class Arranger {
 public:
  using Element = Item<kDims>;

  Arranger(uint32_t dims, const float* centres, const NodeShares& shares,
           const std::function<bool()>& cancelled)
      : dims_(dims), centres_(centres), shares_(shares), cancelled_(cancelled),
        a_(shares.entries), b_(shares.entries), order_(shares.entries) {}
  void Run(uint32_t threads) {
    RunThreads(threads, [&](uint32_t t) {
      const uint64_t end = shares_.entries * (t + 1) / threads;
      for (uint64_t i = shares_.entries * t / threads; i < end; ++i) {
        if constexpr (kDims > 0) std::copy_n(centres_ + i * kDims, kDims, a_[i].centre);
        a_[i].index = static_cast<uint32_t>(i);
      }
    });
    SplitNodes(a_.data(), b_.data(), 0, shares_.nodes, threads);
  }
  std::vector<uint32_t> TakeOrder() { return std::move(order_); }

 private:
  float Centre(const Element& e, uint32_t d) const {
    if constexpr (kDims > 0) {
      return e.centre[d];
    } else {
      return centres_[size_t{e.index} * dims_ + d];
    }
  }
  uint32_t dims() const { return kDims > 0 ? kDims : dims_; }

  // The dimension of the widest spread over [from, to).
  uint32_t Widest(const Element* from, const Element* to, float* low, float* high) const {
    constexpr uint32_t kRoom = kDims > 0 ? kDims : kDimsMax;
    float lo[kRoom] = {}, hi[kRoom] = {};
    for (uint32_t d = 0; d < dims(); ++d) lo[d] = hi[d] = Centre(*from, d);
    for (const Element* e = from; e < to; ++e) {
      for (uint32_t d = 0; d < dims(); ++d) {
        const float c = Centre(*e, d);
        lo[d] = c < lo[d] ? c : lo[d];
        hi[d] = c > hi[d] ? c : hi[d];
      }
    }
    uint32_t widest = 0;
    for (uint32_t d = 1; d < dims(); ++d) {
      if (hi[d] - lo[d] > hi[widest] - lo[widest]) widest = d;
    }
    *low = lo[widest];
    *high = hi[widest];
    return widest;
  }

  void Select(Element* from, Element* middle, Element* to, uint32_t d) const {
    if (middle == to) return;
    std::nth_element(from, middle, to, [this, d](const Element& x, const Element& y) {
      return Centre(x, d) < Centre(y, d);
    });
  }

  // Puts the `count` lowest of from[0..n) along `d` in front, in to[0..n).
  template <uint32_t kCount>
  void Partition(const Element* from, Element* to, uint64_t n, uint64_t count, uint32_t d,
                 float low, float scale, std::vector<Element>* cut_through) const {
    uint32_t sizes[kCount] = {};
    const auto bucket = [&](const Element& e) {
      return static_cast<uint32_t>((Centre(e, d) - low) * scale);
    };
    for (uint64_t i = 0; i < n; ++i) ++sizes[bucket(from[i])];
    uint32_t cut = 0;
    uint64_t below = 0;
    while (below + sizes[cut] <= count) below += sizes[cut++];
    // The bucket that is cut through goes aside; the others' places are known. Each element is
    // stored at both ends and counted at one, which saves a branch that nobody could predict: what
    // lies between the two ends is still free.
    cut_through->resize(sizes[cut] + 1);
    Element* aside = cut_through->data();
    uint64_t left = 0, right = n - 1;
    for (uint64_t i = 0; i < n; ++i) {
      const Element e = from[i];
      const uint32_t k = bucket(e);
      to[left] = e;
      to[right] = e;
      *aside = e;
      left += k < cut;
      right -= k > cut;
      aside += k == cut;
    }
    std::copy(cut_through->data(), aside, to + left);
    Select(to + left, to + count, to + left + sizes[cut], d);
  }

  // Divides the entries [begin, end) at `cut`, along the dimension in which their centres spread most. They are in
  // *in, before and after; which of the two that is may change.
  void Halve(Element** in, Element** spare, uint64_t begin, uint64_t cut, uint64_t end,
             std::vector<Element>* aside) const {
    const uint64_t n = end - begin;
    float low, high;
    const uint32_t d = Widest(*in + begin, *in + end, &low, &high);
    if (n < kFewMin || !std::isfinite(kBuckets / (high - low))) {
      Select(*in + begin, *in + cut, *in + end, d);
      return;
    }
    if (n < kManyMin) {
      Partition<kFewBuckets>(*in + begin, *spare + begin, n, cut - begin, d, low,
                             static_cast<float>(kFewBuckets - 1) / (high - low), aside);
    } else {
      Partition<kBuckets>(*in + begin, *spare + begin, n, cut - begin, d, low,
                          static_cast<float>(kBuckets - 1) / (high - low), aside);
    }
    std::swap(*in, *spare);
  }

  // Arranges nodes [first, last), whose entries are in `in`; `spare` is free. Both are addressed by
  // entry number.
  void SplitNodes(Element* in, Element* spare, uint64_t first, uint64_t last, uint32_t threads) {
    if (threads <= 1) {
      std::vector<Element> aside;
      SplitNodes(in, spare, first, last, &aside);
      return;
    }
    if (cancelled_ && cancelled_()) return;
    const uint64_t middle = first + (last - first) / 2;
    if (middle == first) return SplitNodes(in, spare, first, last, 1);
    {
      std::vector<Element> aside;
      Halve(&in, &spare, shares_.Begin(first), shares_.Begin(middle), shares_.Begin(last), &aside);
    }
    const uint32_t left_threads = (threads + 1) / 2;
    RunThreads(2, [&](uint32_t t) {
      if (t == 0) SplitNodes(in, spare, first, middle, left_threads);
      if (t == 1) SplitNodes(in, spare, middle, last, std::max(1u, threads - left_threads));
    });
  }
  void SplitNodes(Element* in, Element* spare, uint64_t first, uint64_t last,
                  std::vector<Element>* aside) {
    if (cancelled_ && cancelled_()) return;
    if (last - first == 1) {
      SplitGroups(in, spare, shares_.Begin(first), shares_.Begin(last), aside);
      return;
    }
    const uint64_t middle = first + (last - first) / 2;
    Halve(&in, &spare, shares_.Begin(first), shares_.Begin(middle), shares_.Begin(last), aside);
    SplitNodes(in, spare, first, middle, aside);
    SplitNodes(in, spare, middle, last, aside);
  }

  void SplitGroups(Element* in, Element* spare, uint64_t begin, uint64_t end,
                   std::vector<Element>* aside) {
    const uint64_t group = shares_.group_size;
    if (end - begin <= group) {
      for (uint64_t e = begin; e < end; ++e) order_[e] = in[e].index;
      return;
    }
    const uint64_t cut = begin + (end - begin + group - 1) / group / 2 * group;
    Halve(&in, &spare, begin, cut, end, aside);
    SplitGroups(in, spare, begin, cut, aside);
    SplitGroups(in, spare, cut, end, aside);
  }

  const uint32_t dims_;
  const float* const centres_;
  const NodeShares shares_;
  const std::function<bool()>& cancelled_;
  ScratchArray<Element> a_, b_;
  std::vector<uint32_t> order_;
};

template <uint32_t kDims>
std::vector<uint32_t> Arrange(uint32_t dims, const float* centres,
                              const NodeShares& shares, uint32_t threads,
                              const std::function<bool()>& cancelled) {
  Arranger<kDims> arranger(dims, centres, shares, cancelled);
  arranger.Run(threads);
  return arranger.TakeOrder();
}

}  // namespace

NodeShares::NodeShares(uint64_t n, uint32_t packed, uint32_t size)
    : entries(n), group_size(size), groups((n + size - 1) / size) {
  const uint64_t groups_packed = packed / size;
  nodes = (groups + groups_packed - 1) / groups_packed;
}

float CentreOf(double lo, double hi) {
  constexpr double kMax = std::numeric_limits<float>::max() / 4;
  const double centre = lo / 2 + hi / 2;
  if (std::isnan(centre)) return static_cast<float>(kMax);
  return static_cast<float>(std::clamp(centre, -kMax, kMax));
}

std::vector<uint32_t> KdOrder(uint32_t dims, const float* centres,
                              const NodeShares& shares, uint32_t threads,
                              const std::function<bool()>& cancelled) {
  if (shares.entries == 0) return {};
  switch (dims) {
    case 1: return Arrange<1>(dims, centres, shares, threads, cancelled);
    case 2: return Arrange<2>(dims, centres, shares, threads, cancelled);
    case 3: return Arrange<3>(dims, centres, shares, threads, cancelled);
    default: return Arrange<0>(dims, centres, shares, threads, cancelled);
  }
}

}  // namespace xtree
