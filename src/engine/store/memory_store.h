// MemoryStore: object table, allocator and trees over anonymous memory; nothing is durable.
//
//   MemoryStore store(options, epochs);
//   IndexDetails index(&store, nullptr);   // Or an XTree, or a BulkLoader, alone.
//
// Threads: as StoreInterface. Ownership: owns all of its memory; borrows the epochs.
#pragma once

#include "io/memory_file_system.h"
#include "object/epoch.h"
#include "store/index_details.h"
#include "store/node_store.h"

namespace xtree {

// What NodeStore borrows, so it must be made before that base and go after it.
struct MemoryStoreParts {
  IndexShared index_shared{};
  MemoryFileSystem file_system;
  WindowBudget budget{UINT32_MAX};
};

class MemoryStore final : private MemoryStoreParts, public NodeStore {
 public:
  // Creates an empty index. REQUIRES: valid options (NodeStore::InitShared). Throws std::bad_alloc.
  MemoryStore(const IndexOptions& options, EpochShared* epochs);
};

}  // namespace xtree
