#include "segment/segment_allocator.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace xtree {

namespace {

constexpr uint32_t kFirstReserveBlocks = 8;
constexpr uint32_t kSmallFileBlocks = 1024;  // Below it, growth goes by parts of a segment.
constexpr uint32_t kSegmentsPerWindow = kWindowBlocks / kSegmentBlocks;
constexpr uint32_t kSuperblocks = 2;

uint32_t ExtentsOf(uint32_t order) { return kSegmentBlocks >> order; }

bool IsZero(const std::byte* data, size_t bytes) {
  uint64_t any = 0;
  for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data + i, sizeof(word));
    any |= word;
  }
  return any == 0;
}

}  // namespace

// --- Lists.

void SegmentAllocator::PushBack(SegmentList* list, uint32_t segment) {
  SegmentInfo& s = info(segment);
  s.prev = list->tail;
  s.next = 0;
  (list->tail != 0 ? info(list->tail - 1).next : list->head) = segment + 1;
  list->tail = segment + 1;
}

void SegmentAllocator::PushSorted(SegmentList* list, uint32_t segment) {
  // Only as sorted as O(1) allows: what lies before the head becomes the head. That is enough to
  // draw allocations to the front of the file, so that its end can be truncated.
  if (list->head == 0 || segment + 1 > list->head) return PushBack(list, segment);
  SegmentInfo& s = info(segment);
  s.prev = 0;
  s.next = list->head;
  info(list->head - 1).prev = segment + 1;
  list->head = segment + 1;
}

void SegmentAllocator::Unlink(SegmentList* list, uint32_t segment) {
  SegmentInfo& s = info(segment);
  (s.prev != 0 ? info(s.prev - 1).next : list->head) = s.next;
  (s.next != 0 ? info(s.next - 1).prev : list->tail) = s.prev;
  s.prev = s.next = 0;
}

void SegmentAllocator::List(uint32_t segment) {
  SegmentInfo& s = info(segment);
  if (s.flags & kSegmentListed) return;
  s.flags |= kSegmentListed;
  PushSorted(&shared_->with_space[s.order], segment);
}

void SegmentAllocator::Delist(uint32_t segment) {
  SegmentInfo& s = info(segment);
  if (!(s.flags & kSegmentListed)) return;
  s.flags &= static_cast<uint8_t>(~kSegmentListed);
  Unlink(&shared_->with_space[s.order], segment);
}

void SegmentAllocator::AddFree(uint32_t segment, uint32_t first_extent, uint32_t end_extent) {
  SegmentInfo& s = info(segment);
  XT_ASSERT(first_extent <= end_extent && end_extent <= ExtentsOf(s.order));
  for (uint32_t e = first_extent; e < end_extent; ++e) {
    s.used[e / 64] &= ~(uint64_t{1} << (e % 64));
  }
  s.free_extents = static_cast<uint16_t>(s.free_extents + (end_extent - first_extent));
  shared_->free_extents[s.order] += end_extent - first_extent;
  if (s.free_extents != 0) List(segment);
}

// --- Growth.

Status SegmentAllocator::ReserveBlocks(uint32_t first_block, uint32_t blocks) {
  const uint32_t window = first_block / kWindowBlocks;
  XT_ASSERT((first_block + blocks - 1) / kWindowBlocks == window);
  // A file that somebody has cut short must not grow: what is lost would read as zeros from then on,
  // without a fault (io/mapping_guard.h).
  if (file_blocks() > window * kWindowBlocks) {
    auto info = windows_->fs()->Stat(windows_->SegmentPath(window).c_str());
    const uint32_t expected = std::min(file_blocks() - window * kWindowBlocks, kWindowBlocks);
    if (!info.ok() || info->size_bytes < uint64_t{expected} * kBlockBytes) {
      return windows_->FaultStatus(file_blocks());
    }
  }
  XT_RETURN_IF_ERROR(windows_->fs()->Reserve(
      windows_->SegmentPath(window).c_str(),
      uint64_t{first_block % kWindowBlocks} * kBlockBytes, uint64_t{blocks} * kBlockBytes));
  // A file that comes into being: its name must be durable before a superblock names what is in it.
  if (window > 0 && file_blocks() <= window * kWindowBlocks) {
    XT_RETURN_IF_ERROR(windows_->fs()->SyncDirectory(windows_->SegmentPath(window).c_str()));
  }
  if (first_block + blocks > file_blocks()) {
    shared_->file_blocks.store(first_block + blocks, std::memory_order_relaxed);
  }
  return Status::Ok();
}

void SegmentAllocator::Prefill(uint32_t first_block, uint32_t blocks) {
  // A store into a private mapping takes memory of its own anyway.
  if (windows_->keeps_private()) return;
  windows_->fs()->Prefill(windows_->SegmentPath(first_block / kWindowBlocks).c_str(),
                          uint64_t{first_block % kWindowBlocks} * kBlockBytes,
                          uint64_t{blocks} * kBlockBytes);
}

Status SegmentAllocator::ExtendSegment(uint32_t segment, bool prefill) {
  SegmentInfo& s = info(segment);
  XT_ASSERT(s.state == SegmentState::kInUse && s.reserved_blocks < kSegmentBlocks);
  uint32_t step = kSegmentBlocks;
  if (file_blocks() < kSmallFileBlocks) {
    step = std::max({kFirstReserveBlocks, uint32_t{1} << s.order, uint32_t{s.reserved_blocks}});
  }
  const uint32_t old_blocks = s.reserved_blocks;
  uint32_t new_blocks = std::min(old_blocks + step, kSegmentBlocks);
  new_blocks &= ~((uint32_t{1} << s.order) - 1);
  XT_RETURN_IF_ERROR(
      ReserveBlocks(segment * kSegmentBlocks + old_blocks, new_blocks - old_blocks));
  if (prefill) Prefill(segment * kSegmentBlocks + old_blocks, new_blocks - old_blocks);
  s.reserved_blocks = static_cast<uint16_t>(new_blocks);
  if (new_blocks == kSegmentBlocks && shared_->growing[s.order] == segment + 1) {
    shared_->growing[s.order] = 0;
  }
  AddFree(segment, old_blocks >> s.order, new_blocks >> s.order);
  return Status::Ok();
}

void SegmentAllocator::UseSegment(uint32_t segment, uint32_t order, bool prefill) {
  SegmentInfo& s = info(segment);
  XT_ASSERT(s.state == SegmentState::kUnused && order <= kOrderMax);
  s.state = SegmentState::kInUse;
  s.order = static_cast<uint8_t>(order);
  s.free_extents = 0;
  std::fill(std::begin(s.used), std::end(s.used), ~uint64_t{0});
  s.reserved_blocks &= static_cast<uint16_t>(~((1u << order) - 1));
  if (s.reserved_blocks < kSegmentBlocks && shared_->growing[order] == 0) {
    shared_->growing[order] = segment + 1;
  }
  if (s.flags & kSegmentFresh) {
    if (prefill) Prefill(segment * kSegmentBlocks, s.reserved_blocks);
    s.flags &= static_cast<uint8_t>(~kSegmentFresh);
  }
  AddFree(segment, 0, s.reserved_blocks >> order);
}

void SegmentAllocator::ReleaseSegment(uint32_t segment) {
  SegmentInfo& s = info(segment);
  XT_ASSERT(segment != 0 && s.state == SegmentState::kInUse);
  Delist(segment);
  shared_->free_extents[s.order] -= s.free_extents;
  if (shared_->growing[s.order] == segment + 1) shared_->growing[s.order] = 0;
  s.free_extents = 0;
  s.state = SegmentState::kUnused;
  PushSorted(&shared_->unused, segment);
  shared_->unused_segments.fetch_add(1, std::memory_order_relaxed);
}

Status SegmentAllocator::AppendSegments(uint32_t order) {
  const uint32_t first = segments();
  if (first >= kWindowsMax * kSegmentsPerWindow) {
    return Status::Make(Code::kNoSpace, "\"%s\" has reached the largest possible size",
                        windows_->path().c_str());
  }
  // The host requires every file segment but the last to have its full length.
  if (first != 0 && first % kSegmentsPerWindow == 0 && file_blocks() < first * kSegmentBlocks) {
    XT_RETURN_IF_ERROR(ReserveBlocks(file_blocks(), first * kSegmentBlocks - file_blocks()));
  }
  uint32_t count = std::clamp(file_blocks() / 16 / kSegmentBlocks, 1u, kGrowSegmentsMax);
  count = std::min(count, kSegmentsPerWindow - first % kSegmentsPerWindow);
  uint32_t reserved = kSegmentBlocks;
  if (file_blocks() < kSmallFileBlocks) {
    reserved = std::max(kFirstReserveBlocks, 1u << order);
  }
  if (uint64_t{first} + count > infos_->capacity()) {
    return Status::Make(Code::kNeedMemory, "the segment table must grow");
  }
  Status status = ReserveBlocks(first * kSegmentBlocks, (count - 1) * kSegmentBlocks + reserved);
  if (!status.ok() && (count > 1 || reserved > kFirstReserveBlocks)) {
    // What is left on a nearly full disk may still do for one extent.
    count = 1;
    reserved = std::max(kFirstReserveBlocks, 1u << order);
    status = ReserveBlocks(first * kSegmentBlocks, reserved);
  }
  XT_RETURN_IF_ERROR(std::move(status));
  for (uint32_t i = 0; i < count; ++i) {
    SegmentInfo& s = info(first + i);
    s = SegmentInfo{};
    s.reserved_blocks = static_cast<uint16_t>(i + 1 < count ? kSegmentBlocks : reserved);
    s.flags = kSegmentFresh;
    PushBack(&shared_->unused, first + i);
  }
  shared_->unused_segments.fetch_add(count, std::memory_order_relaxed);
  shared_->segments.store(first + count, std::memory_order_relaxed);
  return Status::Ok();
}

Status SegmentAllocator::AddSpace(uint32_t order, bool prefill) {
  // Blocks that are reserved already come first, then those that continue a segment.
  uint32_t segment = shared_->unused.head;
  if (segment != 0 && info(segment - 1).reserved_blocks < (1u << order)) segment = 0;
  if (segment == 0 && shared_->growing[order] != 0) {
    return ExtendSegment(shared_->growing[order] - 1, prefill);
  }
  if (segment == 0) segment = shared_->unused.head;
  if (segment == 0) {
    XT_RETURN_IF_ERROR(AppendSegments(order));
    segment = shared_->unused.head;
  }
  const uint32_t number = segment - 1;
  Unlink(&shared_->unused, number);
  shared_->unused_segments.fetch_sub(1, std::memory_order_relaxed);
  UseSegment(number, order, prefill);
  if (info(number).free_extents != 0) return Status::Ok();
  Status status = ExtendSegment(number, prefill);
  if (!status.ok()) ReleaseSegment(number);
  return status;
}

Status SegmentAllocator::PrepareSegment(uint32_t segment) {
  SegmentInfo& s = info(segment);
  if (s.flags & kSegmentUnchecked) {
    // Holes in an adopted file (punched, or lost in a copy) must have blocks before a store.
    XT_RETURN_IF_ERROR(ReserveBlocks(segment * kSegmentBlocks, s.reserved_blocks));
    s.flags &= static_cast<uint8_t>(~kSegmentUnchecked);
  }
  return windows_->MapBlock(segment * kSegmentBlocks).status();
}

// --- Opening.

Status SegmentAllocator::CreateFile() {
  XT_ASSERT(segments() == 0 && file_blocks() == 0);
  if (infos_->capacity() < 1) {
    return Status::Make(Code::kNeedMemory, "the segment table must grow");
  }
  XT_RETURN_IF_ERROR(ReserveBlocks(0, kFirstReserveBlocks));
  info(0) = SegmentInfo{};
  info(0).reserved_blocks = kFirstReserveBlocks;
  shared_->segments.store(1, std::memory_order_relaxed);
  shared_->scrubbed = 1;
  UseSegment(0, 0, true);
  info(0).used[0] |= (uint64_t{1} << kSuperblocks) - 1;
  info(0).free_extents -= kSuperblocks;
  shared_->free_extents[0] -= kSuperblocks;
  shared_->used_blocks.store(kSuperblocks, std::memory_order_relaxed);
  return Status::Ok();
}

Status SegmentAllocator::Adopt(uint32_t file_blocks) {
  XT_ASSERT(segments() == 0);
  if (file_blocks < kSuperblocks) {
    return Status::Corruption("\"%s\" has %u blocks, fewer than its superblocks",
                              windows_->path().c_str(), file_blocks);
  }
  const uint32_t count = (file_blocks + kSegmentBlocks - 1) / kSegmentBlocks;
  if (infos_->capacity() < count) {
    return Status::Make(Code::kNeedMemory, "the segment table must grow");
  }
  for (uint32_t i = 0; i < count; ++i) {
    SegmentInfo& s = info(i);
    s = SegmentInfo{};
    s.flags = kSegmentUnchecked | kSegmentStale;
    s.reserved_blocks =
        static_cast<uint16_t>(std::min(file_blocks - i * kSegmentBlocks, kSegmentBlocks));
  }
  shared_->file_blocks.store(file_blocks, std::memory_order_relaxed);
  shared_->segments.store(count, std::memory_order_relaxed);
  shared_->used_blocks.store(kSuperblocks, std::memory_order_relaxed);
  shared_->scrubbed = 0;
  info(0).state = SegmentState::kInUse;
  info(0).used[0] = (uint64_t{1} << kSuperblocks) - 1;
  return Status::Ok();
}

Status SegmentAllocator::MarkUsed(uint32_t block, uint32_t order) {
  const uint32_t segment = block / kSegmentBlocks;
  const char* path = windows_->path().c_str();
  if (order > kOrderMax || uint64_t{block} + (1u << order) > file_blocks()) {
    return Status::Corruption("block %u of \"%s\" is beyond the end of the file, which has %u "
                              "blocks", block, path, file_blocks());
  }
  SegmentInfo& s = info(segment);
  if (block % (1u << order) != 0 || (s.state == SegmentState::kInUse && s.order != order)) {
    return Status::Corruption("block %u of \"%s\" cannot begin an extent of %u blocks", block, path,
                              1u << order);
  }
  if (s.state == SegmentState::kUnused) {
    s.state = SegmentState::kInUse;
    s.order = static_cast<uint8_t>(order);
  }
  const uint32_t extent = (block % kSegmentBlocks) >> order;
  const uint64_t bit = uint64_t{1} << (extent % 64);
  if (s.used[extent / 64] & bit) {
    return Status::Corruption("block %u of \"%s\" is referred to twice", block, path);
  }
  s.used[extent / 64] |= bit;
  shared_->used_blocks.fetch_add(1u << order, std::memory_order_relaxed);
  return Status::Ok();
}

void SegmentAllocator::FinishAdopt() {
  for (uint32_t i = 0; i < segments(); ++i) {
    SegmentInfo& s = info(i);
    if (s.state == SegmentState::kUnused) {
      PushBack(&shared_->unused, i);
      shared_->unused_segments.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    const uint32_t end = s.reserved_blocks >> s.order;
    s.reserved_blocks = static_cast<uint16_t>(end << s.order);
    for (uint32_t e = 0; e < kSegmentBlocks; ++e) {
      const uint64_t bit = uint64_t{1} << (e % 64);
      if (e >= end) {
        s.used[e / 64] |= bit;
      } else if (!(s.used[e / 64] & bit)) {
        ++s.free_extents;
      }
    }
    shared_->free_extents[s.order] += s.free_extents;
    if (s.free_extents != 0) List(i);
    if (s.reserved_blocks < kSegmentBlocks) shared_->growing[s.order] = i + 1;
  }
}

bool SegmentAllocator::ScrubStep(uint32_t blocks_max) {
  uint32_t looked_at = 0;
  while (looked_at < blocks_max && shared_->scrubbed < segments()) {
    const uint32_t segment = shared_->scrubbed;
    SegmentInfo& s = info(segment);
    if (s.flags & kSegmentStale) {
      if (!windows_->MapBlock(segment * kSegmentBlocks).ok()) return false;
      std::byte* base = windows_->BlockAddress(segment * kSegmentBlocks);
      const uint32_t order = s.state == SegmentState::kInUse ? s.order : 0;
      for (uint32_t e = 0; e < uint32_t{s.reserved_blocks} >> order; ++e) {
        if (s.state == SegmentState::kInUse && (s.used[e / 64] >> (e % 64) & 1)) continue;
        std::byte* extent = base + (uint64_t{e} << order) * kBlockBytes;
        const size_t bytes = size_t{kBlockBytes} << order;
        looked_at += 1u << order;
        // A store into a hole could fail for want of space; but a block that is not zero has space.
        if (IsZero(extent, bytes)) continue;
        std::memset(extent, 0, bytes);
        const uint32_t first = segment * kSegmentBlocks + (e << order);
        if (!windows_->Save(first, 1u << order).ok()) return false;
      }
      s.flags &= static_cast<uint8_t>(~kSegmentStale);
    }
    ++shared_->scrubbed;
  }
  return shared_->scrubbed >= segments();
}

// --- Allocation.

Result<uint32_t> SegmentAllocator::Allocate(uint32_t order) {
  XT_ASSERT(order <= kOrderMax);
  SegmentList& list = shared_->with_space[order];
  if (XT_UNLIKELY(list.head == 0)) XT_RETURN_IF_ERROR(AddSpace(order, true));
  const uint32_t segment = list.head - 1;
  SegmentInfo& s = info(segment);
  if (XT_UNLIKELY((s.flags & kSegmentUnchecked) ||
                  windows_->BlockAddress(segment * kSegmentBlocks) == nullptr)) {
    XT_RETURN_IF_ERROR(PrepareSegment(segment));
  }
  uint32_t word = 0;
  while (s.used[word] == ~uint64_t{0}) {
    ++word;
    XT_ASSERT(word < 4);
  }
  const uint32_t extent = word * 64 + static_cast<uint32_t>(std::countr_one(s.used[word]));
  const uint32_t block = segment * kSegmentBlocks + (extent << order);
  XT_ASSERT(extent < ExtentsOf(order) && s.free_extents > 0);
  if (XT_UNLIKELY(s.flags & kSegmentStale)) {
    std::memset(windows_->BlockAddress(block), 0, size_t{kBlockBytes} << order);
  }
  s.used[word] |= uint64_t{1} << (extent % 64);
  windows_->NoteUnsaved(block / kWindowBlocks);
  shared_->allocated_blocks.store(allocated_blocks() + (1u << order), std::memory_order_relaxed);
  --shared_->free_extents[order];
  if (--s.free_extents == 0) Delist(segment);
  shared_->used_blocks.store(used_blocks() + (1u << order), std::memory_order_relaxed);
  return block;
}

void SegmentAllocator::Free(uint32_t block, uint32_t order) {
  const uint32_t segment = block / kSegmentBlocks;
  SegmentInfo& s = info(segment);
  const uint32_t extent = (block % kSegmentBlocks) >> order;
  const uint64_t bit = uint64_t{1} << (extent % 64);
  XT_ASSERT(segment < segments() && s.state == SegmentState::kInUse && s.order == order);
  XT_ASSERT(s.used[extent / 64] & bit);
  std::byte* address = windows_->BlockAddress(block);
  XT_ASSERT(address != nullptr);
  if (windows_->keeps_private()) {
    // What it held is in the file, or in memory only. Either way it is zeroed when it is taken again; or
    // in the file, by a punch or ScrubStep.
    s.flags |= kSegmentStale;
    shared_->scrubbed = std::min(shared_->scrubbed, segment);
  } else {
    std::memset(address, 0, size_t{kBlockBytes} << order);
  }
  s.used[extent / 64] &= ~bit;
  ++s.free_extents;
  ++shared_->free_extents[order];
  shared_->used_blocks.store(used_blocks() - (1u << order), std::memory_order_relaxed);
  if (segment != 0 && s.free_extents == s.reserved_blocks >> order) {
    ReleaseSegment(segment);
  } else {
    List(segment);
  }
}

Status SegmentAllocator::ReserveExtents(uint32_t order, uint32_t extents, bool prefill) {
  while (shared_->free_extents[order] < extents) XT_RETURN_IF_ERROR(AddSpace(order, prefill));
  uint64_t ready = 0;
  for (uint32_t segment = shared_->with_space[order].head; segment != 0 && ready < extents;
       segment = info(segment - 1).next) {
    XT_RETURN_IF_ERROR(PrepareSegment(segment - 1));
    ready += info(segment - 1).free_extents;
  }
  return Status::Ok();
}

// --- Giving space back.

void SegmentAllocator::ReturnFreeSpace() {
  TruncateTail();
  PunchUnused();
}

void SegmentAllocator::TruncateTail() {
  uint32_t keep = segments();
  while (keep > 1 && info(keep - 1).state == SegmentState::kUnused) --keep;
  if (keep == segments()) return;
  const uint32_t keep_blocks = (keep - 1) * kSegmentBlocks + info(keep - 1).reserved_blocks;
  const uint32_t keep_window = (keep_blocks - 1) / kWindowBlocks;
  // File by file from the end, so that a failure leaves a state that agrees with the files.
  for (uint32_t w = (file_blocks() - 1) / kWindowBlocks + 1; w-- > keep_window;) {
    const uint32_t blocks = std::max(keep_blocks, w * kWindowBlocks);
    const uint64_t bytes = uint64_t{blocks - w * kWindowBlocks} * kBlockBytes;
    if (!windows_->fs()->Truncate(windows_->SegmentPath(w).c_str(), bytes).ok()) return;
    const uint32_t remain = std::max(keep, w * kSegmentsPerWindow);
    for (uint32_t segment = segments(); segment-- > remain;) {
      Unlink(&shared_->unused, segment);
      shared_->unused_segments.fetch_sub(1, std::memory_order_relaxed);
    }
    shared_->segments.store(remain, std::memory_order_relaxed);
    shared_->scrubbed = std::min(shared_->scrubbed, remain);
    shared_->file_blocks.store(blocks, std::memory_order_relaxed);
  }
}

void SegmentAllocator::PunchUnused() {
  // Some free segments stay reserved, so that a steady load does not reserve and punch in turns.
  uint32_t keep = used_blocks() / 16 / kSegmentBlocks;
  for (uint32_t segment = shared_->unused.head; segment != 0; segment = info(segment - 1).next) {
    SegmentInfo& s = info(segment - 1);
    if (s.reserved_blocks == 0) continue;
    if (keep > 0 && !(s.flags & kSegmentStale)) {
      --keep;
      continue;
    }
    const uint32_t block = (segment - 1) * kSegmentBlocks;
    const Status status = windows_->fs()->Punch(
        windows_->SegmentPath(block / kWindowBlocks).c_str(),
        uint64_t{block % kWindowBlocks} * kBlockBytes, uint64_t{s.reserved_blocks} * kBlockBytes);
    if (!status.ok()) return;
    windows_->Forget(block, s.reserved_blocks);
    s.reserved_blocks = 0;
    s.flags &= static_cast<uint8_t>(~(kSegmentStale | kSegmentUnchecked | kSegmentFresh));
  }
}

void SegmentAllocator::SortFreeSegments() {
  for (SegmentList& list : shared_->with_space) list = SegmentList{};
  shared_->unused = SegmentList{};
  for (uint32_t segment = 0; segment < segments(); ++segment) {
    const SegmentInfo& s = info(segment);
    if (s.state == SegmentState::kUnused) {
      PushBack(&shared_->unused, segment);
    } else if (s.flags & kSegmentListed) {
      PushBack(&shared_->with_space[s.order], segment);
    }
  }
}

bool SegmentAllocator::OpenBefore(uint32_t order, uint32_t limit) {
  const auto before = [limit](uint32_t head) {
    return head != 0 && (head - 1) * kSegmentBlocks < limit;
  };
  if (before(shared_->with_space[order].head)) return true;
  const uint32_t head = shared_->unused.head;
  if (!before(head)) return false;
  Unlink(&shared_->unused, head - 1);
  shared_->unused_segments.fetch_sub(1, std::memory_order_relaxed);
  UseSegment(head - 1, order, true);
  if (info(head - 1).free_extents != 0 || ExtendSegment(head - 1, true).ok()) return true;
  ReleaseSegment(head - 1);
  return false;
}

void SegmentAllocator::TrimFreeExtents() {
  for (uint32_t segment = 0; segment < segments(); ++segment) {
    SegmentInfo& s = info(segment);
    const uint32_t extents = uint32_t{s.reserved_blocks} >> s.order;
    if (s.state != SegmentState::kInUse || s.free_extents < std::max(extents / 4, 1u)) continue;
    const auto used = [&](uint32_t e) { return (s.used[e / 64] >> (e % 64) & 1) != 0; };
    for (uint32_t e = 0; e < extents;) {
      const uint32_t first = e;
      while (e < extents && !used(e)) ++e;
      if (e == first) {
        ++e;
        continue;
      }
      // Before the punch: an allocation from here must reserve the blocks again.
      s.flags |= kSegmentUnchecked;
      const uint32_t block = segment * kSegmentBlocks + (first << s.order);
      const Status status = windows_->fs()->Punch(
          windows_->SegmentPath(block / kWindowBlocks).c_str(),
          uint64_t{block % kWindowBlocks} * kBlockBytes,
          (uint64_t{e - first} << s.order) * kBlockBytes);
      if (!status.ok()) return;
      windows_->Forget(block, (e - first) << s.order);
    }
  }
}

}  // namespace xtree
