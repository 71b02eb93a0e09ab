// What the parts of the C wall share: the objects behind its opaque types, and the guard.
//
// Ownership: an XtIndex belongs to one XtRuntime and must be closed before it.
#pragma once

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "base/mapping_fault.h"
#include "capi.h"
#include "store/durable_store.h"
#include "store/shared_insertion.h"
#include "tree/bulk_loader.h"
#include "tree/nearest_scan.h"
#include "tree/window_scan.h"

struct XtRuntime {
  XtRuntime(xtree::EpochShared* shared, uint32_t slot, uint32_t windows_max)
      : epochs(shared), budget(windows_max), reader(shared, slot) {}
  xtree::EpochShared* const epochs;
  xtree::WindowBudget budget;
  xtree::EpochReader reader;
};

struct XtIndex {
  XtIndex(XtRuntime* r, xtree::IndexShared* s, const char* data_path, const char* log_path)
      : runtime(r), shared(s),
        store(s, xtree::PosixFileSystem(), &r->budget, r->epochs, data_path,
              log_path != nullptr ? log_path : "", xtree::ChunkSource::kOwner),
        beside(&store, &store) {}
  XtRuntime* const runtime;
  xtree::IndexShared* const shared;
  xtree::DurableStore store;
  xtree::SharedInsertion beside;  // The insertion prepared by xt_prepare_insert_shared.
};

namespace xtree::capi {

inline void Fill(XtError* error, Code code, const char* message) noexcept {
  if (error == nullptr) return;
  error->code = static_cast<int>(code);
  std::snprintf(error->message, sizeof(error->message), "%s", message);
}

// Runs `body`, which returns a Status, and turns whatever comes out into the caller's XtError. This
// is the one place where C++ exceptions end.
template <class Body>
bool Guard(XtError* error, Body&& body) noexcept {
  try {
    const Status status = body();
    if (XT_LIKELY(status.ok())) return true;
    Fill(error, status.code(), status.message());
  } catch (const std::bad_alloc&) {
    Fill(error, Code::kOutOfMemory, "out of memory");
  } catch (const std::exception& e) {
    Fill(error, Code::kInternal, e.what());
  } catch (...) {
    Fill(error, Code::kInternal, "unknown exception");
  }
  return false;
}

// What a guarded call does to an index when a page of its files is not to be had.
enum class OnFault {
  kFail,   // The call fails.
  kBreak,  // Also every later use, in every process: the call may have lost a store.
};

inline void Break(XtIndex* index) noexcept {
  index->shared->broken.store(1, std::memory_order_relaxed);
}

// As Guard, for a call that looks at the mapped files of `index`. What it found or did counts only if no
// page was missing (io/mapping_guard.h); a handle that has met that refuses every use.
template <class Body>
bool GuardFiles(XtIndex* index, OnFault on_fault, XtError* error, Body&& body) noexcept {
  DurableStore& store = index->store;
  bool ok = false;
  if (XT_LIKELY(!store.faulted())) {
    ok = Guard(error, body);
    if (XT_LIKELY(!store.faulted())) return ok;
    if (on_fault == OnFault::kBreak) {
      store.details()->Discard();
      index->beside.Discard();
      Break(index);
    }
  }
  Guard(error, [&] { return store.FaultStatus(); });
  ForgetMappingFaults();
  return false;
}

// An index that is not loaded or is marked broken refuses every use.
inline Status Usable(const XtIndex* index) {
  if (XT_UNLIKELY(index->shared->magic != kIndexSharedMagic)) {
    return Status::InvalidArgument("index \"%s\" is not loaded",
                                   const_cast<XtIndex*>(index)->store.windows()->path().c_str());
  }
  if (XT_UNLIKELY(index->shared->broken.load(std::memory_order_relaxed) != 0)) {
    return Status::Make(Code::kBroken, "index \"%s\" is marked broken",
                        const_cast<XtIndex*>(index)->store.windows()->path().c_str());
  }
  return Status::Ok();
}

inline Key MakeKey(const KeySpec& spec, const double* lo, const double* hi) {
  Key key;
  for (uint32_t d = 0; d < spec.dims; ++d) {
    key.lo[d] = lo[d];
    key.hi[d] = spec.kind == KeyKind::kPoint ? lo[d] : hi[d];
  }
  return key;
}

// The two structs have the same members in the same order; capi.cc proves the layout.
inline const Predicate& ToPredicate(const XtPredicate* predicate) {
  return *reinterpret_cast<const Predicate*>(predicate);
}

// Pins an epoch and the windows while the engine walks nodes outside a scan.
class ReadGuard {
 public:
  explicit ReadGuard(XtIndex* index) : windows_(index->store.windows()) {
    pin_.Acquire(&index->runtime->reader);
    epoch_ = index->shared->published_epoch.load(std::memory_order_acquire);
  }
  uint64_t epoch() const { return epoch_; }

 private:
  WindowPin windows_;
  EpochPin pin_;
  uint64_t epoch_;
};

}  // namespace xtree::capi
