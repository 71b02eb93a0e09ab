// What insertions of several threads into one index cost, beside each other and beside one thread alone.
//
// Method: for each number of threads (BENCH_THREADS) an index of its own, of BENCH_ROWS boxes (default
// 500,000) loaded in bulk; the threads then insert as many, spread at random, each its share. In memory, and
// with files and their log (EVENTUAL; commits by one thread, every 10,000 of its rows); BENCH_MODES picks of
// "memory log".
// The median of BENCH_RUNS (default 3) runs that take turns. CPU is that of the whole process. Waits are
// those that xtree_stats shows, too. Prints a Markdown table.
#include <sys/resource.h>

#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "bench_support.h"
#include "store/durable_runtime.h"

namespace xtree {
namespace {

constexpr uint64_t kCommitEvery = 10'000;

uint64_t NumberFrom(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

// BENCH_THREADS, default 1 2 4 8.
std::vector<uint32_t> ThreadCounts() {
  const char* text = getenv("BENCH_THREADS");
  std::istringstream words(text != nullptr ? text : "1 2 4 8");
  std::vector<uint32_t> counts;
  for (uint32_t count; words >> count;) counts.push_back(count);
  XT_ASSERT(!counts.empty());
  return counts;
}

bool IsWanted(const char* mode) {
  const char* text = getenv("BENCH_MODES");
  return text == nullptr || std::string(text).find(mode) != std::string::npos;
}

double CpuSeconds() {
  rusage usage;
  XT_ASSERT(getrusage(RUSAGE_SELF, &usage) == 0);
  const auto seconds = [](const timeval& t) { return t.tv_sec + 1e-6 * t.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Figures {
  std::vector<double> rate, cpu_us, shared, retries, lock_waits, latch_waits;
};

struct Boxes {
  explicit Boxes(uint64_t count) : lo(2 * count), hi(2 * count), ids(count) {
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> place(0, 1000), size(0, 0.1);
    for (size_t i = 0; i < lo.size(); ++i) {
      lo[i] = place(random);
      hi[i] = lo[i] + size(random);
    }
    for (uint64_t i = 0; i < count; ++i) ids[i] = i;
  }
  Key KeyAt(uint64_t i) const {
    Key key;
    std::copy_n(&lo[2 * i], 2, key.lo);
    std::copy_n(&hi[2 * i], 2, key.hi);
    return key;
  }
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
};

void Measure(const Boxes& boxes, DurabilityMode mode, uint32_t threads, Figures* figures) {
  const uint64_t rows = boxes.ids.size() / 2;
  ScratchDirectory scratch;
  RuntimeOptions options;
  options.directory = scratch.path();
  options.mode = mode;
  options.background_checkpoints = false;
  auto runtime = DurableRuntime::Open(options).value();
  Index* index = runtime->CreateIndex("boxes", IndexOptions{}).value();
  XT_ASSERT(index->BulkLoad(boxes.lo.data(), boxes.hi.data(), boxes.ids.data(), rows, 1).ok());
  const double cpu = CpuSeconds();
  const Stopwatch watch;
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      uint64_t done = 0;
      for (uint64_t i = rows + t; i < 2 * rows; i += threads) {
        XT_ASSERT(index->Insert(boxes.KeyAt(i), boxes.ids[i]).ok());
        if (t == 0 && ++done % kCommitEvery == 0) XT_ASSERT(index->Commit().ok());
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  const double per_row = 1.0 / static_cast<double>(rows);
  figures->rate.push_back(static_cast<double>(rows) / watch.Seconds());
  figures->cpu_us.push_back(1e6 * (CpuSeconds() - cpu) * per_row);
  const IndexShared& shared = *index->store()->shared();
  uint64_t appends = 0, waits = shared.log.latch_waits;
  for (const LeafLatch& leaf : shared.writers.leaves) {
    appends += leaf.appends;
    waits += leaf.waits;
  }
  figures->shared.push_back(100.0 * static_cast<double>(appends) * per_row);
  figures->retries.push_back(1e3 * static_cast<double>(shared.writers.exclusive_turns) * per_row);
  figures->lock_waits.push_back(1e3 * static_cast<double>(shared.writers.lock_waits) * per_row);
  figures->latch_waits.push_back(1e3 * static_cast<double>(waits) * per_row);
}

int Main() {
  const Boxes boxes(2 * NumberFrom("BENCH_ROWS", 500'000));
  const uint64_t runs = NumberFrom("BENCH_RUNS", 3);
  std::vector<DurabilityMode> modes;
  if (IsWanted("memory")) modes.push_back(DurabilityMode::kInMemory);
  if (IsWanted("log")) modes.push_back(DurabilityMode::kEventual);
  const std::vector<uint32_t> threads = ThreadCounts();
  std::vector<std::vector<Figures>> figures(modes.size(), std::vector<Figures>(threads.size()));
  for (uint64_t run = 0; run < runs; ++run) {
    for (size_t m = 0; m < modes.size(); ++m) {
      for (size_t t = 0; t < threads.size(); ++t) {
        Measure(boxes, modes[m], threads[t], &figures[m][t]);
      }
    }
  }
  printf("| insertions into one index, %u processors | threads | a second | of the first | CPU, us | "
         "beside others, %% | lock waits in 1,000 | retries in 1,000 | latch waits in 1,000 |\n"
         "|---|---|---|---|---|---|---|---|---|\n", std::thread::hardware_concurrency());
  for (size_t m = 0; m < modes.size(); ++m) {
    for (size_t t = 0; t < threads.size(); ++t) {
      const Figures& f = figures[m][t];
      printf("| %s | %u | **%.0f** | %.2f | %.2f | %.1f | %.2f | %.2f | %.2f |\n",
             modes[m] == DurabilityMode::kInMemory ? "in memory" : "files and log", threads[t],
             Median(f.rate), Median(f.rate) / Median(figures[m][0].rate), Median(f.cpu_us),
             Median(f.shared), Median(f.lock_waits), Median(f.retries), Median(f.latch_waits));
    }
  }
  return 0;
}

}  // namespace
}  // namespace xtree

int main() { return xtree::Main(); }
