// NearestScan: entries in order of distance from a point, incrementally (best first).
//
// Source: Hjaltason and Samet, "Distance Browsing in Spatial Databases", TODS 1999.
// Distance: Euclidean from the point to the key's box (0 inside), computed per dimension as
//   max(lo - p, 0, p - hi) and combined as the host's pg_hypot does in two dimensions, so that the
//   result is bit-equal to the host's point <-> point. NaN sorts after infinity.
// Threads, promise: as WindowScan.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "object/epoch.h"
#include "store/store_interface.h"
#include "tree/geometry.h"

namespace xtree {

class NearestScan {
 public:
  explicit NearestScan(StoreInterface* store);
  ~NearestScan();

  // Only entries that match `predicate` are returned. `point` has `dims` coordinates.
  Status Begin(EpochReader* reader, uint32_t tree, const double* point, const Predicate& predicate);
  // The next nearest entries; `count` < capacity does not mean the end, 0 does.
  Status Next(uint64_t* record_ids, double* distances, double* keys_lo, double* keys_hi,
              uint32_t capacity, uint32_t* count);
  void End();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace xtree
