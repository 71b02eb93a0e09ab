// MemoryStore: the same object table, allocator and trees over anonymous memory; nothing is durable.
#pragma once

#include <memory>

#include "object/epoch.h"
#include "store/index_details.h"
#include "store/store_interface.h"

namespace xtree {

// Threads: as StoreInterface. Memory: anonymous windows (FileSystem is not touched).
class MemoryStore final : public StoreInterface {
 public:
  // Creates an empty index. Borrows `epochs`.
  MemoryStore(const IndexOptions& options, EpochShared* epochs);
  ~MemoryStore() override;

  IndexDetails* details();

  Result<NodeRef> StageNew(uint32_t tree, uint8_t level, uint32_t order) override;
  Result<NodeRef> StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) override;
  Status StageFree(NodeId id) override;
  bool has_staged() const override;
  void Publish() noexcept override;
  void Discard() noexcept override;
  Status ReserveNodes(uint64_t nodes, uint32_t order) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace xtree
