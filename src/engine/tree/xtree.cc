#include "tree/xtree.h"

#include <cmath>
#include <new>
#include <vector>

#include "tree/tree_change.h"
#include "tree/tree_delete.h"
#include "tree/tree_insert.h"

namespace xtree {

struct XTree::Pending {
  Pending(StoreInterface* store, uint32_t tree) : change(store, tree) {}

  TreeChange change;
  TreeInsertion insertion{&change};
  TreeDeletion deletion{&change};
  bool located = false;  // The change is an insertion whose path is chosen.
};

XTree::XTree(StoreInterface* store, uint32_t tree) : store_(store), tree_(tree) {
  XT_ASSERT(tree < kTrees);
}

XTree::Pending& XTree::pending() {
  if (XT_UNLIKELY(pending_ == nullptr)) pending_ = std::make_unique<Pending>(store_, tree_);
  return *pending_;
}

XTree::~XTree() = default;

namespace {
// Runs a preparation. Should it throw (no memory, a fault of the file), the change is taken back first.
template <class Prepare>
Status Guarded(TreeChange* change, Prepare prepare) {
  try {
    return prepare();
  } catch (...) {
    change->Discard();
    throw;
  }
}
}  // namespace

void XTree::ExpectInsert(const Key& key, uint64_t record_id) {
  pending().insertion.ahead().Begin(key, record_id);
}

void XTree::WalkAhead() { pending().insertion.ahead().Walk(); }

Status XTree::LocateInsert(const Key& key, uint64_t record_id) {
  Pending& p = pending();
  XT_RETURN_IF_ERROR(p.change.Begin());
  XT_RETURN_IF_ERROR(p.insertion.Locate(key, record_id));
  p.located = true;
  return Status::Ok();
}

Status XTree::PrepareInsert(const Key& key, uint64_t record_id) {
  Pending& p = pending();
  if (!p.located) XT_RETURN_IF_ERROR(LocateInsert(key, record_id));
  p.located = false;
  return Guarded(&p.change, [&] { return p.insertion.Prepare(key, record_id); });
}

Status XTree::PrepareDelete(const Key& bound, const uint64_t* record_ids, uint32_t count,
                            uint32_t* found, LeafHint hint) {
  Pending& p = pending();
  XT_RETURN_IF_ERROR(p.change.Begin());
  return Guarded(&p.change,
                 [&] { return p.deletion.Prepare(bound, record_ids, count, hint, found); });
}

void XTree::Apply() noexcept { pending_->change.Apply(); }

void XTree::Discard() noexcept {
  if (pending_ == nullptr) return;
  pending_->located = false;
  pending_->change.Discard();
}

namespace {
// The same number, or both not one; for this purpose zeros of either sign are the same.
bool SameNumber(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

bool HasEntry(const NodeLayout& layout, const BlockHeader* leaf, const Key& key,
              uint64_t record_id) {
  double lo[kDimsMax], hi[kDimsMax];
  const uint32_t count = layout.Count(leaf);
  for (uint32_t e = 0; e < count; ++e) {
    if (layout.Id(leaf, e) != record_id) continue;
    layout.ReadKey(leaf, e, lo, hi);
    bool same = true;
    for (uint32_t d = 0; d < layout.dims; ++d) {
      same &= SameNumber(lo[d], key.lo[d]) &&
              SameNumber(hi[d], layout.corners == 1 ? key.lo[d] : key.hi[d]);
    }
    if (same) return true;
  }
  return false;
}
}  // namespace

Result<bool> XTree::Contains(const Key& key, uint64_t record_id) const {
  const TreeChange tree(store_, tree_);
  XT_RETURN_IF_ERROR(store_->ReadEpoch().status());
  if (!tree.root().valid()) return false;
  const WindowPin pin(store_->windows());
  const uint32_t dims = tree.spec().dims;
  const Box32 box = Box32::Around(dims, key.lo, key.hi);
  struct Place {
    NodeId id;
    int level;  // -1: the root's, whatever it is.
  };
  std::vector<Place> to_visit{{tree.root(), -1}};
  while (!to_visit.empty()) {
    const Place place = to_visit.back();
    to_visit.pop_back();
    XT_ASSIGN_OR_RETURN(const NodeRef ref, tree.Find(place.id, place.level));
    const NodeLayout& layout = tree.layout(ref);
    if (ref.node->level == 0) {
      if (HasEntry(layout, ref.node, key, record_id)) return true;
      continue;
    }
    const uint32_t count = layout.Count(ref.node);
    for (uint32_t e = 0; e < count; ++e) {
      if (layout.ChildBox(ref.node, e).Contains(dims, box)) {
        to_visit.push_back({layout.Child(ref.node, e), ref.node->level - 1});
      }
    }
  }
  return false;
}

}  // namespace xtree
