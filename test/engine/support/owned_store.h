// A NodeStore as the host has it: shared memory that several handles use, each of which attaches the
// chunks that the owner provides. Every handle maps the chunks at the same address here, but goes
// through the same requests as a process of its own would.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "store/index_details.h"
#include "store/node_store.h"
#include "support/epochs.h"
#include "support/faulty_file_system.h"

namespace xtree {

class OwnedIndex {
 public:
  explicit OwnedIndex(uint32_t slots = 8) : epochs(slots) {}
  ~OwnedIndex() {
    for (void* chunk : chunks) std::free(chunk);
  }
  std::unique_ptr<NodeStore> Open() {
    auto store = std::make_unique<NodeStore>(&shared, &fs, &budget, epochs.get(), "data",
                                             ChunkSource::kOwner);
    Attach(store.get());
    return store;
  }
  // Gives the handle addresses for what others have provided.
  void Attach(NodeStore* store) {
    ChunkRequest request;
    uint64_t ref;
    while (store->MissingChunk(&request, &ref)) {
      store->ProvideChunk(request.array, request.level, ref, chunks[ref]);
    }
  }
  // Provides what the handle's last kNeedMemory asked for.
  void Provide(NodeStore* store) {
    const ChunkRequest request = store->chunk_request();
    chunks.push_back(std::calloc(1, request.bytes));
    store->ProvideChunk(request.array, request.level, chunks.size() - 1, chunks.back());
    ++provided;
  }
  // Repeats `call` until it asks for no more memory.
  template <class Call>
  auto Retry(NodeStore* store, Call call) {
    for (;;) {
      auto result = call();
      if (CodeOf(result) != Code::kNeedMemory) return result;
      ChunkRequest missing;
      uint64_t ref;
      if (store->MissingChunk(&missing, &ref)) {
        Attach(store);
      } else {
        Provide(store);
      }
    }
  }
  void Create(NodeStore* store) {
    XT_ASSERT(NodeStore::InitShared(&shared, IndexOptions{}).ok());
    XT_ASSERT(Retry(store, [&] { return store->ReserveSegments(0); }).ok());
    XT_ASSERT(store->allocator()->CreateFile().ok());
  }

  FaultyFileSystem fs;
  WindowBudget budget{100};
  Epochs epochs;
  IndexShared shared{};
  std::vector<void*> chunks;
  uint32_t provided = 0;

 private:
  static Code CodeOf(const Status& status) { return status.code(); }
  template <class T>
  static Code CodeOf(const Result<T>& result) {
    return result.status().code();
  }
};

}  // namespace xtree
