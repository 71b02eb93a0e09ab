// The engine alone, durable, beside in-memory trees: boost::geometry's rtree (packed, and filled one by one with
// R*) and SQLite's R*Tree, on the same boxes, queries and machine.
//
// Method: shoreline boxes (XTREE_DATA names the directory of the large file; without it the bundled sample). The
// index lives in a directory (XTREE_BENCH_DIR), with its log on; the peers' trees are in memory. Windows are
// squares around centres of random boxes, of one size a set, chosen so that the mean count is near 1, 100 or
// 10,000; the same windows in the same order are asked of all, and the nearest boxes of their centres. Ids are
// gathered. Peers take turns; each figure is the median of BENCH_RUNS (default 3) rounds after one that warms up.
// Insertions are in random order, with one commit at the end. Prints a Markdown table.
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>

#if __has_include(<boost/geometry.hpp>)
#define XT_BOOST 1
#include <boost/geometry.hpp>
#include <boost/geometry/index/rtree.hpp>
#else
#define XT_BOOST 0
#endif

#if __has_include(<sqlite3.h>)
#define XT_SQLITE 1
#include <sqlite3.h>
#else
#define XT_SQLITE 0
#endif

#include "bench_support.h"
#include "io/file_system.h"
#include "store/durable_runtime.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr size_t kInsertsMax = 500'000;
constexpr uint32_t kBatch = 16384;

struct Box {
  double lo[2], hi[2];
};

struct Windows {
  double target;
  std::vector<Box> boxes;
};

// A tree that can be asked. Both return how many ids they gathered.
class Tree {
 public:
  virtual ~Tree() = default;
  virtual uint64_t Window(const Box& window) = 0;
  virtual uint64_t Nearest(const double* point, uint32_t k) = 0;
};

class XtreeIndex : public Tree {
 public:
  XtreeIndex(DurableRuntime* runtime, Index* index)
      : reader_(runtime->reader()), scan_(index->store()), nearest_(index->store()), ids_(kBatch),
        distances_(kBatch) {}

  uint64_t Window(const Box& w) override {
    Predicate p = Predicate::All();
    for (int d = 0; d < 2; ++d) {
      p.lo_max[d] = w.hi[d];
      p.hi_min[d] = w.lo[d];
    }
    uint64_t total = 0;
    XT_ASSERT(scan_.Begin(reader_, kTreeMain, p).ok());
    for (uint32_t n = 1; n > 0; total += n) {
      XT_ASSERT(scan_.Next(ids_.data(), nullptr, nullptr, kBatch, false, &n).ok());
    }
    scan_.End();
    return total;
  }

  uint64_t Nearest(const double* point, uint32_t k) override {
    uint32_t total = 0;
    XT_ASSERT(nearest_.Begin(reader_, kTreeMain, point, Predicate::All()).ok());
    for (uint32_t n = 1; n > 0 && total < k; total += n) {
      XT_ASSERT(
          nearest_.Next(ids_.data(), distances_.data(), nullptr, nullptr, k - total, &n).ok());
    }
    nearest_.End();
    return total;
  }

 private:
  EpochReader* reader_;
  WindowScan scan_;
  NearestScan nearest_;
  std::vector<uint64_t> ids_;
  std::vector<double> distances_;
};

#if XT_BOOST
namespace bg = boost::geometry;
namespace bgi = boost::geometry::index;

class BoostTree : public Tree {
 public:
  using Point = bg::model::point<double, 2, bg::cs::cartesian>;
  using Rect = bg::model::box<Point>;
  using Value = std::pair<Rect, uint64_t>;
  static Rect ToRect(const Box& b) {
    return Rect(Point(b.lo[0], b.lo[1]), Point(b.hi[0], b.hi[1]));
  }

  BoostTree() = default;
  explicit BoostTree(const std::vector<Value>& values) : tree_(values) {}
  void Insert(const Box& box, uint64_t id) { tree_.insert(Value(ToRect(box), id)); }

  uint64_t Window(const Box& w) override {
    out_.clear();
    tree_.query(bgi::intersects(ToRect(w)), std::back_inserter(out_));
    return out_.size();
  }
  uint64_t Nearest(const double* point, uint32_t k) override {
    out_.clear();
    tree_.query(bgi::nearest(Point(point[0], point[1]), k), std::back_inserter(out_));
    return out_.size();
  }

 private:
  bgi::rtree<Value, bgi::rstar<32>> tree_;
  std::vector<Value> out_;
};
#endif

#if XT_SQLITE
// In memory. Keeps 32-bit coordinates, rounded outward, so it may find a few more. Knows no distance.
class SqliteTree : public Tree {
 public:
  SqliteTree() {
    XT_ASSERT(sqlite3_open(":memory:", &db_) == SQLITE_OK);
    works_ = sqlite3_exec(db_, "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1)", nullptr,
                          nullptr, nullptr) == SQLITE_OK;
    if (!works_) return;
    insert_ = Prepare("INSERT INTO r VALUES (?, ?, ?, ?, ?)");
    window_ = Prepare("SELECT id FROM r WHERE x0 <= ? AND x1 >= ? AND y0 <= ? AND y1 >= ?");
    XT_ASSERT(sqlite3_exec(db_, "BEGIN", nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  ~SqliteTree() override {
    sqlite3_finalize(insert_);
    sqlite3_finalize(window_);
    sqlite3_close(db_);
  }
  SqliteTree(const SqliteTree&) = delete;
  bool works() const { return works_; }

  void Insert(const Box& b, uint64_t id) {
    sqlite3_bind_int64(insert_, 1, static_cast<sqlite3_int64>(id + 1));
    for (int d = 0; d < 2; ++d) {
      sqlite3_bind_double(insert_, 2 + 2 * d, b.lo[d]);
      sqlite3_bind_double(insert_, 3 + 2 * d, b.hi[d]);
    }
    XT_ASSERT(sqlite3_step(insert_) == SQLITE_DONE);
    sqlite3_reset(insert_);
  }
  void Commit() {
    XT_ASSERT(sqlite3_exec(db_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  uint64_t Window(const Box& w) override {
    ids_.clear();
    for (int d = 0; d < 2; ++d) {
      sqlite3_bind_double(window_, 1 + 2 * d, w.hi[d]);
      sqlite3_bind_double(window_, 2 + 2 * d, w.lo[d]);
    }
    while (sqlite3_step(window_) == SQLITE_ROW) ids_.push_back(sqlite3_column_int64(window_, 0));
    sqlite3_reset(window_);
    return ids_.size();
  }
  uint64_t Nearest(const double*, uint32_t) override { return 0; }

 private:
  sqlite3_stmt* Prepare(const char* sql) {
    sqlite3_stmt* statement = nullptr;
    XT_ASSERT(sqlite3_prepare_v2(db_, sql, -1, &statement, nullptr) == SQLITE_OK);
    return statement;
  }
  sqlite3* db_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
  sqlite3_stmt* window_ = nullptr;
  bool works_ = false;
  std::vector<int64_t> ids_;
};
#endif

class Bench {
 public:
  Bench() {
    const char* text = getenv("BENCH_RUNS");
    rounds_ = text != nullptr ? std::max(1, atoi(text)) : 3;
    std::string file = "boxes_shore_seg_world_h.csv.gz";
    std::vector<double> numbers = ReadColumns(DataPath(file), 4);
    if (numbers.empty()) numbers = ReadColumns(DataPath(file = "boxes_shore_seg_med.csv.gz"), 4);
    XT_ASSERT(!numbers.empty());
    for (size_t i = 0; i < numbers.size(); i += 4) {
      boxes_.push_back({{numbers[i], numbers[i + 1]}, {numbers[i + 2], numbers[i + 3]}});
    }
    RuntimeOptions options;
    options.directory = scratch_.path();
    runtime_ = DurableRuntime::Open(options).value();
    printf("| engine, durable: %zu boxes of %s | xtree | peer, in memory | | ratio |\n"
           "|---|---|---|---|---|\n", boxes_.size(), file.c_str());
  }

  void Run() {
    Load();
    Insert();
  }

 private:
  static void Line(const std::string& what, double ours, const char* peer, double theirs) {
    printf("| %s | **%.3g** | %s | %.3g | %.2f |\n", what.c_str(), ours, peer, theirs,
           theirs > 0 ? ours / theirs : 0.0);
    fflush(stdout);
  }

  // Seconds that `work` takes, the median of the rounds.
  double Seconds(const std::function<void()>& work) const {
    std::vector<double> took;
    for (int round = 0; round < rounds_; ++round) {
      const Stopwatch watch;
      work();
      took.push_back(watch.Seconds());
    }
    return Median(took);
  }

  // What the whole file costs to be written and synced, without an index.
  double WriteSeconds(uint64_t bytes) const {
    const std::vector<char> piece(1 << 20, 1);
    const std::string path = scratch_.path() + "/raw";
    const double seconds = Seconds([&] {
      FILE* raw = fopen(path.c_str(), "wb");
      XT_ASSERT(raw != nullptr);
      for (uint64_t at = 0; at < bytes; at += piece.size()) {
        XT_ASSERT(fwrite(piece.data(), 1, piece.size(), raw) == piece.size());
      }
      XT_ASSERT(fflush(raw) == 0 && fsync(fileno(raw)) == 0);
      fclose(raw);
    });
    unlink(path.c_str());
    return seconds;
  }

  void Load() {
    std::vector<double> lo, hi;
    std::vector<uint64_t> ids(boxes_.size());
    std::iota(ids.begin(), ids.end(), 0);
    for (const Box& b : boxes_) {
      lo.insert(lo.end(), b.lo, b.lo + 2);
      hi.insert(hi.end(), b.hi, b.hi + 2);
    }
    Index* index = nullptr;
    int loads = 0;
    const auto load = [&](uint32_t threads) {
      return Seconds([&] {
        if (index != nullptr) XT_ASSERT(runtime_->DropIndex("load" + std::to_string(loads)).ok());
        index = runtime_->CreateIndex("load" + std::to_string(++loads), IndexOptions{}).value();
        XT_ASSERT(index->BulkLoad(lo.data(), hi.data(), ids.data(), ids.size(), threads).ok());
      });
    };
    const double one = load(1);
    const double two = load(2);
    const double each = 1e6 / static_cast<double>(boxes_.size());
    XtreeIndex ours(runtime_.get(), index);
    ChooseWindows(boxes_, &ours);
#if XT_BOOST
    const uint64_t bytes =
        std::filesystem::file_size(scratch_.path() + "/load" + std::to_string(loads));
    const double write = WriteSeconds(bytes);
    std::vector<BoostTree::Value> values;
    for (size_t i = 0; i < boxes_.size(); ++i) values.emplace_back(BoostTree::ToRect(boxes_[i]), i);
    std::unique_ptr<BoostTree> packed;
    const double pack = Seconds([&] {
      packed.reset();
      packed = std::make_unique<BoostTree>(values);
    });
    char peer[96];
    snprintf(peer, sizeof(peer), "boost's packing, %.3g, and writing as large a file", pack * each);
    Line("bulk load, 1 thread, us an entry", one * each, peer, (pack + write) * each);
    Line("bulk load, 2 threads, us an entry", two * each, peer, (pack + write) * each);
    Compare("", &ours, "boost, packed", packed.get(), true);
#else
    printf("| bulk load, us an entry | **%.3g** | boost is not installed | | |\n", one * each);
    printf("| bulk load, 2 threads, us an entry | **%.3g** | | | |\n", two * each);
#endif
  }

  void Insert() {
    std::mt19937_64 random(3);
    std::vector<Box> rows = boxes_;
    std::shuffle(rows.begin(), rows.end(), random);
    rows.resize(std::min(rows.size(), kInsertsMax));
    const double each = 1e6 / static_cast<double>(rows.size());
    int fills = 0;
    Index* index = nullptr;
    const double ours = Seconds([&] {
      index = runtime_->CreateIndex("inserts" + std::to_string(++fills), IndexOptions{}).value();
      for (size_t i = 0; i < rows.size(); ++i) {
        Key key{};
        std::copy(rows[i].lo, rows[i].lo + 2, key.lo);
        std::copy(rows[i].hi, rows[i].hi + 2, key.hi);
        XT_ASSERT(index->Insert(key, i).ok());
      }
      XT_ASSERT(index->Commit().ok());
    });
    XtreeIndex asked(runtime_.get(), index);
    ChooseWindows(rows, &asked);
    const std::string what = std::to_string(rows.size()) + " insertions one by one, us each";
#if XT_BOOST
    std::unique_ptr<BoostTree> boost;
    const double theirs = Seconds([&] {
      boost = std::make_unique<BoostTree>();
      for (size_t i = 0; i < rows.size(); ++i) boost->Insert(rows[i], i);
    });
    Line(what, ours * each, "boost, R*", theirs * each);
#endif
#if XT_SQLITE
    SqliteTree sqlite;
    if (!sqlite.works()) {
      printf("| | | SQLite has no R*Tree here | | |\n");
      return;
    }
    const Stopwatch watch;
    for (size_t i = 0; i < rows.size(); ++i) sqlite.Insert(rows[i], i);
    sqlite.Commit();
    Line(what, ours * each, "SQLite R*Tree", watch.Seconds() * each);
    Compare(", these rows", &asked, "SQLite R*Tree", &sqlite, false);
#else
    printf("| | | SQLite is not installed | | |\n");
#endif
  }

  // Microseconds a query, of two trees in turn.
  void Compare(const std::string& suffix, Tree* ours, const char* peer, Tree* theirs,
               bool nearest) {
    const auto ask = [&](const std::string& what, const std::function<void(Tree*)>& all,
                         size_t queries) {
      std::vector<double> took[2];
      for (int round = 0; round <= rounds_; ++round) {
        for (int which = 0; which < 2; ++which) {
          const Stopwatch watch;
          all(which == 0 ? ours : theirs);
          if (round > 0) took[which].push_back(1e6 * watch.Seconds() / static_cast<double>(queries));
        }
      }
      Line(what + suffix + ", us", Median(took[0]), peer, Median(took[1]));
    };
    for (const Windows& set : windows_) {
      ask("window of about " + std::to_string(static_cast<int>(set.target)), [&](Tree* tree) {
        for (const Box& w : set.boxes) found_ += tree->Window(w);
      }, set.boxes.size());
    }
    for (uint32_t k : {1u, 10u, 100u}) {
      if (!nearest) break;
      const std::vector<Box>& boxes = windows_[0].boxes;
      ask("nearest " + std::to_string(k), [&](Tree* tree) {
        for (const Box& w : boxes) {
          const double centre[2] = {(w.lo[0] + w.hi[0]) / 2, (w.lo[1] + w.hi[1]) / 2};
          found_ += tree->Nearest(centre, k);
        }
      }, boxes.size());
    }
  }

  // Bisects the size of the squares on a sample of the centres.
  void ChooseWindows(const std::vector<Box>& rows, Tree* tree) {
    std::mt19937_64 random(7);
    windows_.clear();
    for (const double target : {1.0, 100.0, 10000.0}) {
      const size_t count = target > 1000 ? 256 : 4096;
      std::vector<std::pair<double, double>> centres;
      for (size_t i = 0; i < count; ++i) {
        const Box& b = rows[random() % rows.size()];
        centres.emplace_back((b.lo[0] + b.hi[0]) / 2, (b.lo[1] + b.hi[1]) / 2);
      }
      const auto square = [&](size_t i, double half) {
        const auto& [x, y] = centres[i];
        return Box{{x - half, y - half}, {x + half, y + half}};
      };
      double small = 0, large = 90;
      for (int step = 0; step < 40; ++step) {
        const double half = (small + large) / 2;
        uint64_t total = 0;
        for (size_t i = 0; i < count; i += 4) total += tree->Window(square(i, half));
        (static_cast<double>(total) < target * static_cast<double>(count) / 4 ? small : large) =
            half;
      }
      Windows set{target, {}};
      for (size_t i = 0; i < count; ++i) set.boxes.push_back(square(i, large));
      windows_.push_back(std::move(set));
    }
  }

  int rounds_;
  ScratchDirectory scratch_;
  std::unique_ptr<DurableRuntime> runtime_;
  std::vector<Box> boxes_;
  std::vector<Windows> windows_;
  uint64_t found_ = 0;  // So that no query is optimized away.
};

}  // namespace
}  // namespace xtree

int main() {
  xtree::Bench().Run();
  return 0;
}
