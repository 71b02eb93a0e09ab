#include "tools/file_checker.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include "checkpoint/superblock.h"
#include "object/object_table.h"
#include "tools/file_reader.h"
#include "tools/log_checker.h"
#include "tree/node_layout.h"

namespace xtree {

std::string LogPathFor(const std::string& data_path) {
  const size_t slash = data_path.rfind('/');
  std::string name = slash == std::string::npos ? data_path : data_path.substr(slash + 1);
  if (name.size() > 1 && name[0] == 't') {  // Temporary relations of the host.
    const size_t underscore = name.find('_');
    if (underscore != std::string::npos) name = name.substr(underscore + 1);
  }
  const bool host = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
  return data_path + (host ? "_vm" : "_log");
}

void FileFindings::Note(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  report_->notes.push_back(text);
}

void FileFindings::Problem(const char* format, ...) {
  if (report_->problems.size() >= kFileProblemsMax) return;
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  report_->problems.push_back(text);
}

namespace {

class DataChecker {
 public:
  DataChecker(const FileReader& file, FileFindings* findings) : file_(file), say_(findings) {}

  // False if there is no capture to go on with.
  Status Superblocks(bool* found);
  Status Table();
  Status Trees();
  const Superblock& superblock() const { return superblock_; }

 private:
  // A node that its parent has named but that has not been read yet.
  struct Visit {
    NodeId id;
    uint32_t level;
    bool has_box;
    Box32 box;
  };
  struct Counts {
    uint64_t entries = 0;
    uint64_t nodes[kTreeLevelsMax] = {};
  };
  Status ReadBlock(uint32_t block, BlockKind kind, uint64_t index, bool* whole);
  bool Take(uint32_t block, uint32_t count, const char* what);
  Status DirectoryBlock(uint32_t index, std::vector<uint32_t>* pages);
  Status TablePage(uint32_t page, uint32_t block);
  Status Tree(uint32_t tree);
  Status Node(uint32_t tree, const Visit& visit, std::vector<Visit>* open, Counts* counts);
  bool ResolveNode(const Visit& visit, EntryWord* word);
  bool NodeHeaders(uint32_t tree, const Visit& visit, EntryWord word);
  void NodeEntries(const NodeLayout& layout, const Visit& visit, std::vector<Visit>* open,
                   Counts* counts);

  KeySpec SpecOf(uint32_t tree) const {
    const SuperblockTree& root = superblock_.trees[tree];
    return KeySpec{root.dims, root.coord, root.kind};
  }
  const BlockHeader* node() const { return reinterpret_cast<const BlockHeader*>(buffer_.get()); }

  const FileReader& file_;
  FileFindings* const say_;
  Superblock superblock_{};
  std::vector<EntryWord> entries_;
  std::vector<bool> reached_;   // By handle.
  std::vector<bool> taken_;     // By block.
  std::unique_ptr<std::byte[]> buffer_ =
      std::make_unique<std::byte[]>(size_t{kBlockBytes} << kOrderMax);
};

Status DataChecker::Superblocks(bool* found) {
  *found = false;
  if (file_.stray_bytes() != 0) {
    say_->Problem("%" PRIu64 " bytes behind the last whole block", file_.stray_bytes());
  }
  if (file_.blocks() < kSuperblockSlots) {
    say_->Problem("the file has %u blocks, no room for the superblocks", file_.blocks());
    return Status::Ok();
  }
  XT_RETURN_IF_ERROR(file_.Read(0, kSuperblockSlots, buffer_.get()));
  uint32_t damaged = 0;
  for (uint32_t slot = 0; slot < kSuperblockSlots; ++slot) {
    const auto* block =
        reinterpret_cast<const Superblock*>(buffer_.get() + size_t{slot} * kBlockBytes);
    const Status status = CheckSuperblock(block, slot, file_.path().c_str());
    if (!status.ok()) {
      ++damaged;
      // A crash while a slot was written leaves it so, and the other one counts.
      say_->Note("superblock %u: not valid: %s", slot, status.message());
      continue;
    }
    say_->Note("superblock %u: sequence %" PRIu64 ", capture %016" PRIx64 ", epoch %" PRIu64
               ", LSN %X/%X, log from sequence %" PRIu64 ", %u table pages, relation %u/%u/%u%s",
               slot, block->sequence, block->capture_id, block->epoch,
               static_cast<unsigned>(block->capture_lsn >> 32),
               static_cast<unsigned>(block->capture_lsn), block->log_start_seq,
               block->table_pages, block->identity.tablespace, block->identity.database,
               block->identity.relation, block->broken != 0 ? ", marked broken" : "");
    if (block->broken != 0) say_->Problem("superblock %u is marked broken", slot);
    if (!*found || block->sequence > superblock_.sequence) superblock_ = *block;
    *found = true;
  }
  if (damaged == kSuperblockSlots) say_->Problem("no superblock is valid");
  taken_.assign(file_.blocks(), false);
  (void)Take(0, kSuperblockSlots, "superblocks");
  return Status::Ok();
}

// Marks blocks as used; false (and a problem) if they are outside the file or used already.
bool DataChecker::Take(uint32_t block, uint32_t count, const char* what) {
  if (uint64_t{block} + count > file_.blocks()) {
    say_->Problem("%s in block %u lies beyond the file's %u blocks", what, block, file_.blocks());
    return false;
  }
  for (uint32_t i = block; i < block + count; ++i) {
    if (taken_[i]) {
      say_->Problem("block %u is used twice, the second time for %s", i, what);
      return false;
    }
  }
  for (uint32_t i = block; i < block + count; ++i) taken_[i] = true;
  return true;
}

// Reads a block of the table into the buffer; `whole` tells whether it verifies and is that block.
Status DataChecker::ReadBlock(uint32_t block, BlockKind kind, uint64_t index, bool* whole) {
  XT_RETURN_IF_ERROR(file_.Read(block, 1, buffer_.get()));
  const char* why = nullptr;
  *whole = VerifyBlock(node(), block, &why);
  if (!*whole) {
    say_->Problem("block %u is damaged: %s", block, why);
  } else if (node()->kind != kind || node()->node_id != index ||
             node()->birth_epoch > superblock_.epoch) {
    *whole = false;
    say_->Problem("block %u should be number %" PRIu64 " of kind %u, but is number %" PRIu64
                  " of kind %u, epoch %" PRIu64, block, index, static_cast<unsigned>(kind),
                  node()->node_id, static_cast<unsigned>(node()->kind), node()->birth_epoch);
  }
  return Status::Ok();
}

Status DataChecker::DirectoryBlock(uint32_t index, std::vector<uint32_t>* pages) {
  const uint32_t block = superblock_.directory[index];
  if (!Take(block, 1, "the table directory")) return Status::Ok();
  bool whole;
  XT_RETURN_IF_ERROR(ReadBlock(block, BlockKind::kTableDir, index, &whole));
  if (!whole) return Status::Ok();
  const auto* numbers = reinterpret_cast<const uint32_t*>(node() + 1);
  for (uint32_t i = 0; i < kBlockPayloadBytes / sizeof(uint32_t); ++i) {
    if (pages->size() == superblock_.table_pages) break;
    pages->push_back(numbers[i]);
  }
  return Status::Ok();
}

Status DataChecker::TablePage(uint32_t page, uint32_t block) {
  if (!Take(block, 1, "a table page")) return Status::Ok();
  bool whole;
  XT_RETURN_IF_ERROR(ReadBlock(block, BlockKind::kTablePage, page, &whole));
  if (!whole) return Status::Ok();
  const auto* words = reinterpret_cast<const EntryWord*>(node() + 1);
  const uint64_t first = uint64_t{page} * kTablePageEntries;
  for (uint32_t i = 0; i < kTablePageEntries; ++i) entries_[first + i] = words[i];
  for (uint32_t i = 0; i < kTablePageEntries; ++i) {
    const EntryWord word = entries_[first + i];
    if ((word & kWordLive) == 0) continue;
    const uint32_t order = WordOrder(word);
    if (order > kOrderMax || WordBlock(word) % (1u << order) != 0) {
      say_->Problem("handle %" PRIu64 " names block %u with order %u, which no extent has",
                    first + i, WordBlock(word), order);
      entries_[first + i] = 0;
    } else if (!Take(WordBlock(word), 1u << order, "a node")) {
      entries_[first + i] = 0;
    }
  }
  return Status::Ok();
}

Status DataChecker::Table() {
  std::vector<uint32_t> pages;
  if (superblock_.directory_count > kDirectoryBlocksMax) {
    say_->Problem("the superblock names %u directory blocks", superblock_.directory_count);
    return Status::Ok();
  }
  for (uint32_t i = 0; i < superblock_.directory_count; ++i) {
    XT_RETURN_IF_ERROR(DirectoryBlock(i, &pages));
  }
  if (pages.size() != superblock_.table_pages) {
    say_->Problem("the directory names %zu table pages, the superblock %u", pages.size(),
                  superblock_.table_pages);
  }
  entries_.assign(pages.size() * kTablePageEntries, 0);
  reached_.assign(entries_.size(), false);
  for (size_t i = 0; i < pages.size(); ++i) {
    XT_RETURN_IF_ERROR(TablePage(static_cast<uint32_t>(i), pages[i]));
  }
  return Status::Ok();
}

bool DataChecker::ResolveNode(const Visit& visit, EntryWord* word) {
  const uint64_t handle = visit.id.handle();
  if (handle >= entries_.size()) {
    say_->Problem("node %016" PRIx64 " has a handle beyond the table", visit.id.value);
    return false;
  }
  *word = entries_[handle];
  if ((*word & kWordLive) == 0 || WordTag(*word) != visit.id.tag()) {
    say_->Problem("node %016" PRIx64 " does not exist", visit.id.value);
    return false;
  }
  if (reached_[handle]) {
    say_->Problem("node %016" PRIx64 " is reached twice", visit.id.value);
    return false;
  }
  reached_[handle] = true;
  return true;
}

bool DataChecker::NodeHeaders(uint32_t tree, const Visit& visit, EntryWord word) {
  const KeySpec spec = SpecOf(tree);
  const NodeLayout& layout = NodeLayout::Of(spec, *node());
  bool last_seen = false;
  for (uint32_t i = 0; i < 1u << WordOrder(word); ++i) {
    const BlockHeader* block = NodeLayout::Block(node(), i);
    const uint32_t number = WordBlock(word) + i;
    const char* why = nullptr;
    if (!VerifyBlock(block, number, &why)) {
      say_->Problem("block %u is damaged: %s", number, why);
      return false;
    }
    if (!NodeLayout::IsKind(spec, visit.level, block->kind) || block->kind != node()->kind ||
        block->node_id != visit.id.value || block->tree != tree ||
        block->level != visit.level || block->order != WordOrder(word) ||
        block->extent_index != i) {
      say_->Problem("block %u is not part %u of node %016" PRIx64 " on level %u of tree %u: kind "
                    "%u, node %016" PRIx64 ", part %u, level %u, tree %u, order %u",
                    number, i, visit.id.value, visit.level, tree,
                    static_cast<unsigned>(block->kind), block->node_id,
                    static_cast<unsigned>(block->extent_index),
                    static_cast<unsigned>(block->level), block->tree,
                    static_cast<unsigned>(block->order));
      return false;
    }
    if (block->birth_epoch > superblock_.epoch) {
      say_->Problem("block %u was born in epoch %" PRIu64 ", after the capture's %" PRIu64, number,
                    block->birth_epoch, superblock_.epoch);
    }
    if (block->count > layout.block_capacity || (last_seen && block->count != 0)) {
      say_->Problem("block %u has %u entries; it has room for %u, and blocks fill in order",
                    number, block->count, layout.block_capacity);
      return false;
    }
    last_seen = block->count < layout.block_capacity;
  }
  return true;
}

// Counts the entries of the node in the buffer, checks boxes, and opens its children.
void DataChecker::NodeEntries(const NodeLayout& layout, const Visit& visit,
                              std::vector<Visit>* open, Counts* counts) {
  const uint32_t dims = layout.dims;
  Box32 bounds;
  bounds.Clear(dims);
  uint32_t outside = 0;
  uint32_t inverted = 0;
  uint32_t beyond = 0;
  uint64_t entry = 0;
  for (uint32_t b = 0; b < 1u << node()->order; ++b) {
    const BlockHeader* block = NodeLayout::Block(node(), b);
    for (uint32_t slot = 0; slot < block->count; ++slot, ++entry) {
      const uint32_t number = b * layout.block_capacity + slot;
      Box32 box;
      if (layout.leaf) {
        double lo[kDimsMax];
        double hi[kDimsMax];
        layout.ReadKey(node(), number, lo, hi);
        for (uint32_t d = 0; d < dims; ++d) inverted += lo[d] > hi[d] ? 1 : 0;
        beyond += layout.Takes(lo, hi) ? 0 : 1;
        box = Box32::Around(dims, lo, hi);
      } else {
        box = layout.ChildBox(node(), number);
        open->push_back(Visit{layout.Child(node(), number), visit.level - 1, true, box});
      }
      const uint32_t group = slot >> layout.group_shift;
      for (uint32_t d = 0; d < dims; ++d) {
        const bool inside = layout.GroupLo(block, d)[group] <= box.lo[d] &&
                            layout.GroupHi(block, d)[group] >= box.hi[d];
        outside += inside ? 0 : 1;
      }
      bounds.Extend(dims, box);
    }
  }
  if (layout.leaf) counts->entries += entry;
  if (outside > 0) {
    say_->Problem("block %u: %u sides of entries lie outside their group's box",
                  node()->block_number, outside);
  }
  if (beyond > 0) {
    say_->Problem("block %u: %u keys are out of a decimal's range", node()->block_number, beyond);
  }
  if (inverted > 0) {
    say_->Problem("block %u: %u sides of keys are inside out", node()->block_number, inverted);
  }
  if (visit.has_box && entry > 0 && !visit.box.Contains(dims, bounds)) {
    say_->Problem("block %u: the parent's box of node %016" PRIx64 " does not contain its entries",
                  node()->block_number, visit.id.value);
  }
  if (!layout.leaf && entry == 0) {
    say_->Problem("block %u: inner node %016" PRIx64 " is empty", node()->block_number,
                  visit.id.value);
  }
}

Status DataChecker::Node(uint32_t tree, const Visit& visit, std::vector<Visit>* open,
                         Counts* counts) {
  EntryWord word;
  if (!ResolveNode(visit, &word)) return Status::Ok();
  ++counts->nodes[visit.level];
  XT_RETURN_IF_ERROR(file_.Read(WordBlock(word), 1u << WordOrder(word), buffer_.get()));
  if (!NodeHeaders(tree, visit, word)) return Status::Ok();
  NodeEntries(NodeLayout::Of(SpecOf(tree), *node()), visit, open, counts);
  return Status::Ok();
}

Status DataChecker::Tree(uint32_t tree) {
  const SuperblockTree& root = superblock_.trees[tree];
  if (root.dims == 0 || root.dims > kDimsMax || root.coord > CoordType::kF32 ||
      root.kind > KeyKind::kPoint || root.height > kTreeLevelsMax) {
    say_->Problem("tree %u has %u dimensions, coordinate type %u, kind %u, height %u", tree,
                  root.dims, static_cast<unsigned>(root.coord), static_cast<unsigned>(root.kind),
                  root.height);
    return Status::Ok();
  }
  Counts counts;
  std::vector<Visit> open;
  if (root.root != 0 && root.height > 0) {
    open.push_back(Visit{NodeId{root.root}, root.height - 1, false, {}});
  } else if (root.root != 0 || root.height != 0) {
    say_->Problem("tree %u has root %016" PRIx64 " but height %u", tree, root.root, root.height);
  }
  while (!open.empty()) {
    const Visit visit = open.back();
    open.pop_back();
    XT_RETURN_IF_ERROR(Node(tree, visit, &open, &counts));
  }
  say_->Note("tree %u: %u dimensions, height %u, %" PRIu64 " entries in %" PRIu64 " leaves", tree,
             root.dims, root.height, counts.entries, counts.nodes[0]);
  if (counts.entries != root.entries) {
    say_->Problem("tree %u has %" PRIu64 " entries, the superblock says %" PRIu64, tree,
                  counts.entries, root.entries);
  }
  for (uint32_t level = 0; level < kTreeLevelsMax; ++level) {
    if (counts.nodes[level] == root.nodes_by_level[level]) continue;
    say_->Problem("tree %u has %" PRIu64 " nodes on level %u, the superblock says %" PRIu64, tree,
                  counts.nodes[level], level, root.nodes_by_level[level]);
  }
  return Status::Ok();
}

Status DataChecker::Trees() {
  for (uint32_t tree = 0; tree < kTrees; ++tree) XT_RETURN_IF_ERROR(Tree(tree));
  uint64_t used = 0;
  for (const bool taken : taken_) used += taken ? 1 : 0;
  say_->Note("%" PRIu64 " of %u blocks are in use", used, file_.blocks());
  for (size_t handle = 0; handle < entries_.size(); ++handle) {
    if ((entries_[handle] & kWordLive) != 0 && !reached_[handle]) {
      say_->Problem("the node in block %u (handle %zu) belongs to no tree",
                    WordBlock(entries_[handle]), handle);
    }
  }
  return Status::Ok();
}

}  // namespace

Status CheckIndexFiles(const std::string& data_path, const std::string& log_path,
                       FileReport* report) {
  FileFindings findings(report);
  FileReader data;
  XT_RETURN_IF_ERROR(data.Open(data_path));
  DataChecker checker(data, &findings);
  bool found;
  XT_RETURN_IF_ERROR(checker.Superblocks(&found));
  if (!found) return Status::Ok();
  XT_RETURN_IF_ERROR(checker.Table());
  XT_RETURN_IF_ERROR(checker.Trees());
  return CheckLogFile(log_path, checker.superblock(), &findings);
}

}  // namespace xtree
