// Many dimensions: windows and nearest neighbours of the engine beside a scan of all vectors, and
// beside boost's packed rtree where it is installed.
//
// Method: real vectors of 3, 4, 8 and 16 dimensions as f64 points. Windows are cubes around random
// rows, of one size a set, chosen so that the mean count is near 10, 100 and 1 % of the rows; the
// same 256 queries go to all. The scan is what one would write by hand: rows in one array,
// coordinates compared until one fails; the k best kept in a heap. Each figure is the median of 5
// rounds, in microseconds a query; all must find the same number. Prints a Markdown table.
#include <cmath>
#include <functional>
#include <memory>
#include <queue>
#include <random>

#if __has_include(<boost/geometry.hpp>)
#define XT_BOOST 1
#include <boost/geometry.hpp>
#include <boost/geometry/index/rtree.hpp>
#else
#define XT_BOOST 0
#endif

#include "bench_support.h"
#include "object/epoch.h"
#include "store/memory_store.h"
#include "tree/bulk_loader.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr uint32_t kQueries = 256;
constexpr int kRounds = 5;

// Microseconds a call, over all queries; `found` is the sum of what the calls return.
double Micros(const std::function<uint64_t(uint32_t)>& ask, uint64_t* found) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    *found = 0;
    const Stopwatch watch;
    for (uint32_t q = 0; q < kQueries; ++q) *found += ask(q);
    rounds.push_back(1e6 * watch.Seconds() / kQueries);
  }
  return Median(rounds);
}

#if XT_BOOST
namespace bg = boost::geometry;
namespace bgi = boost::geometry::index;

template <size_t D, size_t... I>
auto MakePoint(const double* from, std::index_sequence<I...>) {
  bg::model::point<double, D, bg::cs::cartesian> point;
  ((bg::set<I>(point, from[I])), ...);
  return point;
}

template <size_t D>
class BoostTree {
 public:
  using Point = bg::model::point<double, D, bg::cs::cartesian>;
  using Value = std::pair<Point, uint64_t>;
  BoostTree(const std::vector<double>& rows, size_t count) {
    std::vector<Value> values;
    for (size_t i = 0; i < count; ++i) values.emplace_back(At(&rows[i * D]), i);
    tree_ = bgi::rtree<Value, bgi::rstar<32>>(values);
  }
  uint64_t Window(const double* lo, const double* hi) {
    out_.clear();
    tree_.query(bgi::intersects(bg::model::box<Point>(At(lo), At(hi))), std::back_inserter(out_));
    return out_.size();
  }
  uint64_t Nearest(const double* at, uint32_t k) {
    out_.clear();
    tree_.query(bgi::nearest(At(at), k), std::back_inserter(out_));
    return out_.size();
  }

 private:
  static Point At(const double* from) {
    return MakePoint<D>(from, std::make_index_sequence<D>());
  }
  bgi::rtree<Value, bgi::rstar<32>> tree_;
  std::vector<Value> out_;
};
#endif

template <size_t D>
class Bench {
 public:
  Bench(const char* name, std::vector<double> rows)
      : name_(name), rows_(std::move(rows)), count_(rows_.size() / D), epochs_(AllocateEpochs()),
        reader_(epochs_.get(), 0) {
    IndexOptions options;
    options.spec = KeySpec{D, CoordType::kF64, KeyKind::kPoint};
    store_ = std::make_unique<MemoryStore>(options, epochs_.get());
    BulkLoader loader(store_.get(), kTreeMain, BulkOptions{});
    for (uint64_t i = 0; i < count_; ++i) {
      XT_ASSERT(loader.Add(&rows_[i * D], nullptr, &i, 1).ok());
    }
    XT_ASSERT(loader.Finish().ok());
    window_ = std::make_unique<WindowScan>(store_.get());
    nearest_ = std::make_unique<NearestScan>(store_.get());
    ids_.resize(16384);
    distances_.resize(16384);
    std::mt19937_64 random(7);
    for (uint32_t q = 0; q < kQueries; ++q) centres_.push_back(random() % count_);
#if XT_BOOST
    boost_ = std::make_unique<BoostTree<D>>(rows_, count_);
#endif
  }

  void Run() {
    for (const double target : {10.0, 100.0, static_cast<double>(count_) / 100}) {
      ChooseSize(target);
      char what[64];
      snprintf(what, sizeof(what), "window of about %.0f", target);
      Report(what, [&](uint32_t q) { return AskWindow(q); },
             [&](uint32_t q) { return ScanWindow(q); },
             [&](uint32_t q) { return BoostWindow(q); });
    }
    for (const uint32_t k : {1u, 10u}) {
      char what[64];
      snprintf(what, sizeof(what), "nearest %u", k);
      Report(what, [&](uint32_t q) { return AskNearest(q, k); },
             [&](uint32_t q) { return ScanNearest(q, k); },
             [&](uint32_t q) { return BoostNearest(q, k); });
    }
  }

 private:
  using Ask = std::function<uint64_t(uint32_t)>;
  struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Epochs = std::unique_ptr<EpochShared, FreeMemory>;
  static Epochs AllocateEpochs() {
    const size_t bytes = (EpochShared::BytesFor(4) + 63) / 64 * 64;
    Epochs epochs(static_cast<EpochShared*>(std::aligned_alloc(64, bytes)));
    InitEpochShared(epochs.get(), 4);
    return epochs;
  }

  void Bounds(uint32_t q, double* lo, double* hi) const {
    for (size_t d = 0; d < D; ++d) {
      lo[d] = rows_[centres_[q] * D + d] - half_;
      hi[d] = rows_[centres_[q] * D + d] + half_;
    }
  }
  uint64_t AskWindow(uint32_t q) {
    double lo[D], hi[D];
    Bounds(q, lo, hi);
    Predicate p = Predicate::All();
    std::copy(lo, lo + D, p.hi_min);
    std::copy(hi, hi + D, p.lo_max);
    uint64_t total = 0;
    XT_ASSERT(window_->Begin(&reader_, kTreeMain, p).ok());
    for (uint32_t n = 1; n > 0; total += n) {
      XT_ASSERT(window_->Next(ids_.data(), nullptr, nullptr, 16384, false, &n).ok());
    }
    window_->End();
    return total;
  }
  uint64_t ScanWindow(uint32_t q) {
    double lo[D], hi[D];
    Bounds(q, lo, hi);
    uint64_t total = 0;
    for (size_t i = 0; i < count_; ++i) {
      const double* row = &rows_[i * D];
      size_t d = 0;
      while (d < D && row[d] >= lo[d] && row[d] <= hi[d]) ++d;
      if (d == D) ids_[total++ % ids_.size()] = i;
    }
    return total;
  }
  uint64_t AskNearest(uint32_t q, uint32_t k) {
    uint32_t total = 0;
    XT_ASSERT(
        nearest_->Begin(&reader_, kTreeMain, &rows_[centres_[q] * D], Predicate::All()).ok());
    for (uint32_t n = 1; n > 0 && total < k; total += n) {
      XT_ASSERT(nearest_->Next(ids_.data(), distances_.data(), nullptr, nullptr, k - total,
                               &n).ok());
    }
    nearest_->End();
    return total;
  }
  uint64_t ScanNearest(uint32_t q, uint32_t k) {
    const double* at = &rows_[centres_[q] * D];
    std::priority_queue<std::pair<double, uint64_t>> best;
    for (size_t i = 0; i < count_; ++i) {
      const double* row = &rows_[i * D];
      double sum = 0;
      for (size_t d = 0; d < D; ++d) sum += (row[d] - at[d]) * (row[d] - at[d]);
      if (best.size() < k) {
        best.emplace(sum, i);
      } else if (sum < best.top().first) {
        best.pop();
        best.emplace(sum, i);
      }
    }
    return best.size();
  }
#if XT_BOOST
  uint64_t BoostWindow(uint32_t q) {
    double lo[D], hi[D];
    Bounds(q, lo, hi);
    return boost_->Window(lo, hi);
  }
  uint64_t BoostNearest(uint32_t q, uint32_t k) {
    return boost_->Nearest(&rows_[centres_[q] * D], k);
  }
  std::unique_ptr<BoostTree<D>> boost_;
#else
  uint64_t BoostWindow(uint32_t) { return 0; }
  uint64_t BoostNearest(uint32_t, uint32_t) { return 0; }
#endif

  // Bisects the cubes' half edge to a mean count.
  void ChooseSize(double target) {
    double small = 0, large = 1000;
    for (int step = 0; step < 30; ++step) {
      half_ = (small + large) / 2;
      uint64_t total = 0;
      for (uint32_t q = 0; q < kQueries; q += 8) total += AskWindow(q);
      (static_cast<double>(total) < target * kQueries / 8 ? small : large) = half_;
    }
    half_ = large;
  }

  void Report(const char* what, const Ask& xtree, const Ask& scan, const Ask& boost) {
    uint64_t found, found_by_scan, found_by_boost = 0;
    const double ours = Micros(xtree, &found);
    const double flat = Micros(scan, &found_by_scan);
    XT_ASSERT(found == found_by_scan);
    char peer[64] = "-", ratio[64] = "-";
    if (XT_BOOST) {
      const double theirs = Micros(boost, &found_by_boost);
      XT_ASSERT(found == found_by_boost);
      snprintf(peer, sizeof(peer), "%.1f", theirs);
      snprintf(ratio, sizeof(ratio), "%.2f", ours / theirs);
    }
    printf("| %zu-D, %zu %s | %s (%.0f found) | %.1f | %s | **%.1f** | %.2f | %s |\n", D, count_,
           name_, what, static_cast<double>(found) / kQueries, flat, peer, ours, ours / flat,
           ratio);
    fflush(stdout);
  }

  const char* const name_;
  const std::vector<double> rows_;
  const size_t count_;
  const Epochs epochs_;
  EpochReader reader_;
  std::unique_ptr<MemoryStore> store_;
  std::unique_ptr<WindowScan> window_;
  std::unique_ptr<NearestScan> nearest_;
  std::vector<uint64_t> ids_;
  std::vector<double> distances_;
  std::vector<uint64_t> centres_;
  double half_ = 0;
};

template <size_t D>
void RunOn(const char* name, const char* file) {
  Bench<D>(name, ReadColumns(DataPath(file), D)).Run();
}

}  // namespace
}  // namespace xtree

int main() {
  printf("| data | query | scan of all, us | boost packed, us | xtree, us | xtree / scan | "
         "xtree / boost |\n|---|---|---|---|---|---|---|\n");
  xtree::RunOn<3>("earthquakes", "points_quakes.csv.gz");
  xtree::RunOn<4>("satellite pixels", "vec_satellite4.csv.gz");
  xtree::RunOn<8>("colour histograms", "vec_img_hist8.csv.gz");
  xtree::RunOn<16>("letters", "vec_letter16.csv.gz");
  return 0;
}
