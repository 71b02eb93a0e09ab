#include "tree/tree_insert.h"

#include <algorithm>
#include <cinttypes>

namespace xtree {

Status TreeInsertion::Locate(const Key& key, uint64_t record_id) {
  const uint32_t dims = change_.spec().dims;
  const PathsAhead::Path* ahead = ahead_.Take(key, record_id);
  if (ahead != nullptr) {
    std::copy(ahead->box.lo, ahead->box.lo + dims, key_box_.lo);
    std::copy(ahead->box.hi, ahead->box.hi + dims, key_box_.hi);
  } else {
    key_box_ = Box32::Around(dims, key.lo, key.hi);
  }
  leaf_ = change_.root();
  return leaf_.valid() ? Descend(leaf_, ahead) : Status::Ok();
}

Status TreeInsertion::Prepare(const Key& key, uint64_t record_id) {
  const uint32_t dims = change_.spec().dims;
  XT_ASSERT(record_id <= kRecordIdMax);
  if (entries_.dims() != dims) entries_ = EntryList(dims);
  change_.AddEntries(1);
  if (!leaf_.valid()) return PlantRoot(key, record_id);

  XT_ASSIGN_OR_RETURN(path_[depth_].ref, change_.Find(leaf_, 0));
  bool split = false;
  // Top down, as the edits will be applied: ancestors that stay where they are.
  for (uint32_t i = 0; i < depth_; ++i) {
    const Step& step = path_[i];
    if (!step.child.covers && change_.IsMutable(step.ref)) {
      change_.WidenLater(step.ref, step.child.entry, key_box_);
    }
  }
  XT_RETURN_IF_ERROR(InsertIntoLeaf(key, record_id, &split));
  for (uint32_t i = depth_; i-- > 0;) XT_RETURN_IF_ERROR(UpdateInner(i, &split));
  return Status::Ok();
}

Status TreeInsertion::PlantRoot(const Key& key, uint64_t record_id) {
  const NodeLayout& exact = NodeLayout::ExactLeaf(change_.spec());
  entries_.Clear();
  entries_.Add(key.lo, exact.corners == 1 ? key.lo : key.hi, record_id);
  const NodeLayout& layout = NodeLayout::LeafFor(change_.spec(), entries_, nullptr, 1, exact);
  XT_ASSIGN_OR_RETURN(const NodeRef leaf, change_.StageNew(layout, 0, layout.base_order, 0));
  layout.Append(leaf.node, key.lo, key.hi, record_id);
  change_.SetRoot(leaf.id);
  change_.AddHeight(1);
  return Status::Ok();
}

// `ahead`: null, or a path that was chosen before, of which as much is followed as still leads on.
Status TreeInsertion::Descend(NodeId root, const PathsAhead::Path* ahead) {
  const NodeLayout& inner = change_.inner_layout();
  XT_ASSIGN_OR_RETURN(NodeRef ref, change_.Find(root, -1));
  for (depth_ = 0;; ++depth_) {
    Step& step = path_[depth_];
    step.ref = ref;
    const uint32_t level = ref.node->level;
    if (level == 0) return Status::Ok();  // A root.
    if (XT_UNLIKELY(ref.node->count == 0)) {
      return Status::Corruption("directory node %" PRIx64 " in block %" PRIu32 " is empty",
                                ref.id.value, ref.node->block_number);
    }
    if (ahead == nullptr || !ahead->Leads(depth_, inner, ref, &step.child)) {
      ahead = nullptr;
      step.child = change_.ChooseChild(ref, key_box_);
    }
    leaf_ = inner.Child(ref.node, step.child.entry);
    if (level == 1) {
      ++depth_;
      return Status::Ok();
    }
    XT_ASSIGN_OR_RETURN(ref, change_.Find(leaf_, static_cast<int>(level) - 1));
  }
}

void TreeInsertion::ReadEntries(const NodeRef& ref) {
  entries_.Clear();
  change_.layout(ref).ReadAll(ref.node, &entries_);
}

Status TreeInsertion::InsertIntoLeaf(const Key& key, uint64_t record_id, bool* split) {
  const NodeRef& leaf = path_[depth_].ref;
  const NodeLayout& layout = change_.layout(leaf);
  const bool takes = layout.Takes(key.lo, key.hi);
  if (takes && layout.Count(leaf.node) < layout.Capacity(leaf.order)) {
    if (change_.IsMutable(leaf)) {
      change_.AppendLater(leaf, key, record_id);
      return Status::Ok();
    }
    XT_ASSIGN_OR_RETURN(const NodeRef copy, change_.StageCopy(leaf));
    layout.Append(copy.node, key.lo, key.hi, record_id);
    return Status::Ok();
  }
  ReadEntries(leaf);
  entries_.Add(key.lo, layout.corners == 1 ? key.lo : key.hi, record_id);
  const uint32_t count = entries_.size();
  leaf_layout_ = takes && layout.decimal()
                     ? &layout
                     : &NodeLayout::LeafFor(change_.spec(), entries_, nullptr, count, layout);
  if (count <= leaf_layout_->base_capacity()) return RebuildLeaf(leaf);
  splitter_.Load(entries_.lo(0), layout.dims, count);
  *split = true;
  // Where not all is decimal, either side may not be, and must then fit in an exact leaf.
  const uint32_t exact = NodeLayout::ExactLeaf(change_.spec()).base_capacity();
  const bool limited = count > exact && !leaf_layout_->decimal();
  const double min_fill = limited ? (count - exact + 0.5) / count : 0;
  return SplitNode(depth_, splitter_.Topological(std::max(kTopologicalMinFill, min_fill)));
}

// A leaf that has room, but in another layout: a decimal one that gets a key which is not decimal, or not
// in its scale; a full exact one whose keys are all decimal.
Status TreeInsertion::RebuildLeaf(const NodeRef& leaf) {
  const NodeLayout& layout = *leaf_layout_;
  XT_ASSIGN_OR_RETURN(const NodeRef version,
                      change_.StageVersion(leaf, layout, 0, layout.base_order,
                                           leaf.node->split_dims));
  layout.Build(version.node, entries_, nullptr, entries_.size());
  return Status::Ok();
}

// The ancestor at `depth`, after the node below it was dealt with. `split` says whether that left a
// pair to record, and then whether this node did.
Status TreeInsertion::UpdateInner(uint32_t depth, bool* split) {
  const Step& step = path_[depth];
  const NodeLayout& layout = change_.inner_layout();
  if (!*split) {
    if (step.child.covers || change_.IsMutable(step.ref)) return Status::Ok();
    XT_ASSIGN_OR_RETURN(const NodeRef copy, change_.StageCopy(step.ref));
    layout.WidenChild(copy.node, step.child.entry, key_box_);
    return Status::Ok();
  }
  if (layout.Count(step.ref.node) < layout.Capacity(step.ref.order)) {
    *split = false;
    return RecordSplit(step);
  }
  ReadEntries(step.ref);
  entries_.Set(step.child.entry, pair_.left_box, pair_.left.id.value);
  entries_.Add(pair_.right_box, pair_.right.id.value);
  return SplitInner(depth, split);
}

// A new version with the pair in the place of the child that was split; there is room.
Status TreeInsertion::RecordSplit(const Step& step) {
  const NodeLayout& layout = change_.inner_layout();
  const uint32_t count = layout.Count(step.ref.node);
  if (count % layout.group_size != 0) {
    XT_ASSIGN_OR_RETURN(const NodeRef copy, change_.StageCopy(step.ref));
    layout.ReplaceChild(copy.node, step.child.entry, pair_.left_box);
    layout.AppendChild(copy.node, pair_.right_box, pair_.right.id);
    return Status::Ok();
  }
  // The last group has become full of children that came one by one, from anywhere: sort all anew.
  XT_ASSIGN_OR_RETURN(const NodeRef copy,
                      change_.StageVersion(step.ref, layout, step.ref.node->level,
                                           step.ref.order, step.ref.node->split_dims));
  ReadEntries(step.ref);
  entries_.Set(step.child.entry, pair_.left_box, pair_.left.id.value);
  entries_.Add(pair_.right_box, pair_.right.id.value);
  layout.Build(copy.node, entries_, nullptr, entries_.size());
  return Status::Ok();
}

// Dimensions along which all children in entries_ have been split.
Result<uint32_t> TreeInsertion::SharedHistory(const Step& step) const {
  uint32_t history = pair_.left.node->split_dims;
  const int level = step.ref.node->level - 1;
  for (uint32_t i = 0; i < entries_.size() && history != 0; ++i) {
    const NodeId id{entries_.id(i)};
    if (id == pair_.left.id || id == pair_.right.id) continue;  // Not published yet.
    XT_ASSIGN_OR_RETURN(const NodeRef child, change_.Find(id, level));
    history &= child.node->split_dims;
  }
  return history;
}

// A full directory node; entries_ holds its entries and the one too many.
Status TreeInsertion::SplitInner(uint32_t depth, bool* split) {
  const Step& step = path_[depth];
  const NodeLayout& layout = change_.inner_layout();
  *split = true;
  splitter_.Load(entries_.lo(0), layout.dims, entries_.size());
  SplitChoice choice = splitter_.Topological(kTopologicalMinFill);
  const double overlap = splitter_.overlap();
  if (overlap <= kOverlapMax) return SplitNode(depth, choice);
  XT_ASSIGN_OR_RETURN(const uint32_t history, SharedHistory(step));
  if (splitter_.OverlapMinimal(history, kOverlapMinimalMinFill, kOverlapMinimalMax, &choice)) {
    return SplitNode(depth, choice);
  }
  if (step.ref.order < kOrderMax) {
    *split = false;
    XT_ASSIGN_OR_RETURN(const NodeRef larger,
                        change_.StageVersion(step.ref, layout, step.ref.node->level,
                                             step.ref.order + 1, step.ref.node->split_dims));
    layout.Build(larger.node, entries_, nullptr, entries_.size());
    return Status::Ok();
  }
  // The largest extent is full: the better of the two splits, however much it overlaps.
  splitter_.OverlapMinimal(0, kOverlapMinimalMinFill, overlap, &choice);
  return SplitNode(depth, choice);
}

// What the entries entries_[pick[0..count)] are kept in.
const NodeLayout& TreeInsertion::SideLayout(uint32_t level, const uint32_t* pick,
                                            uint32_t count) const {
  if (level > 0) return change_.inner_layout();
  if (leaf_layout_->decimal()) return *leaf_layout_;
  return NodeLayout::LeafFor(change_.spec(), entries_, pick, count, *leaf_layout_);
}

// Divides entries_ in two nodes as small as they can be. The node keeps its NodeID as the left one,
// except the root, which rises above both.
Status TreeInsertion::SplitNode(uint32_t depth, const SplitChoice& choice) {
  const NodeRef& old = path_[depth].ref;
  const uint32_t level = old.node->level;
  const uint32_t split_dims = old.node->split_dims | 1u << choice.axis;
  const uint32_t left_count = choice.left_count;
  const uint32_t right_count = entries_.size() - left_count;
  const uint32_t* order = splitter_.order().data();
  const NodeLayout& left = SideLayout(level, order, left_count);
  const NodeLayout& right = SideLayout(level, order + left_count, right_count);
  const uint32_t left_order = left.OrderFor(left_count);
  if (depth == 0) {
    XT_ASSIGN_OR_RETURN(pair_.left, change_.StageNew(left, level, left_order, split_dims));
  } else {
    XT_ASSIGN_OR_RETURN(pair_.left,
                        change_.StageVersion(old, left, level, left_order, split_dims));
  }
  XT_ASSIGN_OR_RETURN(pair_.right,
                      change_.StageNew(right, level, right.OrderFor(right_count), split_dims));
  splitter_.ArrangeSides(choice, left.group_size, right.group_size);
  left.Build(pair_.left.node, entries_, order, left_count, true);
  right.Build(pair_.right.node, entries_, order + left_count, right_count, true);
  pair_.left_box = left.Bounds(pair_.left.node);
  pair_.right_box = right.Bounds(pair_.right.node);
  if (depth > 0) return Status::Ok();

  if (level + 1 >= kTreeLevelsMax) {
    return Status::Internal("tree would have more than %" PRIu32 " levels", kTreeLevelsMax);
  }
  const NodeLayout& inner = change_.inner_layout();
  XT_ASSIGN_OR_RETURN(const NodeRef root,
                      change_.StageVersion(old, inner, level + 1, inner.base_order, 0));
  inner.AppendChild(root.node, pair_.left_box, pair_.left.id);
  inner.AppendChild(root.node, pair_.right_box, pair_.right.id);
  change_.AddHeight(1);
  return Status::Ok();
}

}  // namespace xtree
