// The engine alone against a packed in-memory R-tree, on the same data, queries and machine.
//
// Method: shoreline boxes (XTREE_DATA names the directory of the large files; without it the bundled
// sample is scaled up with jitter, which is said) go into a MemoryStore by bulk load and, where
// boost is installed, into boost's packed rtree. Windows are squares around centres of random boxes,
// of one size per set, chosen so that the mean count is near 1, 100 or 10,000; the same 4,096
// windows, in the same order, are asked of both. Results are gathered as record ids.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#if __has_include(<boost/geometry.hpp>)
#define XT_BOOST 1
#include <boost/geometry.hpp>
#include <boost/geometry/index/rtree.hpp>
#else
#define XT_BOOST 0
#endif

#include "object/epoch.h"
#include "object/object_table.h"
#include "store/memory_store.h"
#include "tree/bulk_loader.h"
#include "tree/checker.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr uint32_t kQueries = 4096;
constexpr double kTargets[] = {1, 100, 10000};
constexpr int64_t kNeighbours[] = {1, 10, 100};

struct Box {
  double lo[2], hi[2];
};

bool ReadBoxes(const std::string& path, std::vector<Box>* boxes) {
  FILE* pipe = popen(("gzip -dc '" + path + "' 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return false;
  Box b;
  while (fscanf(pipe, "%lf,%lf,%lf,%lf%*[^\n]", &b.lo[0], &b.lo[1], &b.hi[0], &b.hi[1]) == 4) {
    boxes->push_back(b);
  }
  return pclose(pipe) == 0 && !boxes->empty();
}

std::vector<Box> LoadBoxes() {
  std::vector<Box> boxes;
  const char* data = getenv("XTREE_DATA");
  if (data != nullptr &&
      ReadBoxes(std::string(data) + "/boxes_shore_seg_world_h.csv.gz", &boxes)) {
    return boxes;
  }
  std::vector<Box> sample;
  if (!ReadBoxes(std::string(XTREE_SOURCE_DIR) + "/test/data/boxes_shore_seg_med.csv.gz",
                 &sample)) {
    fprintf(stderr, "could not read the bundled data\n");
    exit(1);
  }
  printf("XTREE_DATA is not set: measuring a tenfold jittered copy of the bundled sample\n");
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> jitter(-0.05, 0.05);
  for (int copy = 0; copy < 10; ++copy) {
    for (Box b : sample) {
      for (int d = 0; d < 2; ++d) {
        const double by = jitter(random);
        b.lo[d] += by;
        b.hi[d] += by;
      }
      boxes.push_back(b);
    }
  }
  return boxes;
}

Predicate Intersecting(const Box& w) {
  Predicate p = Predicate::All();
  for (int d = 0; d < 2; ++d) {
    p.lo_max[d] = w.hi[d];
    p.hi_min[d] = w.lo[d];
  }
  return p;
}

#if XT_BOOST
namespace bg = boost::geometry;
namespace bgi = boost::geometry::index;
using Point = bg::model::point<double, 2, bg::cs::cartesian>;
using Rect = bg::model::box<Point>;
using Value = std::pair<Rect, uint64_t>;
using Rtree = bgi::rtree<Value, bgi::rstar<32>>;

Rect ToRect(const Box& b) { return Rect(Point(b.lo[0], b.lo[1]), Point(b.hi[0], b.hi[1])); }
#endif

class World {
 public:
  static World& Get() {
    static World world;
    return world;
  }

  uint64_t Count(const Box& window) {
    uint64_t total = 0;
    XT_ASSERT(scan_->Begin(reader_.get(), kTreeMain, Intersecting(window)).ok());
    for (uint32_t n = 1; n > 0; total += n) {
      XT_ASSERT(scan_->Next(ids_.data(), nullptr, nullptr, kBatch, false, &n).ok());
    }
    scan_->End();
    return total;
  }

  uint64_t Nearest(const Box& at, uint32_t k) {
    XT_ASSERT(nearest_->Begin(reader_.get(), kTreeMain, at.lo, Predicate::All()).ok());
    uint32_t total = 0;
    for (uint32_t n = 1; n > 0 && total < k; total += n) {
      XT_ASSERT(
          nearest_->Next(ids_.data(), distances_.data(), nullptr, nullptr, k - total, &n).ok());
    }
    nearest_->End();
    return total;
  }

  void Load(MemoryStore* store) {
    BulkLoader loader(store, kTreeMain, BulkOptions{});
    for (size_t i = 0; i < boxes_.size(); ++i) {
      const uint64_t id = i;
      XT_ASSERT(loader.Add(boxes_[i].lo, boxes_[i].hi, &id, 1).ok());
    }
    XT_ASSERT(loader.Finish().ok());
  }

  std::unique_ptr<MemoryStore> NewStore() {
    IndexOptions options;
    return std::make_unique<MemoryStore>(options, epochs_);
  }

  const std::vector<Box>& boxes() const { return boxes_; }
  const std::vector<Box>& windows(int set) const { return windows_[set]; }
  StoreInterface* store() { return store_.get(); }
#if XT_BOOST
  const Rtree& rtree() const { return *rtree_; }
#endif

 private:
  static constexpr uint32_t kBatch = 16384;

  World() : boxes_(LoadBoxes()), ids_(kBatch), distances_(kBatch) {
    const size_t bytes = (EpochShared::BytesFor(4) + 63) / 64 * 64;
    epochs_ = static_cast<EpochShared*>(std::aligned_alloc(64, bytes));
    InitEpochShared(epochs_, 4);
    reader_ = std::make_unique<EpochReader>(epochs_, 0);
    store_ = NewStore();
    Load(store_.get());
    scan_ = std::make_unique<WindowScan>(store_.get());
    nearest_ = std::make_unique<NearestScan>(store_.get());
    std::mt19937_64 random(7);
    for (int set = 0; set < 3; ++set) ChooseWindows(set, &random);
#if XT_BOOST
    std::vector<Value> values;
    for (size_t i = 0; i < boxes_.size(); ++i) values.emplace_back(ToRect(boxes_[i]), i);
    rtree_ = std::make_unique<Rtree>(values);
#endif
    TreeReport report;
    XT_ASSERT(CheckTree(store_.get(), kTreeMain,
                        store_->shared()->published_epoch.load(), true, &report).ok());
    printf("%zu boxes; xtree height %u, %lu leaves, %lu blocks, %zu problems\n", boxes_.size(),
           report.height, report.levels[0].nodes, report.levels[0].blocks,
           report.problems.size());
  }

  // Bisects the size of the squares on a sample of the centres.
  void ChooseWindows(int set, std::mt19937_64* random) {
    std::vector<Box> centres;
    for (uint32_t i = 0; i < kQueries; ++i) {
      const Box& b = boxes_[(*random)() % boxes_.size()];
      Box c;
      for (int d = 0; d < 2; ++d) c.lo[d] = c.hi[d] = (b.lo[d] + b.hi[d]) / 2;
      centres.push_back(c);
    }
    const auto grown = [](Box b, double by) {
      for (int d = 0; d < 2; ++d) {
        b.lo[d] -= by;
        b.hi[d] += by;
      }
      return b;
    };
    double small = 0, large = 90;
    for (int step = 0; step < 40; ++step) {
      const double half = (small + large) / 2;
      uint64_t total = 0;
      for (uint32_t i = 0; i < kQueries; i += 16) total += Count(grown(centres[i], half));
      (static_cast<double>(total) < kTargets[set] * kQueries / 16 ? small : large) = half;
    }
    for (Box& c : centres) windows_[set].push_back(grown(c, large));
  }

  std::vector<Box> boxes_;
  std::vector<uint64_t> ids_;
  std::vector<double> distances_;
  EpochShared* epochs_;
  std::unique_ptr<EpochReader> reader_;
  std::unique_ptr<MemoryStore> store_;
  std::unique_ptr<WindowScan> scan_;
  std::unique_ptr<NearestScan> nearest_;
  std::vector<Box> windows_[3];
#if XT_BOOST
  std::unique_ptr<Rtree> rtree_;
#endif
};

void XtreeWindow(benchmark::State& state) {
  World& w = World::Get();
  const auto& windows = w.windows(static_cast<int>(state.range(0)));
  uint64_t i = 0, found = 0;
  for (auto _ : state) found += w.Count(windows[i++ % kQueries]);
  state.counters["results"] = static_cast<double>(found) / static_cast<double>(i);
}
BENCHMARK(XtreeWindow)->DenseRange(0, 2);

void XtreeNearest(benchmark::State& state) {
  World& w = World::Get();
  const auto& windows = w.windows(0);
  uint64_t i = 0;
  const auto k = static_cast<uint32_t>(kNeighbours[state.range(0)]);
  for (auto _ : state) benchmark::DoNotOptimize(w.Nearest(windows[i++ % kQueries], k));
}
BENCHMARK(XtreeNearest)->DenseRange(0, 2);

void XtreeLoad(benchmark::State& state) {
  World& w = World::Get();
  for (auto _ : state) {
    state.PauseTiming();
    auto store = w.NewStore();
    state.ResumeTiming();
    w.Load(store.get());
    state.PauseTiming();
    store.reset();
    state.ResumeTiming();
  }
}
BENCHMARK(XtreeLoad)->Unit(benchmark::kMillisecond)->Iterations(5);

#if XT_BOOST
void BoostWindow(benchmark::State& state) {
  World& w = World::Get();
  const auto& windows = w.windows(static_cast<int>(state.range(0)));
  std::vector<Value> out;
  uint64_t i = 0, found = 0;
  for (auto _ : state) {
    out.clear();
    w.rtree().query(bgi::intersects(ToRect(windows[i++ % kQueries])), std::back_inserter(out));
    found += out.size();
  }
  state.counters["results"] = static_cast<double>(found) / static_cast<double>(i);
}
BENCHMARK(BoostWindow)->DenseRange(0, 2);

void BoostNearest(benchmark::State& state) {
  World& w = World::Get();
  const auto& windows = w.windows(0);
  std::vector<Value> out;
  uint64_t i = 0;
  const auto k = static_cast<unsigned>(kNeighbours[state.range(0)]);
  for (auto _ : state) {
    out.clear();
    const Box& at = windows[i++ % kQueries];
    w.rtree().query(bgi::nearest(Point(at.lo[0], at.lo[1]), k), std::back_inserter(out));
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(BoostNearest)->DenseRange(0, 2);
#endif

// All that a sharded table can cost over one that is not: look-ups know nothing of shards, and this is the whole
// of taking a handle and giving it back, which an insertion does when it splits a node.
void HandleOfOneShard(benchmark::State& state) {
  auto shared = std::make_unique<ObjectTableShared>();
  EntryArray entries;
  VersionArray versions;
  PageInfoArray infos;
  entries.Attach(&shared->entries);
  versions.Attach(&shared->versions);
  infos.Attach(&shared->page_infos);
  std::vector<std::unique_ptr<void, decltype(&std::free)>> chunks;
  const auto provide = [&](auto* array) {
    chunks.emplace_back(std::calloc(1, array->LevelBytes(0)), &std::free);
    array->Provide(0, 0, chunks.back().get());
  };
  provide(&entries);
  provide(&infos);
  ObjectTable table(shared.get(), &entries, &versions, &infos);
  for (auto _ : state) {
    NodeId id;
    XT_ASSERT(table.AllocateHandle(&id));
    table.FreeHandle(id.handle());
  }
}
BENCHMARK(HandleOfOneShard);

}  // namespace
}  // namespace xtree

BENCHMARK_MAIN();
