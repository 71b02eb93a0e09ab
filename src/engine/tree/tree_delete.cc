#include "tree/tree_delete.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace xtree {

// What a node is to become.
struct TreeDeletion::Draft {
  explicit Draft(uint32_t dims) : entries(dims) {}

  NodeRef ref;                // The version that it starts from, and the NodeID that stays.
  uint32_t level = 0;
  uint32_t split_dims = 0;
  EntryList entries;
  // Inner nodes: for each entry, the child's draft if something changes in or below it.
  std::vector<std::unique_ptr<Draft>> children;
  bool changed = false;       // The node itself needs a new version.

  Box32 Bounds() const {
    Box32 box;
    box.Clear(entries.dims());
    for (uint32_t i = 0; i < entries.size(); ++i) {
      box.Extend(entries.dims(), Box32::Around(entries.dims(), entries.lo(i), entries.hi(i)));
    }
    return box;
  }
};

TreeDeletion::~TreeDeletion() = default;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// So many siblings are considered as partners, those whose boxes grow least first.
constexpr uint32_t kPartnersMax = 16;

Box32 EntryBox(const EntryList& entries, uint32_t i) {
  return Box32::Around(entries.dims(), entries.lo(i), entries.hi(i));
}

bool Equal(uint32_t dims, const Box32& a, const Box32& b) {
  return std::equal(a.lo, a.lo + dims, b.lo) && std::equal(a.hi, a.hi + dims, b.hi);
}

bool Intersects(uint32_t dims, const Box32& a, const Box32& b) {
  for (uint32_t d = 0; d < dims; ++d) {
    if (a.lo[d] > b.hi[d] || a.hi[d] < b.lo[d]) return false;
  }
  return true;
}

// How much the margin of `partner` grows to contain `box` too.
double Growth(uint32_t dims, const Box32& partner, const Box32& box) {
  double growth = 0;
  for (uint32_t d = 0; d < dims; ++d) {
    if (box.lo[d] < partner.lo[d]) growth += double{partner.lo[d]} - double{box.lo[d]};
    if (box.hi[d] > partner.hi[d]) growth += double{box.hi[d]} - double{partner.hi[d]};
  }
  return growth;
}

}  // namespace

Status TreeDeletion::Prepare(const Key& bound, const uint64_t* record_ids, uint32_t count,
                             uint32_t* found) {
  const uint32_t dims = change_.spec().dims;
  XT_ASSERT(std::is_sorted(record_ids, record_ids + count));
  record_ids_ = record_ids;
  record_count_ = count;
  found_ = 0;
  freed_.clear();
  for (uint32_t d = 0; d < dims; ++d) {
    const bool nan = std::isnan(bound.lo[d]) || std::isnan(bound.hi[d]);
    bound_lo_[d] = nan ? -kInfinity : bound.lo[d];
    bound_hi_[d] = nan ? kInfinity : bound.hi[d];
  }
  bound_box_ = Box32::Around(dims, bound_lo_, bound_hi_);
  *found = 0;
  const NodeId root = change_.root();
  if (!root.valid() || count == 0) return Status::Ok();

  XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(root, -1));
  XT_ASSIGN_OR_RETURN(const std::unique_ptr<Draft> draft, DraftNode(ref));
  if (draft == nullptr) return Status::Ok();
  XT_RETURN_IF_ERROR(ShrinkRoot(draft.get()));
  XT_RETURN_IF_ERROR(Stage(*draft));
  for (const NodeRef& node : freed_) XT_RETURN_IF_ERROR(change_.StageFree(node));
  change_.AddEntries(-static_cast<int64_t>(found_));
  *found = found_;
  return Status::Ok();
}

// Null: nothing is deleted in or below the node.
Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftNode(const NodeRef& ref) {
  return ref.node->level == 0 ? DraftLeaf(ref) : DraftInner(ref);
}

std::unique_ptr<TreeDeletion::Draft> TreeDeletion::ReadDraft(const NodeRef& ref) const {
  auto draft = std::make_unique<Draft>(change_.spec().dims);
  draft->ref = ref;
  draft->level = ref.node->level;
  draft->split_dims = ref.node->split_dims;
  change_.layout(draft->level).ReadAll(ref.node, &draft->entries);
  if (draft->level > 0) draft->children.resize(draft->entries.size());
  return draft;
}

bool TreeDeletion::IsDeleted(const NodeLayout& layout, const BlockHeader* leaf,
                             uint32_t entry) const {
  const uint64_t id = layout.Id(leaf, entry);
  if (!std::binary_search(record_ids_, record_ids_ + record_count_, id)) return false;
  double lo[kDimsMax], hi[kDimsMax];
  layout.ReadKey(leaf, entry, lo, hi);
  for (uint32_t d = 0; d < layout.dims; ++d) {
    const bool nan = std::isnan(lo[d]) || std::isnan(hi[d]);
    const double key_lo = nan ? -kInfinity : lo[d];
    const double key_hi = nan ? kInfinity : hi[d];
    if (key_lo < bound_lo_[d] || key_hi > bound_hi_[d]) return false;
  }
  return true;
}

Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftLeaf(const NodeRef& ref) {
  const NodeLayout& layout = change_.layout(0);
  const uint32_t count = layout.Count(ref.node);
  std::unique_ptr<Draft> draft;
  for (uint32_t e = 0; e < count; ++e) {
    if (!IsDeleted(layout, ref.node, e)) continue;
    if (draft == nullptr) {
      draft = ReadDraft(ref);
      draft->changed = true;
    }
    ++found_;
  }
  if (draft == nullptr) return draft;
  EntryList kept(layout.dims);
  kept.Reserve(count);
  for (uint32_t e = 0; e < count; ++e) {
    if (!IsDeleted(layout, ref.node, e)) {
      kept.Add(draft->entries.lo(e), draft->entries.hi(e), draft->entries.id(e));
    }
  }
  draft->entries = std::move(kept);
  return draft;
}

Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftInner(const NodeRef& ref) {
  const NodeLayout& layout = change_.layout(1);
  const uint32_t count = layout.Count(ref.node);
  std::unique_ptr<Draft> draft;
  for (uint32_t e = 0; e < count; ++e) {
    if (!Intersects(layout.dims, layout.ChildBox(ref.node, e), bound_box_)) continue;
    XT_ASSIGN_OR_RETURN(const NodeRef child,
                        change_.Find(layout.Child(ref.node, e), ref.node->level - 1));
    XT_ASSIGN_OR_RETURN(std::unique_ptr<Draft> below, DraftNode(child));
    if (below == nullptr) continue;
    if (draft == nullptr) draft = ReadDraft(ref);
    draft->children[e] = std::move(below);
  }
  if (draft == nullptr) return draft;
  TakeBoxes(draft.get());
  DropEmpty(draft.get());
  XT_RETURN_IF_ERROR(MergeUnderfull(draft.get()));
  DropEmpty(draft.get());
  return draft;
}

// Tightens the boxes around children that shrank.
void TreeDeletion::TakeBoxes(Draft* parent) {
  for (uint32_t i = 0; i < parent->entries.size(); ++i) {
    const Draft* child = parent->children[i].get();
    if (child == nullptr || !child->changed || child->entries.size() == 0) continue;
    const Box32 box = child->Bounds();
    if (Equal(parent->entries.dims(), EntryBox(parent->entries, i), box)) continue;
    parent->entries.Set(i, box, parent->entries.id(i));
    parent->changed = true;
  }
}

// Removes children without entries: those that became empty and those merged into others.
void TreeDeletion::DropEmpty(Draft* parent) {
  const auto is_empty = [](const std::unique_ptr<Draft>& child) {
    return child != nullptr && child->entries.size() == 0;
  };
  if (std::none_of(parent->children.begin(), parent->children.end(), is_empty)) return;
  EntryList kept(parent->entries.dims());
  std::vector<std::unique_ptr<Draft>> kept_children;
  for (uint32_t i = 0; i < parent->entries.size(); ++i) {
    if (is_empty(parent->children[i])) {
      freed_.push_back(parent->children[i]->ref);
      continue;
    }
    kept.Add(parent->entries.lo(i), parent->entries.hi(i), parent->entries.id(i));
    kept_children.push_back(std::move(parent->children[i]));
  }
  parent->entries = std::move(kept);
  parent->children = std::move(kept_children);
  parent->changed = true;
}

Result<uint32_t> TreeDeletion::CountEntries(const Draft& parent, uint32_t child) const {
  if (parent.children[child] != nullptr) return parent.children[child]->entries.size();
  XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(NodeId{parent.entries.id(child)},
                                                      static_cast<int>(parent.level) - 1));
  return change_.layout(parent.level - 1).Count(ref.node);
}

// The sibling to merge the child with, or UINT32_MAX if there is none with room.
Result<uint32_t> TreeDeletion::FindPartner(const Draft& parent, uint32_t child) {
  struct Candidate {
    double growth;
    uint32_t index;
  };
  const uint32_t limit =
      change_.layout(parent.level - 1).base_capacity() * kMergedPercentMax / 100;
  const uint32_t dims = parent.entries.dims();
  const Box32 box = EntryBox(parent.entries, child);
  std::vector<Candidate> candidates;
  for (uint32_t i = 0; i < parent.entries.size(); ++i) {
    const Draft* draft = parent.children[i].get();
    if (i == child || (draft != nullptr && draft->entries.size() == 0)) continue;
    candidates.push_back({Growth(dims, EntryBox(parent.entries, i), box), i});
  }
  const uint32_t considered = std::min<uint32_t>(kPartnersMax, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + considered, candidates.end(),
                    [](const Candidate& a, const Candidate& b) { return a.growth < b.growth; });
  for (uint32_t i = 0; i < considered; ++i) {
    XT_ASSIGN_OR_RETURN(const uint32_t count, CountEntries(parent, candidates[i].index));
    if (count + parent.children[child]->entries.size() <= limit) return candidates[i].index;
  }
  return UINT32_MAX;
}

Status TreeDeletion::MergeUnderfull(Draft* parent) {
  const uint32_t least =
      change_.layout(parent->level - 1).base_capacity() * kUnderfullPercent / 100;
  for (uint32_t i = 0; i < parent->entries.size(); ++i) {
    const Draft* child = parent->children[i].get();
    if (child == nullptr || !child->changed || child->entries.size() == 0 ||
        child->entries.size() >= least) {
      continue;
    }
    XT_ASSIGN_OR_RETURN(const uint32_t partner, FindPartner(*parent, i));
    if (partner != UINT32_MAX) XT_RETURN_IF_ERROR(Merge(parent, i, partner));
  }
  return Status::Ok();
}

// Moves the child's entries to its partner and leaves it empty, for DropEmpty to remove.
Status TreeDeletion::Merge(Draft* parent, uint32_t child, uint32_t partner) {
  if (parent->children[partner] == nullptr) {
    XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(NodeId{parent->entries.id(partner)},
                                                        static_cast<int>(parent->level) - 1));
    parent->children[partner] = ReadDraft(ref);
  }
  Draft& from = *parent->children[child];
  Draft& to = *parent->children[partner];
  for (uint32_t i = 0; i < from.entries.size(); ++i) {
    to.entries.Add(from.entries.lo(i), from.entries.hi(i), from.entries.id(i));
  }
  for (std::unique_ptr<Draft>& below : from.children) to.children.push_back(std::move(below));
  from.entries.Clear();
  from.children.clear();
  to.split_dims &= from.split_dims;  // A cut is known to exist only where both have one.
  to.changed = true;
  parent->entries.Set(partner, to.Bounds(), parent->entries.id(partner));
  parent->changed = true;
  return Status::Ok();
}

// A root with one child takes over the child's content, and keeps its own NodeID.
Status TreeDeletion::ShrinkRoot(Draft* root) {
  while (root->level > 0 && root->entries.size() == 1) {
    std::unique_ptr<Draft> child = std::move(root->children[0]);
    if (child == nullptr) {
      XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(NodeId{root->entries.id(0)},
                                                          static_cast<int>(root->level) - 1));
      child = ReadDraft(ref);
    }
    freed_.push_back(child->ref);
    root->level = child->level;
    root->split_dims = child->split_dims;
    root->entries = std::move(child->entries);
    root->children = std::move(child->children);
    root->changed = true;
    change_.AddHeight(-1);
  }
  if (root->entries.size() > 0) return Status::Ok();
  freed_.push_back(root->ref);
  root->changed = false;
  change_.SetRoot(NodeId{});
  change_.AddHeight(-static_cast<int>(root->level) - 1);
  return Status::Ok();
}

Status TreeDeletion::Stage(const Draft& draft) {
  const NodeLayout& layout = change_.layout(draft.level);
  if (draft.changed) {
    const uint32_t count = draft.entries.size();
    XT_ASSIGN_OR_RETURN(const NodeRef ref,
                        change_.StageVersion(draft.ref, draft.level, layout.OrderFor(count),
                                             draft.split_dims));
    layout.Build(ref.node, draft.entries, nullptr, count);
  }
  for (const std::unique_ptr<Draft>& child : draft.children) {
    if (child != nullptr) XT_RETURN_IF_ERROR(Stage(*child));
  }
  return Status::Ok();
}

}  // namespace xtree
