#include "tree/kd_order.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/scratch_array.h"
#include "tree/parallel.h"

namespace xtree {

namespace {

// Buckets that entries are counted in, for many and for few of them. One pass that counts and one that deals
// out beat quickselect's mispredicted branches, except for very few.
constexpr uint32_t kBuckets = 1024;
constexpr uint64_t kManyMin = 2048;
constexpr uint32_t kFewBuckets = 64;
constexpr uint64_t kFewMin = 24;
// So many are sampled first, which is what three passes over them take.
constexpr uint64_t kSampledMin = 16384;
constexpr uint64_t kSampleRoot = 32;
constexpr uint64_t kSample = kSampleRoot * kSampleRoot;
// Entries whose centres are asked for at a time.
constexpr uint64_t kPiece = 1024;

// Up to three dimensions an entry carries its centre, so that all passes run over memory in order.
template <uint32_t kDims>
struct alignas(kDims == 1 ? 8 : 16) Item {
  float centre[kDims];
  uint32_t index;
};
template <>
struct Item<0> {
  uint32_t index;
};

// A whole item of two or three dimensions.
typedef float Lanes __attribute__((vector_size(16), may_alias));

// Memory that is not initialized and only grows.
template <class T>
class Room {
 public:
  T* For(uint64_t n) {
    if (n > size_) {
      array_ = std::make_unique<ScratchArray<T>>(n);
      size_ = n;
    }
    return array_->data();
  }

 private:
  std::unique_ptr<ScratchArray<T>> array_;
  uint64_t size_ = 0;
};

template <uint32_t kDims>
class Arranger {
 public:
  using Element = Item<kDims>;

  Arranger(uint32_t dims, const CentresOf& centres_of, const NodeShares& shares,
           const std::function<bool()>& cancelled)
      : dims_(dims), shares_(shares), cancelled_(cancelled),
        centres_(kDims > 0 ? 0 : shares.entries * dims), a_(shares.entries), b_(shares.entries),
        order_(shares.entries), centres_of_(centres_of) {}
  void Run(uint32_t threads) {
    RunThreads(threads, [&](uint32_t t) {
      const uint64_t end = shares_.entries * (t + 1) / threads;
      for (uint64_t i = shares_.entries * t / threads; i < end;) {
        const uint64_t piece_end = std::min(end, i + kPiece);
        if constexpr (kDims > 0) {
          float centres[kPiece * kDims];
          centres_of_(i, piece_end, centres);
          for (const float* from = centres; i < piece_end; ++i, from += kDims) {
            std::copy_n(from, kDims, a_[i].centre);
            a_[i].index = static_cast<uint32_t>(i);
          }
        } else {
          centres_of_(i, piece_end, centres_.data() + i * dims_);
          for (; i < piece_end; ++i) a_[i].index = static_cast<uint32_t>(i);
        }
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
      return centres_.data()[size_t{e.index} * dims_ + d];
    }
  }
  struct Scratch {
    Room<Element> aside, between;
  };
  uint32_t dims() const { return kDims > 0 ? kDims : dims_; }

  // The dimension of the widest spread over [from, to).
  uint32_t Widest(const Element* from, const Element* to, float* low, float* high) const {
    constexpr uint32_t kRoom = kDims > 0 ? kDims : kDimsMax;
    float lo[kRoom] = {}, hi[kRoom] = {};
    if constexpr (sizeof(Element) == sizeof(Lanes)) {
      // All lanes alike, the index too. Several at once, since each waits for its last result.
      constexpr int kAtOnce = 4;
      const Lanes* e = reinterpret_cast<const Lanes*>(from);
      const Lanes* const end = reinterpret_cast<const Lanes*>(to);
      Lanes least[kAtOnce], most[kAtOnce];
      std::fill_n(least, kAtOnce, *e);
      std::fill_n(most, kAtOnce, *e);
      const auto extend = [&](int i, const Lanes& x) {
        least[i] = x < least[i] ? x : least[i];
        most[i] = x > most[i] ? x : most[i];
      };
      for (; end - e >= kAtOnce; e += kAtOnce) {
        for (int i = 0; i < kAtOnce; ++i) extend(i, e[i]);
      }
      for (; e < end; ++e) extend(0, *e);
      for (int i = 1; i < kAtOnce; ++i) {
        extend(0, least[i]);
        extend(0, most[i]);
      }
      for (uint32_t d = 0; d < dims(); ++d) {
        lo[d] = least[0][d];
        hi[d] = most[0][d];
      }
    } else {
      for (uint32_t d = 0; d < dims(); ++d) lo[d] = hi[d] = Centre(*from, d);
      for (const Element* e = from; e < to; ++e) {
        for (uint32_t d = 0; d < dims(); ++d) {
          const float c = Centre(*e, d);
          lo[d] = c < lo[d] ? c : lo[d];
          hi[d] = c > hi[d] ? c : hi[d];
        }
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

  // Stores an element at three places, of which two are stored to again, and so spares a branch that nobody could
  // predict.
  static void Deal(const Element& e, Element* a, Element* b, Element* c) {
    if constexpr (sizeof(Element) == sizeof(Lanes)) {
      const Lanes whole = reinterpret_cast<const Lanes&>(e);
      for (Element* to : {a, b, c}) reinterpret_cast<Lanes&>(*to) = whole;
    } else {
      const Element whole = e;
      for (Element* to : {a, b, c}) *to = whole;
    }
  }

  // Puts the `count` lowest of from[0..n) along `d` in front, in to[0..n). REQUIRES: count < n.
  template <uint32_t kCount>
  void Partition(const Element* from, Element* to, uint64_t n, uint64_t count, uint32_t d,
                 float low, float scale, Room<Element>* aside_room) const {
    // Two, since neighbours tend to be in one bucket, and a count waits for the one before.
    uint32_t sizes[kCount] = {}, odd_sizes[kCount] = {};
    const auto bucket = [&](const Element& e) {
      return static_cast<uint32_t>((Centre(e, d) - low) * scale);
    };
    for (uint64_t i = 1; i < n; i += 2) {
      ++sizes[bucket(from[i - 1])];
      ++odd_sizes[bucket(from[i])];
    }
    if (n % 2 != 0) ++sizes[bucket(from[n - 1])];
    for (uint32_t k = 0; k < kCount; ++k) sizes[k] += odd_sizes[k];
    uint32_t cut = 0;
    uint64_t below = 0;
    while (below + sizes[cut] <= count) below += sizes[cut++];
    // The bucket that is cut through goes aside; the others' places are known. What lies between the two ends is
    // still free.
    Element* const first_aside = aside_room->For(sizes[cut] + 1);
    Element* aside = first_aside;
    uint64_t left = 0, right = n - 1;
    for (uint64_t i = 0; i < n; ++i) {
      const uint32_t k = bucket(from[i]);
      Deal(from[i], to + left, to + right, aside);
      left += k < cut;
      right -= k > cut;
      aside += k == cut;
    }
    std::copy(first_aside, aside, to + left);
    Select(to + left, to + count, to + left + sizes[cut], d);
  }

  // The same for many, which come from memory in each pass, in one: a sample says along which dimension they spread
  // most, and between which two numbers the cut is. False: it was wrong, or too many are equal.
  bool PartitionBySample(const Element* from, Element* to, uint64_t n, uint64_t count, Scratch* scratch) const {
    constexpr uint64_t kSlack = 2 * kSampleRoot;  // Four standard deviations of a rank, if not more.
    const uint64_t rank = count * kSample / n;
    if (rank < kSlack || rank + kSlack >= kSample) return false;
    Element* const sample = scratch->between.For(kSample);
    for (uint64_t i = 0; i < kSample; ++i) sample[i] = from[i * n / kSample];
    float low, high;
    const uint32_t d = Widest(sample, sample + kSample, &low, &high);
    Select(sample, sample + rank - kSlack, sample + kSample, d);
    low = Centre(sample[rank - kSlack], d);
    Select(sample + rank - kSlack, sample + rank + kSlack, sample + kSample, d);
    high = Centre(sample[rank + kSlack], d);
    const float scale = static_cast<float>(kBuckets - 1) / (high - low);
    if (!std::isfinite(scale)) return false;
    const uint64_t between_max = n / 4;
    Element* const first_between = scratch->between.For(between_max + kPiece);
    Element* between = first_between;
    uint64_t left = 0, right = n - 1;
    for (uint64_t i = 0; i < n;) {
      if (between > first_between + between_max) return false;
      for (const uint64_t end = std::min(n, i + kPiece); i < end; ++i) {
        const float c = Centre(from[i], d);
        Deal(from[i], to + left, to + right, between);
        left += c < low;
        right -= c > high;
        between += (c >= low) & (c <= high);
      }
    }
    const auto rest = static_cast<uint64_t>(between - first_between);
    if (count < left || count >= left + rest) return false;
    Partition<kBuckets>(first_between, to + left, rest, count - left, d, low, scale, &scratch->aside);
    return true;
  }

  // Divides the entries [begin, end) at `cut`, along the dimension in which their centres spread most. They are in
  // *in, before and after; which of the two that is may change.
  void Halve(Element** in, Element** spare, uint64_t begin, uint64_t cut, uint64_t end, Scratch* scratch) const {
    const uint64_t n = end - begin;
    if (n >= kSampledMin && PartitionBySample(*in + begin, *spare + begin, n, cut - begin, scratch)) {
      std::swap(*in, *spare);
      return;
    }
    float low, high;
    const uint32_t d = Widest(*in + begin, *in + end, &low, &high);
    if (n < kFewMin || !std::isfinite(kBuckets / (high - low))) {
      Select(*in + begin, *in + cut, *in + end, d);
      return;
    }
    if (n < kManyMin) {
      Partition<kFewBuckets>(*in + begin, *spare + begin, n, cut - begin, d, low,
                             static_cast<float>(kFewBuckets - 1) / (high - low), &scratch->aside);
    } else {
      Partition<kBuckets>(*in + begin, *spare + begin, n, cut - begin, d, low,
                          static_cast<float>(kBuckets - 1) / (high - low), &scratch->aside);
    }
    std::swap(*in, *spare);
  }

  // Arranges nodes [first, last), whose entries are in `in`; `spare` is free. Both are addressed by
  // entry number.
  void SplitNodes(Element* in, Element* spare, uint64_t first, uint64_t last, uint32_t threads) {
    if (threads <= 1) {
      Scratch scratch;
      SplitNodes(in, spare, first, last, &scratch);
      return;
    }
    if (cancelled_ && cancelled_()) return;
    const uint64_t middle = first + (last - first) / 2;
    if (middle == first) return SplitNodes(in, spare, first, last, 1);
    {
      Scratch scratch;
      Halve(&in, &spare, shares_.Begin(first), shares_.Begin(middle), shares_.Begin(last), &scratch);
    }
    const uint32_t left_threads = (threads + 1) / 2;
    RunThreads(2, [&](uint32_t t) {
      if (t == 0) SplitNodes(in, spare, first, middle, left_threads);
      if (t == 1) SplitNodes(in, spare, middle, last, std::max(1u, threads - left_threads));
    });
  }
  void SplitNodes(Element* in, Element* spare, uint64_t first, uint64_t last, Scratch* scratch) {
    if (cancelled_ && cancelled_()) return;
    if (last - first == 1) {
      SplitGroups(in, spare, shares_.Begin(first), shares_.Begin(last), scratch);
      return;
    }
    const uint64_t middle = first + (last - first) / 2;
    Halve(&in, &spare, shares_.Begin(first), shares_.Begin(middle), shares_.Begin(last), scratch);
    SplitNodes(in, spare, first, middle, scratch);
    SplitNodes(in, spare, middle, last, scratch);
  }

  void SplitGroups(Element* in, Element* spare, uint64_t begin, uint64_t end, Scratch* scratch) {
    const uint64_t group = shares_.group_size;
    if (end - begin <= group) {
      for (uint64_t e = begin; e < end; ++e) order_[e] = in[e].index;
      return;
    }
    const uint64_t cut = begin + (end - begin + group - 1) / group / 2 * group;
    Halve(&in, &spare, begin, cut, end, scratch);
    SplitGroups(in, spare, begin, cut, scratch);
    SplitGroups(in, spare, cut, end, scratch);
  }

  const uint32_t dims_;
  const NodeShares shares_;
  const std::function<bool()>& cancelled_;
  ScratchArray<float> centres_;  // Empty if the elements have theirs.
  ScratchArray<Element> a_, b_;
  std::vector<uint32_t> order_;
  const CentresOf& centres_of_;
};

template <uint32_t kDims>
std::vector<uint32_t> Arrange(uint32_t dims, const CentresOf& centres,
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

std::vector<uint32_t> KdOrder(uint32_t dims, const float* centres, const NodeShares& shares, uint32_t threads,
                              const std::function<bool()>& cancelled) {
  const CentresOf copy = [=](uint64_t begin, uint64_t end, float* to) {
    std::copy(centres + begin * dims, centres + end * dims, to);
  };
  return KdOrder(dims, copy, shares, threads, cancelled);
}

std::vector<uint32_t> KdOrder(uint32_t dims, const CentresOf& centres,
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
