#include "tree/tree_delete.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tree/compaction.h"

namespace xtree {

// What a node is to become.
struct TreeDeletion::Draft {
  Draft(const NodeLayout& node_layout, const NodeRef& node)
      : ref(node), layout(&node_layout), level(node.node->level),
        split_dims(node.node->split_dims), entries(node_layout.dims) {}

  // A child of a slight inner node in or below which something changes.
  struct Child {
    uint32_t entry;
    bool shrinks;             // To `box`.
    Box32 box;
    std::unique_ptr<Draft> draft;
  };

  NodeRef ref;                // The version that it starts from, and the NodeID that stays.
  const NodeLayout* layout;   // Of what it is to become.
  uint32_t level;
  uint32_t split_dims;
  bool changed = false;       // The node itself needs a new version.
  bool full = false;

  // Slight leaves.
  LeafEntries removed;
  uint32_t remain = 0;
  bool shrinks = false;       // The box around what remains may be smaller than that of the node.
  // Slight inner nodes.
  std::vector<Child> changes;
  // Full ones. Inner nodes have for each entry the child's draft, if something changes there.
  EntryList entries;
  std::vector<std::unique_ptr<Draft>> children;
};

TreeDeletion::~TreeDeletion() = default;

namespace {

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

void IdFilter::Build(const uint64_t* ids, uint32_t count) {
  std::memset(words_, 0, sizeof(words_));
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t bit = Bit(ids[i]);
    words_[bit / 64] |= uint64_t{1} << (bit % 64);
  }
}

Status TreeDeletion::Prepare(const Key& bound, const uint64_t* record_ids, uint32_t count,
                             LeafHint hint, uint32_t* found) {
  const uint32_t dims = change_.spec().dims;
  record_ids_ = record_ids;
  record_count_ = count;
  searchable_ = false;
  hint_ = hint;
  XT_ASSERT(hint.slots == nullptr || hint.count == 0 || hint.ends[hint.count - 1] == count);
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
  XT_ASSIGN_OR_RETURN(const std::unique_ptr<Draft> draft, DraftTree(ref));
  if (draft == nullptr) return Status::Ok();
  XT_RETURN_IF_ERROR(ShrinkRoot(draft.get()));
  XT_RETURN_IF_ERROR(Stage(*draft));
  for (const NodeRef& node : freed_) XT_RETURN_IF_ERROR(change_.StageFree(node));
  change_.AddEntries(-static_cast<int64_t>(found_));
  *found = found_;
  return Status::Ok();
}

// Null: nothing is deleted.
Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftTree(const NodeRef& root) {
  leaf_filter_.Build(hint_.leaves, hint_.count);
  for (hinted_ = hint_.count != 0;; hinted_ = false) {
    found_ = 0;
    next_hint_ = 0;
    freed_.clear();
    XT_ASSIGN_OR_RETURN(std::unique_ptr<Draft> draft, DraftNode(root));
    // Others may have moved some entries since they were seen. What is drafted is only memory.
    if (!hinted_ || found_ >= record_count_) return draft;
  }
}

// Null: nothing is deleted in or below the node.
Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftNode(const NodeRef& ref) {
  return ref.node->level == 0 ? DraftLeaf(ref) : DraftInner(ref);
}

// What a key must exceed on all sides for a leaf's box to be the same without it. The box is rounded
// outward, by less than from one float to the next.
struct TreeDeletion::Interior {
  Interior(uint32_t dims, const Box32& box) {
    for (uint32_t d = 0; d < dims; ++d) {
      lo[d] = std::nextafterf(box.lo[d], std::numeric_limits<float>::infinity());
      hi[d] = std::nextafterf(box.hi[d], -std::numeric_limits<float>::infinity());
    }
  }
  bool Contains(uint32_t dims, const double* key_lo, const double* key_hi) const {
    for (uint32_t d = 0; d < dims; ++d) {
      if (!(key_lo[d] > lo[d] && key_hi[d] < hi[d])) return false;  // NaN is nowhere.
    }
    return true;
  }
  double lo[kDimsMax];
  double hi[kDimsMax];
};

bool TreeDeletion::IsInBound(const NodeLayout& layout, const double* lo, const double* hi) const {
  for (uint32_t d = 0; d < layout.dims; ++d) {
    const bool nan = std::isnan(lo[d]) || std::isnan(hi[d]);
    const double key_lo = nan ? -kInfinity : lo[d];
    const double key_hi = nan ? kInfinity : hi[d];
    if (key_lo < bound_lo_[d] || key_hi > bound_hi_[d]) return false;
  }
  return true;
}

void TreeDeletion::PrepareSearch() {
  if (searchable_) return;
  searchable_ = true;
  sorted_.assign(record_ids_, record_ids_ + record_count_);
  if (!std::is_sorted(sorted_.begin(), sorted_.end())) std::sort(sorted_.begin(), sorted_.end());
  filter_.Build(record_ids_, record_count_);
}

// Notes in the draft that an entry goes.
inline void TreeDeletion::Remove(uint32_t entry, const double* lo, const double* hi,
                                 const Interior& interior, Draft* draft) {
  draft->removed.set(entry);
  draft->shrinks = draft->shrinks || !interior.Contains(draft->layout->dims, lo, hi);
}

// Removes the entries that the hint names, where it names them: true if all are there.
bool TreeDeletion::RemoveWhereSeen(const NodeRef& leaf, uint32_t count, const Interior& interior,
                                   Draft* draft) {
  if (hint_.slots == nullptr) return false;
  const auto is_leaf = [&](uint32_t i) { return hint_.leaves[i] == leaf.id.value; };
  uint32_t l = next_hint_;
  if (l >= hint_.count || !is_leaf(l)) {
    for (l = 0; l < hint_.count && !is_leaf(l);) ++l;
    if (l == hint_.count) return false;
  }
  next_hint_ = l + 1;
  const NodeLayout& layout = *draft->layout;
  for (uint32_t i = l == 0 ? 0 : hint_.ends[l - 1]; i < hint_.ends[l]; ++i) {
    const uint32_t entry = hint_.slots[i];
    double lo[kDimsMax], hi[kDimsMax];
    const bool there = entry < count && layout.Id(leaf.node, entry) == record_ids_[i] &&
                       !draft->removed[entry];
    if (there) layout.ReadKey(leaf.node, entry, lo, hi);
    if (XT_UNLIKELY(!there || !IsInBound(layout, lo, hi))) {
      draft->removed.reset();
      draft->shrinks = false;
      return false;
    }
    Remove(entry, lo, hi, interior, draft);
  }
  return true;
}

// Notes in the draft which of the leaf's entries [first, end) go. They lie in one group.
void TreeDeletion::RemoveFrom(const NodeRef& leaf, uint32_t first, uint32_t end,
                              const Interior& interior, Draft* draft) {
  const NodeLayout& layout = *draft->layout;
  const BlockHeader* block = NodeLayout::Block(leaf.node, first / layout.block_capacity);
  const std::byte* ids =
      layout.GroupIds(block, first % layout.block_capacity >> layout.group_shift);
  const auto* low = reinterpret_cast<const uint32_t*>(ids);
  const auto* high = reinterpret_cast<const uint16_t*>(low + layout.group_size);
  for (uint32_t e = first; e < end; ++e) {
    const uint32_t lane = e - first;
    const uint64_t id = uint64_t{LoadRelaxed(high + lane)} << 32 | LoadRelaxed(low + lane);
    if (XT_LIKELY(!filter_.MayContain(id))) continue;
    if (!std::binary_search(sorted_.begin(), sorted_.end(), id)) continue;
    double lo[kDimsMax], hi[kDimsMax];
    layout.ReadKey(leaf.node, e, lo, hi);
    if (!IsInBound(layout, lo, hi)) continue;
    Remove(e, lo, hi, interior, draft);
  }
}

Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftLeaf(const NodeRef& ref) {
  const NodeLayout& layout = change_.layout(ref);
  const uint32_t count = layout.Count(ref.node);
  if (XT_UNLIKELY(count > std::min(layout.Capacity(ref.order), kLeafEntriesMax))) {
    return Status::Corruption("the leaf in block %u has %u entries", ref.node->block_number, count);
  }
  auto draft = std::make_unique<Draft>(layout, ref);
  const Interior interior(layout.dims, layout.Bounds(ref.node));
  if (!hinted_ || !RemoveWhereSeen(ref, count, interior, draft.get())) {
    PrepareSearch();
    for (uint32_t e = 0; e < count; e += layout.group_size) {
      RemoveFrom(ref, e, std::min(e + layout.group_size, count), interior, draft.get());
    }
  }
  const uint32_t found = static_cast<uint32_t>(draft->removed.count());
  if (found == 0) return std::unique_ptr<Draft>();
  found_ += found;
  draft->remain = count - found;
  draft->changed = true;
  return draft;
}

// How many entries the node will have.
uint32_t TreeDeletion::Size(const Draft& draft) const {
  if (draft.full) return draft.entries.size();
  return draft.level == 0 ? draft.remain : draft.layout->Count(draft.ref.node);
}

// Leaves by what an exact one holds: a split of such a leaf may leave decimal sides.
bool TreeDeletion::IsUnderfull(const Draft& draft) const {
  const NodeLayout& layout =
      draft.level == 0 ? NodeLayout::ExactLeaf(change_.spec()) : *draft.layout;
  return Size(draft) < layout.base_capacity() * kUnderfullPercent / 100;
}

Box32 TreeDeletion::Bounds(const Draft& draft) const {
  const NodeLayout& layout = *draft.layout;
  if (!draft.full && draft.level == 0) {
    return BoundsWithout(layout, draft.ref.node, draft.removed);
  }
  Box32 box;
  box.Clear(layout.dims);
  if (draft.full) {
    for (uint32_t i = 0; i < draft.entries.size(); ++i) {
      box.Extend(layout.dims, EntryBox(draft.entries, i));
    }
    return box;
  }
  const uint32_t count = layout.Count(draft.ref.node);
  auto change = draft.changes.begin();
  for (uint32_t e = 0; e < count; ++e) {
    const bool here = change != draft.changes.end() && change->entry == e;
    box.Extend(layout.dims, here && change->shrinks ? change->box
                                                    : layout.ChildBox(draft.ref.node, e));
    if (here) ++change;
  }
  return box;
}

void TreeDeletion::Read(Draft* draft) const {
  if (draft->full) return;
  const NodeLayout& layout = *draft->layout;
  layout.ReadAll(draft->ref.node, &draft->entries);
  draft->full = true;
  if (draft->level > 0) {
    draft->children.resize(draft->entries.size());
    for (Draft::Child& child : draft->changes) {
      if (child.shrinks) {
        draft->entries.Set(child.entry, child.box, draft->entries.id(child.entry));
      }
      draft->children[child.entry] = std::move(child.draft);
    }
    draft->changes.clear();
    return;
  }
  EntryList kept(layout.dims);
  kept.Reserve(draft->remain);
  for (uint32_t e = 0; e < draft->entries.size(); ++e) {
    if (draft->removed[e]) continue;
    kept.Add(draft->entries.lo(e), draft->entries.hi(e), draft->entries.id(e));
  }
  draft->entries = std::move(kept);
}

Result<std::unique_ptr<TreeDeletion::Draft>> TreeDeletion::DraftInner(const NodeRef& ref) {
  const NodeLayout& layout = change_.inner_layout();
  const uint32_t count = layout.Count(ref.node);
  std::unique_ptr<Draft> draft;
  bool merges = false;
  std::vector<uint32_t> entries;
  for (uint32_t e = 0; e < count; ++e) {
    if (hinted_ && ref.node->level == 1 && !leaf_filter_.MayContain(layout.Id(ref.node, e))) {
      continue;
    }
    if (Intersects(layout.dims, layout.ChildBox(ref.node, e), bound_box_)) entries.push_back(e);
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint32_t e = entries[i];
    if (i + 1 < entries.size()) change_.PrefetchWhole(layout.Child(ref.node, entries[i + 1]));
    XT_ASSIGN_OR_RETURN(const NodeRef child,
                        change_.Find(layout.Child(ref.node, e), ref.node->level - 1));
    XT_ASSIGN_OR_RETURN(std::unique_ptr<Draft> below, DraftNode(child));
    if (below == nullptr) continue;
    if (draft == nullptr) draft = std::make_unique<Draft>(layout, ref);
    merges |= below->changed && IsUnderfull(*below);
    draft->changes.push_back(Draft::Child{e, false, {}, std::move(below)});
  }
  if (draft == nullptr) return draft;
  TakeBoxes(draft.get());
  if (!merges) return draft;
  Read(draft.get());
  DropEmpty(draft.get());
  XT_RETURN_IF_ERROR(MergeUnderfull(draft.get()));
  DropEmpty(draft.get());
  return draft;
}

// Tightens the boxes around children that shrank. REQUIRES: a slight draft.
void TreeDeletion::TakeBoxes(Draft* parent) {
  const NodeLayout& layout = change_.inner_layout();
  for (Draft::Child& child : parent->changes) {
    const Draft& below = *child.draft;
    if (!below.changed || Size(below) == 0) continue;
    if (below.level == 0 && !below.full && !below.shrinks) continue;
    child.box = Bounds(below);
    child.shrinks = !Equal(layout.dims, layout.ChildBox(parent->ref.node, child.entry), child.box);
    parent->changed |= child.shrinks;
  }
}

// Removes children without entries: those that became empty and those merged into others.
void TreeDeletion::DropEmpty(Draft* parent) {
  const auto is_empty = [this](const std::unique_ptr<Draft>& child) {
    return child != nullptr && Size(*child) == 0;
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

const NodeLayout& TreeDeletion::Common(const NodeLayout& a, const NodeLayout& b) const {
  return &a == &b ? a : NodeLayout::ExactLeaf(change_.spec());
}

// Whether the child can be merged with its sibling `partner`.
Result<bool> TreeDeletion::HasRoom(const Draft& parent, uint32_t partner,
                                   const Draft& child) const {
  const NodeLayout* layout;
  uint32_t count;
  if (const Draft* draft = parent.children[partner].get(); draft != nullptr) {
    layout = draft->layout;
    count = Size(*draft);
  } else {
    XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(NodeId{parent.entries.id(partner)},
                                                        static_cast<int>(parent.level) - 1));
    layout = &change_.layout(ref);
    count = layout->Count(ref.node);
  }
  return count + Size(child) <=
         Common(*layout, *child.layout).base_capacity() * kMergedPercentMax / 100;
}

// The sibling to merge the child with, or UINT32_MAX if there is none with room.
Result<uint32_t> TreeDeletion::FindPartner(const Draft& parent, uint32_t child) {
  struct Candidate {
    double growth;
    uint32_t index;
  };
  const uint32_t dims = parent.entries.dims();
  const Box32 box = EntryBox(parent.entries, child);
  std::vector<Candidate> candidates;
  for (uint32_t i = 0; i < parent.entries.size(); ++i) {
    const Draft* draft = parent.children[i].get();
    if (i == child || (draft != nullptr && Size(*draft) == 0)) continue;
    candidates.push_back({Growth(dims, EntryBox(parent.entries, i), box), i});
  }
  const uint32_t considered = std::min<uint32_t>(kPartnersMax, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + considered, candidates.end(),
                    [](const Candidate& a, const Candidate& b) { return a.growth < b.growth; });
  for (uint32_t i = 0; i < considered; ++i) {
    XT_ASSIGN_OR_RETURN(const bool room,
                        HasRoom(parent, candidates[i].index, *parent.children[child]));
    if (room) return candidates[i].index;
  }
  return UINT32_MAX;
}

Status TreeDeletion::MergeUnderfull(Draft* parent) {
  for (uint32_t i = 0; i < parent->entries.size(); ++i) {
    const Draft* child = parent->children[i].get();
    if (child == nullptr || !child->changed) continue;
    if (Size(*child) == 0 || !IsUnderfull(*child)) continue;
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
    parent->children[partner] = std::make_unique<Draft>(change_.layout(ref), ref);
  }
  Draft& from = *parent->children[child];
  Draft& to = *parent->children[partner];
  Read(&from);
  Read(&to);
  for (uint32_t i = 0; i < from.entries.size(); ++i) {
    to.entries.Add(from.entries.lo(i), from.entries.hi(i), from.entries.id(i));
  }
  for (std::unique_ptr<Draft>& below : from.children) to.children.push_back(std::move(below));
  from.entries.Clear();
  from.children.clear();
  to.layout = &Common(*to.layout, *from.layout);
  to.split_dims &= from.split_dims;  // A cut is known to exist only where both have one.
  to.changed = true;
  parent->entries.Set(partner, Bounds(to), parent->entries.id(partner));
  parent->changed = true;
  return Status::Ok();
}

// A root with one child takes over the child's content, and keeps its own NodeID.
Status TreeDeletion::ShrinkRoot(Draft* root) {
  while (root->level > 0 && Size(*root) == 1) {
    Read(root);
    std::unique_ptr<Draft> child = std::move(root->children[0]);
    if (child == nullptr) {
      XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.Find(NodeId{root->entries.id(0)},
                                                          static_cast<int>(root->level) - 1));
      child = std::make_unique<Draft>(change_.layout(ref), ref);
    }
    Read(child.get());
    freed_.push_back(child->ref);
    root->level = child->level;
    root->layout = child->layout;
    root->split_dims = child->split_dims;
    root->entries = std::move(child->entries);
    root->children = std::move(child->children);
    root->changed = true;
    change_.AddHeight(-1);
  }
  if (Size(*root) > 0) return Status::Ok();
  freed_.push_back(root->ref);
  root->changed = false;
  change_.SetRoot(NodeId{});
  change_.AddHeight(-static_cast<int>(root->level) - 1);
  return Status::Ok();
}

Status TreeDeletion::StageOne(const Draft& draft) {
  const NodeLayout& layout = *draft.layout;
  if (!draft.full && draft.level > 0) {
    XT_ASSIGN_OR_RETURN(const NodeRef ref, change_.StageCopy(draft.ref));
    for (const Draft::Child& child : draft.changes) {
      if (child.shrinks) layout.ReplaceChild(ref.node, child.entry, child.box);
    }
    return Status::Ok();
  }
  const uint32_t count = Size(draft);
  XT_ASSIGN_OR_RETURN(const NodeRef ref,
                      change_.StageVersion(draft.ref, layout, draft.level,
                                           layout.OrderFor(count), draft.split_dims));
  if (draft.full) {
    layout.Build(ref.node, draft.entries, nullptr, count);
  } else {
    CopyWithout(layout, draft.ref.node, draft.removed, ref.node);
  }
  return Status::Ok();
}

Status TreeDeletion::Stage(const Draft& draft) {
  if (draft.changed) XT_RETURN_IF_ERROR(StageOne(draft));
  for (const std::unique_ptr<Draft>& child : draft.children) {
    if (child != nullptr) XT_RETURN_IF_ERROR(Stage(*child));
  }
  for (const Draft::Child& child : draft.changes) XT_RETURN_IF_ERROR(Stage(*child.draft));
  return Status::Ok();
}

}  // namespace xtree
