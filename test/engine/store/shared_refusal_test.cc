// Goal: an insertion beside others that is refused memory leaves nothing behind, neither pins, with which its windows
// could never be unmapped again, nor promises of room.
// Method: this program's allocator refuses the nth request, for every n until the insertion needs no more; with no
// window mapped, and with touched blocks tracked, since both take memory.
#include "store/shared_insertion.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "store/durable_store.h"
#include "support/epochs.h"
#include "testing/sim_file_system.h"

namespace {
constexpr int64_t kNever = -1;
int64_t g_refuse_in = kNever;  // So many requests are granted before one is refused.

void* Allocate(size_t bytes) {
  if (g_refuse_in != kNever && g_refuse_in-- == 0) return nullptr;
  return std::malloc(bytes != 0 ? bytes : 1);
}
}  // namespace

void* operator new(size_t bytes) {
  void* memory = Allocate(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return Allocate(bytes); }
// Not inlined: the compiler would find memory of `new` that is freed by free.
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace xtree {
namespace {

Key KeyOf(uint64_t id) {
  Key key;
  for (int d = 0; d < 2; ++d) {
    key.lo[d] = static_cast<double>(id * 7919 % 1000) + d;
    key.hi[d] = key.lo[d] + 1;
  }
  return key;
}

TEST(SharedRefusal, LeavesNothingBehindWhateverRequestIsRefused) {
  SimFileSystem fs(1);
  ASSERT_TRUE(fs.CreateDirectory("/db").ok());
  WindowBudget budget(16);
  Epochs epochs(2);
  auto shared = std::make_unique<IndexShared>();
  DurableStore store(shared.get(), &fs, &budget, epochs.get(), "/db/index", "/db/index_log",
                     ChunkSource::kHeap);
  ASSERT_TRUE(store.Create(IndexOptions{}, Identity{}, 1).ok());
  for (uint64_t id = 1; id <= 20; ++id) {
    const Key key = KeyOf(id);
    ASSERT_TRUE(store.details()->PrepareInsert(&key, id).ok());
    store.details()->Apply(0);
  }
  store.TrackTouched(true);
  SharedInsertion insertion(&store, &store);
  const Key key = KeyOf(21);
  for (int64_t granted = 0;; ++granted) {
    SCOPED_TRACE(::testing::Message() << granted << " requests granted");
    store.DropWindows();
    g_refuse_in = granted;
    try {
      const Status status = insertion.Prepare(&key, 21);
      (void)status.ok();
    } catch (const std::bad_alloc&) {
    }
    const bool refused = g_refuse_in == kNever;
    g_refuse_in = kNever;
    if (!refused) {  // It needed no more than it got.
      ASSERT_GT(granted, 0);
      ASSERT_TRUE(insertion.prepared());
      break;
    }
    if (insertion.prepared()) insertion.Discard();
    ASSERT_EQ(store.windows()->pins(), 0u);
    ASSERT_EQ(store.log()->windows()->pins(), 0u);
    ASSERT_EQ(shared->log.reserved_bytes, 0u);
  }
  insertion.Apply(0);
  EXPECT_EQ(shared->trees[kTreeMain].entries.load(), 21u);
}

}  // namespace
}  // namespace xtree
