#include "tree/kd_order.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tree/parallel.h"

namespace xtree {

namespace {

constexpr uint32_t kBuckets = 1024;
// From here on, one pass that counts and one that deals out beat quickselect's mispredicted branches.
constexpr uint64_t kHistogramMin = 2048;

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

  Arranger(uint32_t dims, const std::vector<float>& centres, const NodeShares& shares,
           const std::function<bool()>& cancelled)
      : dims_(dims), centres_(centres.data()), shares_(shares), cancelled_(cancelled),
        a_(shares.entries), b_(shares.entries), order_(shares.entries) {
    for (uint64_t i = 0; i < shares.entries; ++i) {
      if constexpr (kDims > 0) std::copy_n(centres_ + i * kDims, kDims, a_[i].centre);
      a_[i].index = static_cast<uint32_t>(i);
    }
  }
  void Run(uint32_t threads) { SplitNodes(a_.data(), b_.data(), 0, shares_.nodes, threads); }
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
  void Partition(const Element* from, Element* to, uint64_t n, uint64_t count, uint32_t d,
                 float low, float scale) const {
    uint32_t sizes[kBuckets] = {};
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
    std::vector<Element> cut_through;
    cut_through.reserve(sizes[cut]);
    uint64_t left = 0, right = n - 1;
    for (uint64_t i = 0; i < n; ++i) {
      const Element e = from[i];
      const uint32_t k = bucket(e);
      to[left] = e;
      to[right] = e;
      left += k < cut;
      right -= k > cut;
      if (k == cut) cut_through.push_back(e);
    }
    std::copy(cut_through.begin(), cut_through.end(), to + left);
    Select(to + left, to + count, to + left + cut_through.size(), d);
  }

  // Arranges nodes [first, last), whose entries are in `in`; `spare` is free. Both are addressed by
  // entry number.
  void SplitNodes(Element* in, Element* spare, uint64_t first, uint64_t last, uint32_t threads) {
    const uint64_t begin = shares_.Begin(first), end = shares_.Begin(last);
    if (cancelled_ && cancelled_()) return;
    if (last - first == 1) {
      SplitGroups(in, begin, end);
      for (uint64_t e = begin; e < end; ++e) order_[e] = in[e].index;
      return;
    }
    const uint64_t middle = first + (last - first) / 2;
    const uint64_t cut = shares_.Begin(middle);
    float low, high;
    const uint32_t d = Widest(in + begin, in + end, &low, &high);
    const float scale = static_cast<float>(kBuckets - 1) / (high - low);
    if (end - begin >= kHistogramMin && std::isfinite(scale)) {
      Partition(in + begin, spare + begin, end - begin, cut - begin, d, low, scale);
      std::swap(in, spare);
    } else {
      Select(in + begin, in + cut, in + end, d);
    }
    const uint32_t left_threads = (threads + 1) / 2;
    RunThreads(threads > 1 ? 2 : 1, [&](uint32_t t) {
      if (t == 0) SplitNodes(in, spare, first, middle, left_threads);
      if (t == 1 || threads <= 1) {
        SplitNodes(in, spare, middle, last, std::max(1u, threads - left_threads));
      }
    });
  }

  void SplitGroups(Element* in, uint64_t begin, uint64_t end) {
    const uint64_t group = shares_.group_size;
    while (end - begin > group) {
      const uint64_t cut = begin + (end - begin + group - 1) / group / 2 * group;
      float low, high;
      Select(in + begin, in + cut, in + end, Widest(in + begin, in + end, &low, &high));
      SplitGroups(in, begin, cut);
      begin = cut;
    }
  }

  const uint32_t dims_;
  const float* const centres_;
  const NodeShares shares_;
  const std::function<bool()>& cancelled_;
  std::vector<Element> a_, b_;
  std::vector<uint32_t> order_;
};

template <uint32_t kDims>
std::vector<uint32_t> Arrange(uint32_t dims, const std::vector<float>& centres,
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

std::vector<uint32_t> KdOrder(uint32_t dims, const std::vector<float>& centres,
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
