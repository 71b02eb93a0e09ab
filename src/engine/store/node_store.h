// NodeStore: everything that DurableStore and MemoryStore share: staging, publishing, and giving back
// node versions, over ObjectTable, SegmentAllocator and EpochShared.
//
// A change: Stage* take extents, handles and version records, so that Publish needs nothing that
// could fail. Publish stores each entry's word (the superseded version is in the node's history
// before that), then the epoch; only then it draws the retirement tag (object/epoch.h).
//
// A retired version is given back when no reader can need it and it belongs to no capture. A version
// alive in epochs [birth, retire) belongs to the capture of epoch C iff birth <= C < retire; C is the
// durable epoch or the pending one. Versions wait in two queues, first for readers, then for
// captures; ReleaseCaptured, after a fold, puts the latter up for examination again.
//
// Ownership:   owns its WindowManager, and the heap chunks if it was given none to ask for. Borrows
//              the rest.
// Threads:     as StoreInterface. What a fold calls here needs the writer lock.
// Durability:  none here.
// Errors:      Stage* and Reserve* leave what was staged before as it was. kNeedMemory only when the
//              owner provides the chunks: chunk_request() says which, then the call is repeated.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "object/epoch.h"
#include "store/store_interface.h"

namespace xtree {

struct IndexOptions;

// Zeroed chunks from the heap, for stores whose shared half is in one process.
class HeapChunks {
 public:
  HeapChunks() = default;
  ~HeapChunks();
  HeapChunks(const HeapChunks&) = delete;
  // kOutOfMemory.
  Result<void*> Allocate(uint64_t bytes);

 private:
  std::vector<void*> chunks_;
};

// Who provides the chunks of the growing arrays.
enum class ChunkSource : uint8_t { kHeap, kOwner };

class NodeStore : public StoreInterface {
 public:
  // `shared` is zero, or in use by other processes. No I/O.
  NodeStore(IndexShared* shared, FileSystem* fs, WindowBudget* budget, EpochShared* epochs,
            std::string data_path, ChunkSource chunk_source);
  ~NodeStore() override;  // Nothing may be staged, no pin held.
  NodeStore(const NodeStore&) = delete;

  // --- Shared-memory chunks (base/shared_array.h), ChunkSource::kOwner.
  const ChunkRequest& chunk_request() const { return request_; }
  // Whether a chunk that was provided elsewhere has no address here yet, and which.
  bool MissingChunk(ChunkRequest* request, uint64_t* ref) const;
  void ProvideChunk(uint32_t array, uint32_t level, uint64_t ref, void* address);
  // Back to an index that was never created: zeroes *shared and all chunks, which stay provided.
  // With no concurrent user.
  void ResetShared();
  // What a new index's shared half holds, apart from allocator and captures. kInvalidArgument.
  static Status InitShared(IndexShared* shared, const IndexOptions& options);

  // --- StoreInterface.
  Result<NodeRef> StageNew(uint32_t tree, uint8_t level, uint32_t order) override;
  Result<NodeRef> StageUnwritten(uint32_t order, uint32_t* block) override;
  Result<NodeRef> StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) override;
  Status StageFree(NodeId id) override;
  bool has_staged() const override { return !staged_.empty(); }
  void Publish() noexcept override;
  void Discard() noexcept override;
  Status ReserveNodes(uint64_t nodes, uint32_t order, bool unwritten) override;

  // --- Extents that are no nodes (table pages), at once and outside of any change.
  // Zeroed and mapped.
  Result<uint32_t> AllocateExtent(uint32_t order);
  // Zeroes it. False if it could not be mapped: it then stays taken until the next load.
  bool FreeExtent(uint32_t block, uint32_t order) noexcept;

  // --- For folds and recovery.
  ObjectTable* table() { return &table_; }
  SegmentAllocator* allocator() { return &allocator_; }
  EpochShared* epochs() const { return epochs_; }
  // Capacity for one more table page; call before table()->AdoptPage.
  Status ReserveTablePage();
  // Segment infos for a file of `file_blocks`; call before allocator()->Adopt.
  Status ReserveSegments(uint32_t file_blocks);
  // The durable or pending epoch has moved: versions that waited for a capture may be given back.
  void ReleaseCaptured() { table_.Prepend(&queues().waiting_capture, &queues().waiting_readers); }
  // Examines up to `versions_max` retired versions and gives back those that nobody needs. Returns
  // how many were given back.
  uint64_t Reclaim(uint64_t versions_max) noexcept;
  uint64_t retired_versions() const {
    return shared_->table.waiting_readers.length + shared_->table.waiting_capture.length;
  }

  // --- Blocks that changes have touched, for the host's checksums. Off until enabled.
  void TrackTouched(bool enabled);
  // Takes one out; false if there is none. A block appears once per drain, and not if it is free.
  bool NextTouched(uint32_t* block);

 protected:
  void Touch(BlockHeader* block) noexcept override;

 private:
  enum class StagedKind : uint8_t { kNew, kVersion, kFree };
  struct Staged {
    StagedKind kind;
    uint8_t order;
    uint32_t block;         // Of the new version; unused for kFree.
    NodeId id;
    uint32_t record;        // For the superseded version; 0 for kNew.
    EntryWord old_word;
    uint64_t old_birth;
  };

  ObjectTableShared& queues() { return shared_->table; }
  template <class Array>
  Status Grow(Array* array, uint32_t id, uint64_t needed);
  Status ReservePages(uint64_t pages);
  void ReserveStaged(uint64_t more);
  Status StageOld(NodeId id, Staged* staged);
  NodeRef InitStaged(const Staged& staged, uint32_t tree, uint8_t level);
  void PublishOne(const Staged& staged, uint64_t epoch);
  uint64_t GiveBack(uint64_t versions_max) noexcept;
  bool Captured(const VersionRecord& version) const;
  void PinForChange();

  EpochShared* const epochs_;
  WindowManager window_manager_;
  PageInfoArray page_infos_;
  SegmentArray segments_;
  ObjectTable table_;
  SegmentAllocator allocator_;
  std::unique_ptr<HeapChunks> heap_;  // Null if the owner provides the chunks.
  ChunkRequest request_{};
  std::vector<Staged> staged_;
  std::vector<uint32_t> touched_;
  bool pinned_ = false;               // Holds a window pin for what is staged.
  uint64_t safe_tag_ = 0;             // A past MinReaderTag: what it allowed stays allowed.
  uint32_t publications_ = 0;
};

}  // namespace xtree
