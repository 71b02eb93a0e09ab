// NodeID: the stable 64-bit name of a node. Versions of the node come and go under it.
#pragma once

#include <cstdint>

namespace xtree {

// bits 0..39 handle (index into the object table), 40..45 shard, 48..63 tag. The tag is bumped each
// time a handle is reused, so that a stale NodeID is noticed (the ABA problem). 0 names no node.
struct NodeId {
  uint64_t value = 0;

  static constexpr uint64_t kHandleMask = (uint64_t{1} << 40) - 1;
  // Handles stay below 2^32, so a scan keeps a node's level beside its name; a name from a damaged
  // file may have bits there and must be cleared of them.
  static constexpr uint32_t kLevelShift = 32;
  static constexpr uint64_t kLevelMask = uint64_t{0xff} << kLevelShift;
  static NodeId Make(uint64_t handle, uint32_t shard, uint16_t tag) {
    return NodeId{handle | uint64_t{shard} << 40 | uint64_t{tag} << 48};
  }
  uint64_t handle() const { return value & kHandleMask; }
  uint32_t shard() const { return static_cast<uint32_t>(value >> 40) & 63; }
  uint16_t tag() const { return static_cast<uint16_t>(value >> 48); }
  bool valid() const { return value != 0; }
  friend bool operator==(NodeId a, NodeId b) { return a.value == b.value; }
};

}  // namespace xtree
