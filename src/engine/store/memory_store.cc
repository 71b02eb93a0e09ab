#include "store/memory_store.h"

#include <new>

namespace xtree {

MemoryStore::MemoryStore(const IndexOptions& options, EpochShared* epochs)
    : NodeStore(&index_shared, &file_system, &budget, epochs, "memory", ChunkSource::kHeap) {
  XT_ASSERT(InitShared(&index_shared, options).ok());
  // Captures stay at epoch 0, before every node: all nodes are mutable, and no retired version waits
  // for a capture.
  if (!ReserveSegments(0).ok() || !allocator()->CreateFile().ok()) throw std::bad_alloc();
}

}  // namespace xtree
