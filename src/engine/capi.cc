// The C wall: process, creation, state, changes and folds. Scans and inspection are in
// capi_scan.cc, bulk builds in capi_build.cc.
#include <cstring>
#include <new>

#include "base/mutex.h"
#include "capi_internal.h"
#include "store/rewound.h"
#include "io/io_queue.h"
#include "io/mapping_guard.h"
#include "tree/choose_subtree.h"
#include "tree/kernels.h"
#include "tree/packed_coords.h"
#include "tree/paths_ahead.h"

using namespace xtree;        // NOLINT: this file is the boundary; its own names all begin with xt.
using namespace xtree::capi;  // NOLINT

static_assert(XT_INTERNAL == static_cast<int>(Code::kInternal));
static_assert(XT_CANCELLED == static_cast<int>(Code::kCancelled));
static_assert(XT_NEED_FORGET == static_cast<int>(Code::kNeedForget));
static_assert(XT_NEED_MEMORY == static_cast<int>(Code::kNeedMemory));
static_assert(XT_DIMS_MAX == kDimsMax && XT_TREES == kTrees && XT_LEVELS_MAX == kTreeLevelsMax);
static_assert(XT_SCAN_BATCH_MIN == kScanBatchMin);
static_assert(XT_PACKED_BYTES_MAX == kPackedBytesMax);
static_assert(XT_SUPERBLOCKS == kSuperblockSlots);
static_assert(XT_BLOCK_NUMBER_OFFSET == offsetof(BlockHeader, block_number));
static_assert(XT_EXPECTED_MAX == PathsAhead::kPathsMax);
static_assert(XT_DELETE_BATCH_MAX == IndexDetails::kDeleteBatchMax);
static_assert(sizeof(XtPredicate) == sizeof(Predicate));
static_assert(offsetof(XtPredicate, hi_max) == offsetof(Predicate, hi_max));
static_assert(offsetof(XtPredicate, nan_matches) == offsetof(Predicate, nan_matches));
static_assert(sizeof(XtIdentity) == sizeof(Identity));
static_assert(sizeof(XtTimelineEnd) == sizeof(TimelineEnd));

namespace {

Identity ToIdentity(const XtIdentity* identity) {
  Identity result;
  std::memcpy(&result, identity, sizeof(result));
  return result;
}

Status ToOptions(const XtSpec* spec, IndexOptions* options) {
  if (spec->dims < 1 || spec->dims > kDimsMax) {
    return Status::InvalidArgument("an index cannot have %u dimensions, at most %u are possible",
                                   spec->dims, kDimsMax);
  }
  if (spec->coord > XT_F32 || spec->kind > XT_POINT || spec->leaf_fill_percent < 10 ||
      spec->leaf_fill_percent > 100) {
    return Status::InvalidArgument("invalid index options: coordinates %u, kind %u, fill factor %u",
                                   spec->coord, spec->kind, spec->leaf_fill_percent);
  }
  options->spec = KeySpec{spec->dims, static_cast<CoordType>(spec->coord),
                          static_cast<KeyKind>(spec->kind)};
  options->leaf_fill_percent = spec->leaf_fill_percent;
  return Status::Ok();
}

// One queue per process, made at its first use.
Mutex g_queue_mutex;
std::unique_ptr<IoQueue> g_queue;
std::string g_why_portable;  // Constant once the queue is there.

IoQueue* Queue() {
  if (g_queue == nullptr) g_queue = NewIoQueue(&g_why_portable);
  return g_queue.get();
}

}  // namespace

// --- Process and shared memory.

uint64_t xt_epoch_shared_bytes(uint32_t slots) noexcept { return EpochShared::BytesFor(slots); }

void xt_epoch_shared_init(void* memory, uint32_t slots) noexcept {
  InitEpochShared(static_cast<EpochShared*>(memory), slots);
}

uint64_t xt_index_shared_bytes(void) noexcept { return sizeof(IndexShared); }

uint64_t xt_index_shared_alignment(void) noexcept { return alignof(IndexShared); }

void xt_preload() noexcept {
  // The C++ library's own references to the allocator; ours are bound when the library is loaded. Containers
  // free by size, which refers to the plain operator: looking that up took a new process 110 us.
  void* memory = ::operator new(64, std::nothrow);
  if (memory != nullptr) ::operator delete(memory, size_t{64});
  // What is decided once in a process is so here, for all.
  (void)ActiveKernels();
  (void)ChooseKernels::For(2);
}

XtRuntime* xt_runtime_create(void* epoch_shared, uint32_t slot, uint32_t windows_max,
                             XtError* error) noexcept {
  XtRuntime* runtime = nullptr;
  Guard(error, [&] {
    InstallMappingGuard();
    runtime = new XtRuntime(static_cast<EpochShared*>(epoch_shared), slot, windows_max);
    return Status::Ok();
  });
  return runtime;
}

void xt_runtime_free(XtRuntime* runtime) noexcept { delete runtime; }

uint32_t xt_runtime_windows_mapped(const XtRuntime* runtime) noexcept {
  return runtime->budget.windows_mapped();
}

XtIndex* xt_index_open(XtRuntime* runtime, void* index_shared, const char* data_path,
                       const char* log_path, XtError* error) noexcept {
  XtIndex* index = nullptr;
  XT_ASSERT(reinterpret_cast<uintptr_t>(index_shared) % alignof(IndexShared) == 0);
  Guard(error, [&] {
    index = new XtIndex(runtime, static_cast<IndexShared*>(index_shared), data_path, log_path);
    return Status::Ok();
  });
  return index;
}

void xt_index_close(XtIndex* index) noexcept { delete index; }

void xt_index_drop_windows(XtIndex* index) noexcept { index->store.DropWindows(); }

void xt_chunk_wanted(XtIndex* index, XtChunkRequest* request) noexcept {
  const ChunkRequest& wanted = index->store.chunk_request();
  *request = XtChunkRequest{wanted.array, wanted.level, wanted.bytes, 0};
}

bool xt_chunk_missing(XtIndex* index, XtChunkRequest* request) noexcept {
  ChunkRequest missing;
  uint64_t ref;
  if (!index->store.MissingChunk(&missing, &ref)) return false;
  *request = XtChunkRequest{missing.array, missing.level, missing.bytes, ref};
  return true;
}

void xt_chunk_provide(XtIndex* index, uint32_t array, uint32_t level, uint64_t ref,
                      void* address) noexcept {
  index->store.ProvideChunk(array, level, ref, address);
}

uint32_t xt_chunk_refs(const void* index_shared, uint64_t* refs, uint32_t capacity) noexcept {
  const auto* shared = static_cast<const IndexShared*>(index_shared);
  uint32_t count = 0;
  for (uint32_t id = 0; id < kArrays; ++id) {
    const ArrayDirectory* array = IndexArray(const_cast<IndexShared*>(shared), id);
    const uint32_t levels = array->levels.load(std::memory_order_acquire);
    for (uint32_t level = 0; level < levels; ++level, ++count) {
      if (count < capacity) refs[count] = array->refs[level].load(std::memory_order_relaxed);
    }
  }
  return count;
}

// --- Create, load, state.

bool xt_create(XtIndex* index, const XtSpec* spec, const XtIdentity* identity, uint32_t timeline,
               XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] {
    IndexOptions options;
    XT_RETURN_IF_ERROR(ToOptions(spec, &options));
    return index->store.Create(options, ToIdentity(identity), timeline);
  });
}

bool xt_load(XtIndex* index, const XtLoadPolicy* policy, uint32_t ops_max, bool* done,
             XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] {
    LoadPolicy load;
    load.host = true;
    load.current_timeline = policy->current_timeline;
    load.timelines = reinterpret_cast<const TimelineEnd*>(policy->timelines);
    load.timeline_count = policy->timeline_count;
    load.lsn_max = policy->lsn_max;
    load.identity = ToIdentity(&policy->identity);
    load.held = LogExtent{policy->held.capture_id, policy->held.end_mark, policy->held.bytes};
    load.may_shorten = policy->may_shorten;
    return index->store.LoadStep(load, ops_max, done);
  });
}

bool xt_empty_image(const XtSpec* spec, const XtIdentity* identity, void* pages,
                    XtError* error) noexcept {
  return Guard(error, [&] {
    IndexOptions options;
    XT_RETURN_IF_ERROR(ToOptions(spec, &options));
    Superblock content;
    DurableStore::FillEmptySuperblock(options, ToIdentity(identity), true, &content);
    std::memset(pages, 0, kSuperblockSlots * kBlockBytes);
    for (uint32_t slot = 0; slot < kSuperblockSlots; ++slot) {
      WriteSuperblock(content, slot, static_cast<std::byte*>(pages) + slot * kBlockBytes);
    }
    return Status::Ok();
  });
}

bool xt_is_loaded(const XtIndex* index) noexcept {
  return index->shared->magic == kIndexSharedMagic;
}

bool xt_adopted(const XtIndex* index) noexcept { return index->store.adopted(); }

bool xt_is_foreign(const void* superblocks, const XtIdentity* identity) noexcept {
  bool foreign = false;
  XtError ignored;
  Guard(&ignored, [&]() -> Status {
    const auto* slots = static_cast<const std::byte*>(superblocks);
    Superblock content;
    uint32_t slot;
    XT_RETURN_IF_ERROR(ChooseSuperblock(slots, slots + kBlockBytes, "", nullptr, UINT64_MAX,
                                        &content, &slot));
    foreign = !SameIdentity(content.identity, ToIdentity(identity));
    return Status::Ok();
  });
  return foreign;
}

bool xt_is_broken(const XtIndex* index) noexcept {
  return index->shared->broken.load(std::memory_order_relaxed) != 0;
}

bool xt_mark_broken(XtIndex* index, XtError* error) noexcept {
  const bool ok = Guard(error, [&] { return index->store.MarkBroken(); });
  ForgetMappingFaults();  // The last thing that is done with a handle after a fault.
  return ok;
}

bool xt_distrust_rewound(const char* data_path, const char* log_path, bool* broken,
                         XtError* error) noexcept {
  *broken = false;
  return Guard(error, [&]() -> Status {
    bool whole = false;
    std::string why;
    const Status status = CheckRewound(data_path, log_path, &whole, &why);
    if (status.code() == Code::kNotFound) return Status::Ok();
    XT_RETURN_IF_ERROR(status);
    if (whole) return Status::Ok();
    XT_RETURN_IF_ERROR(MarkFileBroken(PosixFileSystem(), data_path));
    *broken = true;
    Fill(error, Code::kBroken, why.c_str());
    return Status::Ok();
  });
}

bool xt_mark_file_broken(const char* data_path, XtError* error) noexcept {
  const bool ok = Guard(error, [&] { return MarkFileBroken(PosixFileSystem(), data_path); });
  ForgetMappingFaults();
  return ok;
}

bool xt_faulted(const XtIndex* index) noexcept { return index->store.faulted(); }

void xt_fault(const XtIndex* index, XtError* error) noexcept {
  Guard(error, [&] { return index->store.FaultStatus(); });
}

void xt_spec(const XtIndex* index, XtSpec* spec) noexcept {
  const KeySpec& s = index->shared->trees[kTreeMain].spec;
  *spec = XtSpec{s.dims, static_cast<uint8_t>(s.coord), static_cast<uint8_t>(s.kind),
                 static_cast<uint8_t>(index->shared->leaf_fill_percent)};
}

uint64_t xt_applied_lsn(const XtIndex* index) noexcept {
  return index->shared->applied_lsn.load(std::memory_order_relaxed);
}

uint64_t xt_entries(const XtIndex* index, uint32_t tree) noexcept {
  return index->shared->trees[tree].entries.load(std::memory_order_acquire);
}

uint32_t xt_data_blocks(const XtIndex* index) noexcept {
  return index->shared->allocator.file_blocks.load(std::memory_order_relaxed);
}

bool xt_sync_data(XtIndex* index, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] { return index->store.SyncData(); });
}

void* xt_block_address(XtIndex* index, uint32_t block, XtError* error) noexcept {
  void* result = nullptr;
  GuardFiles(index, OnFault::kFail, error, [&]() -> Status {
    if (block >= xt_data_blocks(index)) {
      return Status::InvalidArgument("block %u is beyond the end of the file, which has %u", block,
                                     xt_data_blocks(index));
    }
    XT_ASSIGN_OR_RETURN(result, index->store.windows()->MapBlock(block));
    return Status::Ok();
  });
  return result;
}

// --- Changes.

uint32_t xt_pack_coords(const double* lo, const double* hi, uint32_t dims, bool point, char* to,
                        uint8_t* packing) noexcept {
  return PackCoords(lo, hi, dims, point, reinterpret_cast<std::byte*>(to), packing);
}

bool xt_unpack_coords(const char* from, uint32_t bytes, uint8_t packing, uint32_t dims, bool point,
                      double* lo, double* hi) noexcept {
  return UnpackCoords(reinterpret_cast<const std::byte*>(from), bytes, packing, dims, point, lo, hi);
}

bool xt_prepare_insert(XtIndex* index, const double* lo, const double* hi, uint64_t record_id,
                       XtError* error) noexcept {
  return GuardFiles(index, OnFault::kBreak, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    if (lo == nullptr) return index->store.details()->PrepareInsert(nullptr, record_id);
    const Key key = MakeKey(index->shared->trees[kTreeMain].spec, lo, hi);
    return index->store.details()->PrepareInsert(&key, record_id);
  });
}

void xt_expect_insert(XtIndex* index, const double* lo, const double* hi, uint64_t record_id) noexcept {
  XtError ignored;
  GuardFiles(index, OnFault::kFail, &ignored, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    const Key key = MakeKey(index->shared->trees[kTreeMain].spec, lo, hi);
    index->store.details()->ExpectInsert(key, record_id);
    return Status::Ok();
  });
}

void xt_walk_ahead(XtIndex* index) noexcept {
  XtError ignored;
  GuardFiles(index, OnFault::kFail, &ignored, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    index->store.details()->WalkAhead();
    return Status::Ok();
  });
}

bool xt_take_shared_turn(XtIndex* index) noexcept {
  return index->shared->writers.TakeSharedTurn();
}

void xt_note_lock_wait(XtIndex* index) noexcept { index->shared->writers.NoteLockWait(); }

bool xt_prepare_insert_shared(XtIndex* index, const double* lo, const double* hi,
                              uint64_t record_id, bool* prepared, XtError* error) noexcept {
  *prepared = false;
  const bool ok = GuardFiles(index, OnFault::kBreak, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    if (lo == nullptr) return index->beside.Prepare(nullptr, record_id);
    const Key key = MakeKey(index->shared->trees[kTreeMain].spec, lo, hi);
    return index->beside.Prepare(&key, record_id);
  });
  *prepared = ok && index->beside.prepared();
  return ok;
}

bool xt_may_insert_shared_again(const XtIndex* index) noexcept {
  return index->beside.MayBeTriedAgain();
}

bool xt_prepare_delete(XtIndex* index, uint32_t tree, const double* lo, const double* hi,
                       const uint64_t* record_ids, uint32_t count, const XtLeafHint* hint,
                       uint32_t* found, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kBreak, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    if (tree >= kTrees || count > IndexDetails::kDeleteBatchMax) {
      return Status::InvalidArgument("cannot delete %u entries at once from tree %u", count, tree);
    }
    Key bound;  // Corners of a region, even if the keys are points.
    for (uint32_t d = 0; d < index->shared->trees[tree].spec.dims; ++d) {
      bound.lo[d] = lo[d];
      bound.hi[d] = hi[d];
    }
    const LeafHint leaves = hint == nullptr
                                ? LeafHint{}
                                : LeafHint{hint->leaves, hint->count, hint->ends, hint->slots};
    return index->store.details()->PrepareDelete(tree, bound, record_ids, count, found, leaves);
  });
}

void xt_apply(XtIndex* index, uint64_t lsn) noexcept {
  if (index->beside.prepared()) {
    index->beside.Apply(lsn);
  } else {
    index->store.details()->Apply(lsn);
  }
  // A store is lost, perhaps the frame in the log: what was applied may be missing after a restart.
  if (XT_UNLIKELY(index->store.faulted())) Break(index);
}

void xt_discard(XtIndex* index) noexcept {
  index->store.details()->Discard();
  index->beside.Discard();
}

uint32_t xt_log_file_segment(const XtIndex* index) noexcept {
  return const_cast<XtIndex*>(index)->store.log()->file_segment();
}

uint64_t xt_log_bytes(const XtIndex* index) noexcept { return index->store.log_bytes(); }

void xt_log_extent(void* index_shared, XtLogExtent* extent) noexcept {
  auto* shared = static_cast<IndexShared*>(index_shared);
  SpinLatch latch(&shared->log.latch);
  extent->capture_id = shared->capture.capture_id;
  extent->end_mark = shared->log.end_mark.load(std::memory_order_relaxed);
  extent->bytes = shared->log.bytes.load(std::memory_order_relaxed);
}

void xt_track_touched(XtIndex* index, bool enabled) noexcept {
  index->store.TrackTouched(enabled);
}

bool xt_touched_next(XtIndex* index, XtTouched* touched) noexcept {
  return index->store.NextTouched(&touched->block, &touched->in_log, &touched->page);
}

// --- Folds.

bool xt_fold_begin(XtIndex* index, uint64_t* capture_lsn, XtError* error) noexcept {
  bool begun = false;
  const bool ok = GuardFiles(index, OnFault::kBreak, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    begun = true;  // Also if it throws on the way.
    const Status status = index->store.FoldBegin();
    begun = status.ok();
    if (begun) *capture_lsn = index->store.fold_lsn();
    return status;
  });
  // It may have begun, and only the look at the files afterwards said no.
  if (!ok && begun) index->store.FoldEnd(false);
  return ok;
}

bool xt_fold_write(XtIndex* index, uint32_t blocks_max, bool* done, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error,
                    [&] { return index->store.FoldWrite(blocks_max, done); });
}

bool xt_fold_publish(XtIndex* index, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kFail, error, [&] { return index->store.FoldPublish(); });
}

void xt_fold_suspend(XtIndex* index, bool published) noexcept {
  index->store.FoldSuspend(published);
}

void xt_fold_end(XtIndex* index, bool published) noexcept {
  index->store.FoldEnd(published, false);
  // The next capture would keep stamps and zeroed blocks that were never stored.
  if (XT_UNLIKELY(index->store.faulted())) Break(index);
}

bool xt_fold_tidy(XtIndex* index, uint64_t versions_max) noexcept {
  const bool done = index->store.FoldTidy(versions_max);
  if (XT_UNLIKELY(index->store.faulted())) {
    Break(index);
    return true;
  }
  return done;
}

uint32_t xt_compact_limit(const XtIndex* index) noexcept { return index->store.CompactLimit(); }

bool xt_compact_step(XtIndex* index, uint32_t nodes_max, uint64_t* position, uint32_t limit,
                     bool* done, XtError* error) noexcept {
  return GuardFiles(index, OnFault::kBreak, error, [&] {
    XT_RETURN_IF_ERROR(Usable(index));
    return index->store.CompactStep(nodes_max, position, limit, done);
  });
}

void xt_sync_files(const char* const* paths, int* status, uint32_t count) noexcept {
  for (uint32_t i = 0; i < count; ++i) status[i] = XT_INTERNAL;
  XtError error;
  const bool ok = Guard(&error, [&] {
    std::vector<SyncRequest> batch(count);
    for (uint32_t i = 0; i < count; ++i) batch[i].path = paths[i];
    MutexLock lock(&g_queue_mutex);
    Queue()->SyncAll(&batch);
    for (uint32_t i = 0; i < count; ++i) status[i] = static_cast<int>(batch[i].status.code());
    return Status::Ok();
  });
  if (!ok) {
    for (uint32_t i = 0; i < count; ++i) status[i] = error.code;
  }
}

const char* xt_io_queue_name(XtError* why) noexcept {
  const char* name = "portable";
  Guard(why, [&] {
    MutexLock lock(&g_queue_mutex);
    name = Queue()->name();
    if (why != nullptr) std::snprintf(why->message, sizeof(why->message), "%s", g_why_portable.c_str());
    return Status::Ok();
  });
  return name;
}
