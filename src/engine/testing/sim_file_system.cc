#include "testing/sim_file_system.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

namespace xtree {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSector = 512;
constexpr uint64_t kViewBytes = uint64_t{1} << 30;  // Longest file: one window.

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

const char* KindName(SimFileSystem::OperationKind kind) {
  switch (kind) {
    case SimFileSystem::kStat: return "stat";
    case SimFileSystem::kReserve: return "reserve";
    case SimFileSystem::kPunch: return "punch";
    case SimFileSystem::kTruncate: return "truncate";
    case SimFileSystem::kMap: return "map";
    case SimFileSystem::kSync: return "sync";
    case SimFileSystem::kWriteback: return "writeback";
    case SimFileSystem::kSyncDirectory: return "sync directory";
    case SimFileSystem::kRemove: return "remove";
    case SimFileSystem::kCreateDirectory: return "create directory";
    case SimFileSystem::kOpen: return "open";
    case SimFileSystem::kWrite: return "write";
  }
  return "?";
}

}  // namespace

uint64_t SimRandom::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// One file: the memory that mappings share, and what of it has reached the disk.
struct SimFileSystem::File {
  using Page = std::vector<std::byte>;
  // A change of size or a punched hole since the last sync.
  struct Change {
    bool is_punch;
    uint64_t offset;  // Of a punch; else the new size.
    uint64_t length;  // Of a punch.
    bool shrinks;
  };

  explicit File(uint64_t inode_number) : inode(inode_number) {
    fd = memfd_create("xtree-sim", MFD_CLOEXEC);
    XT_ASSERT(fd >= 0);
    void* base = mmap(nullptr, kViewBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    XT_ASSERT(base != MAP_FAILED);
    view = static_cast<std::byte*>(base);
  }
  ~File() {
    munmap(view, kViewBytes);
    close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void SetSize(uint64_t new_size) {
    XT_ASSERT(new_size <= kViewBytes);
    if (new_size == size) return;
    pending.push_back(Change{false, new_size, 0, new_size < size});
    if (new_size < size) ForgetPages(new_size, size);
    XT_ASSERT(ftruncate(fd, static_cast<off_t>(new_size)) == 0);
    size = new_size;
    reserved.resize((new_size + kPage - 1) / kPage, false);
  }
  void Punch(uint64_t begin, uint64_t end) {
    end = std::min(end, size);
    if (begin >= end) return;
    pending.push_back(Change{true, begin, end - begin, false});
    ForgetPages(begin, end);
    std::memset(view + begin, 0, end - begin);
    for (uint64_t p = (begin + kPage - 1) / kPage; p < end / kPage; ++p) reserved[p] = false;
  }
  // Versions of pages that a hole or a truncation has ended.
  void ForgetPages(uint64_t begin, uint64_t end) {
    std::erase_if(written, [&](const auto& entry) { return Inside(entry.first, begin, end); });
    std::erase_if(believed_clean,
                  [&](const auto& entry) { return Inside(entry.first, begin, end); });
  }
  static bool Inside(uint64_t page, uint64_t begin, uint64_t end) {
    return (page + 1) * kPage > begin && page * kPage < end;
  }
  Page CopyPage(uint64_t page) const {
    const uint64_t begin = page * kPage;
    const uint64_t end = std::min(begin + kPage, size);
    Page copy(end - begin);
    std::memcpy(copy.data(), view + begin, copy.size());
    return copy;
  }
  void SyncAll() {
    std::vector<std::byte> before;
    if (!believed_clean.empty()) before = synced;
    synced.assign(view, view + size);
    for (auto lost = believed_clean.begin(); lost != believed_clean.end();) {
      const uint64_t begin = lost->first * kPage;
      const Page& clean = lost->second;
      if (std::memcmp(synced.data() + begin, clean.data(), clean.size()) == 0) {
        std::memcpy(synced.data() + begin, before.data() + begin, clean.size());
        ++lost;
      } else {
        lost = believed_clean.erase(lost);
      }
    }
    pending.clear();
    written.clear();
  }
  std::vector<std::byte> AfterPowerCut(SimRandom* random) const;

  const uint64_t inode;
  int fd;
  std::byte* view;                  // The whole file, and room to grow.
  uint64_t size = 0;
  std::vector<bool> reserved;       // By page.
  std::vector<std::byte> synced;    // Content at the last sync.
  std::vector<Change> pending;      // Since then.
  std::unordered_map<uint64_t, Page> written;         // Written back since then, without a sync.
  std::unordered_map<uint64_t, Page> believed_clean;  // Lost by a failed sync while unchanged.
  std::vector<std::byte> at_crash;  // Content when the power failed.
  bool has_crashed = false;
};

std::vector<std::byte> SimFileSystem::File::AfterPowerCut(SimRandom* random) const {
  const std::byte* now = has_crashed ? at_crash.data() : view;
  const uint64_t now_size = has_crashed ? at_crash.size() : size;
  std::vector<std::byte> disk = synced;
  const size_t kept = random->Below(pending.size() + 1);
  for (size_t i = 0; i < kept; ++i) {
    const Change& change = pending[i];
    if (!change.is_punch) {
      disk.resize(change.offset);
    } else if (change.offset < disk.size()) {
      const uint64_t end = std::min<uint64_t>(change.offset + change.length, disk.size());
      std::memset(disk.data() + change.offset, 0, end - change.offset);
    }
  }
  const auto unreachable = [&](uint64_t page) {
    for (size_t i = kept; i < pending.size(); ++i) {
      const Change& change = pending[i];
      const uint64_t end = change.is_punch ? change.offset + change.length : kViewBytes;
      if ((change.is_punch || change.shrinks) && Inside(page, change.offset, end)) return true;
    }
    return false;
  };
  // Each file has a bias, so that "nothing" and "everything" are as likely as mixtures.
  const uint64_t bias = random->Below(5);  // Of 4: how many pages are kept.
  for (uint64_t page = 0; page * kPage < disk.size(); ++page) {
    const uint64_t begin = page * kPage;
    if (begin >= now_size) break;
    const uint64_t length =
        std::min({kPage, static_cast<uint64_t>(disk.size()) - begin, now_size - begin});
    const auto lost = believed_clean.find(page);
    const bool is_lost = lost != believed_clean.end() && lost->second.size() == length &&
                         std::memcmp(lost->second.data(), now + begin, length) == 0;
    if (is_lost || unreachable(page)) continue;
    if (std::memcmp(disk.data() + begin, now + begin, length) == 0) continue;
    const auto earlier = written.find(page);
    const bool torn = random->Below(4) == 0;
    for (uint64_t at = 0; at < length; at += torn ? kSector : kPage) {
      const uint64_t piece = std::min(torn ? kSector : kPage, length - at);
      if (random->Below(4) >= bias) continue;  // This piece stays as it was synced.
      const bool older = earlier != written.end() && earlier->second.size() >= at + piece &&
                         random->Coin();
      std::memcpy(disk.data() + begin + at, older ? earlier->second.data() + at : now + begin + at,
                  piece);
    }
  }
  return disk;
}

SimFileSystem::SimFileSystem(uint64_t seed) : random_(seed) {}
SimFileSystem::~SimFileSystem() = default;

Status SimFileSystem::Operate(OperationKind kind, const char* path,
                              const std::function<Status()>& effect) {
  std::lock_guard lock(mutex_);
  if (crashed_) return Status::Make(Code::kIoError, "simulated power cut before %s", path);
  const uint64_t operation = operations_++;
  if (!live_.empty() && random_.Below(4) == 0) {
    // The kernel writes back what it likes, when it likes.
    auto victim = live_.begin();
    std::advance(victim, random_.Below(live_.size()));
    WriteBackSome(victim->second.get(), 0, victim->second->size / kPage, 8);
  }
  const bool fails_once = operation == fail_at_;
  if (fails_once || (fail_kinds_ & kind) != 0) {
    const FilePtr file = Find(path);
    if (kind == kSync && file != nullptr) FailedSync(file.get());
    if (fails_once) fail_at_ = kNever;
    return fails_once ? fail_status_ : fail_kinds_status_;
  }
  if (operation != crash_at_) return effect();
  if (random_.Coin()) (void)effect();
  crashed_ = true;
  crash_operation_ = std::string(KindName(kind)) + " " + path;
  // From here on the program's stores reach nothing.
  for (const auto* names : {&live_, &durable_}) {
    for (const auto& [name, file] : *names) {
      if (file->has_crashed) continue;
      file->at_crash.assign(file->view, file->view + file->size);
      file->has_crashed = true;
    }
  }
  return Status::Make(Code::kIoError, "simulated power cut at %s", crash_operation_.c_str());
}

SimFileSystem::FilePtr SimFileSystem::Find(const std::string& path) const {
  const auto found = live_.find(path);
  return found == live_.end() ? nullptr : found->second;
}

void SimFileSystem::FailedSync(File* file) {
  file->synced.resize(file->size);
  file->pending.clear();
  file->written.clear();
  for (uint64_t page = 0; page * kPage < file->size; ++page) {
    File::Page now = file->CopyPage(page);
    std::byte* disk = file->synced.data() + page * kPage;
    if (std::memcmp(disk, now.data(), now.size()) == 0) continue;
    if (random_.Coin()) {
      std::memcpy(disk, now.data(), now.size());
    } else {
      file->believed_clean[page] = std::move(now);
    }
  }
}

void SimFileSystem::WriteBackSome(File* file, uint64_t first_page, uint64_t pages,
                                  uint64_t tries) {
  if (pages == 0) return;
  for (uint64_t i = 0; i < tries; ++i) {
    const uint64_t page = first_page + random_.Below(pages);
    if (page * kPage >= file->size) continue;
    File::Page now = file->CopyPage(page);
    const auto lost = file->believed_clean.find(page);
    if (lost != file->believed_clean.end() && lost->second == now) continue;
    const uint64_t begin = page * kPage;
    const bool same = begin + now.size() <= file->synced.size() &&
                      std::memcmp(file->synced.data() + begin, now.data(), now.size()) == 0;
    if (!same) file->written[page] = std::move(now);
  }
}

void SimFileSystem::FindViolations(const std::string& path, const File& file) const {
  static const std::byte zeros[kPage] = {};
  for (uint64_t page = 0; page * kPage < file.size; ++page) {
    if (file.reserved[page]) continue;
    const uint64_t length = std::min(kPage, file.size - page * kPage);
    if (std::memcmp(file.view + page * kPage, zeros, length) == 0) continue;
    violations_.push_back("unreserved page " + std::to_string(page) + " of " + path +
                          " was stored to");
  }
}

uint64_t SimFileSystem::ReservedBytes() const {
  uint64_t pages = 0;
  for (const auto& [name, file] : live_) {
    pages += static_cast<uint64_t>(std::count(file->reserved.begin(), file->reserved.end(), true));
  }
  return pages * kPage;
}

Result<FileInfo> SimFileSystem::Stat(const char* path) {
  FileInfo info{};
  const Status status = Operate(kStat, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file != nullptr) {
      const auto pages = std::count(file->reserved.begin(), file->reserved.end(), true);
      info = FileInfo{file->size, static_cast<uint64_t>(pages) * kPage, 1, file->inode};
      return Status::Ok();
    }
    if (std::find(directories_.begin(), directories_.end(), path) != directories_.end()) {
      info = FileInfo{0, 0, 1, 0};
      return Status::Ok();
    }
    return Status::FromErrno(ENOENT, "could not stat file \"%s\"", path);
  });
  if (!status.ok()) return status;
  return info;
}

Status SimFileSystem::Reserve(const char* path, uint64_t offset, uint64_t length) {
  XT_ASSERT(length > 0);
  return Operate(kReserve, path, [&]() -> Status {
    FilePtr file = Find(path);
    if (file == nullptr) {
      file = std::make_shared<File>(next_inode_++);
      live_[path] = file;
    }
    const uint64_t end = offset + length;
    const uint64_t old_pages = file->reserved.size();
    uint64_t new_bytes = 0;
    for (uint64_t page = offset / kPage; page * kPage < end; ++page) {
      if (page >= old_pages || !file->reserved[page]) new_bytes += kPage;
    }
    if (capacity_ != kNever && ReservedBytes() + new_bytes > capacity_) {
      return Status::FromErrno(ENOSPC, "could not extend file \"%s\"", path);
    }
    if (end > file->size) file->SetSize(end);
    for (uint64_t page = offset / kPage; page * kPage < end; ++page) file->reserved[page] = true;
    return Status::Ok();
  });
}

void SimFileSystem::Prefill(const char* path, uint64_t offset, uint64_t length) {
  std::lock_guard lock(mutex_);
  if (crashed_) return;
  const FilePtr file = Find(path);
  XT_ASSERT(file != nullptr && offset % kPage == 0 && offset + length <= file->size);
  for (uint64_t at = offset; at < offset + length; ++at) {
    XT_ASSERT(file->reserved[at / kPage] && file->view[at] == std::byte{0});
  }
}

Status SimFileSystem::Punch(const char* path, uint64_t offset, uint64_t length) {
  return Operate(kPunch, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file == nullptr) return Status::FromErrno(ENOENT, "could not open file \"%s\"", path);
    file->Punch(offset, offset + length);
    return Status::Ok();
  });
}

Status SimFileSystem::Truncate(const char* path, uint64_t size_bytes) {
  return Operate(kTruncate, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file == nullptr) return Status::FromErrno(ENOENT, "could not truncate file \"%s\"", path);
    file->SetSize(size_bytes);
    return Status::Ok();
  });
}

Result<std::byte*> SimFileSystem::Map(const char* path, uint64_t length, bool writable) {
  XT_ASSERT(length > 0 && length <= kViewBytes);
  void* base = nullptr;
  const Status status = Operate(kMap, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file == nullptr) return Status::FromErrno(ENOENT, "could not open file \"%s\"", path);
    base = mmap(nullptr, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                file->fd, 0);
    if (base != MAP_FAILED) return Status::Ok();
    base = nullptr;
    return Status::FromErrno(errno, "could not map file \"%s\"", path);
  });
  if (!status.ok()) {
    if (base != nullptr) munmap(base, length);  // The crash hit after the effect.
    return status;
  }
  return static_cast<std::byte*>(base);
}

void SimFileSystem::Unmap(std::byte* base, uint64_t length) {
  XT_ASSERT(munmap(base, length) == 0);
}

Status SimFileSystem::Sync(const char* path) {
  return Operate(kSync, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file == nullptr) return Status::FromErrno(ENOENT, "could not open file \"%s\"", path);
    FindViolations(path, *file);
    file->SyncAll();
    return Status::Ok();
  });
}

class SimFileSystem::SimOpenFile final : public OpenFile {
 public:
  SimOpenFile(SimFileSystem* fs, const char* path) : fs_(fs), path_(path) {}
  Status Write(uint64_t offset, const std::byte* from, uint64_t length) override {
    return fs_->Operate(kWrite, path_.c_str(), [&]() -> Status {
      const FilePtr file = fs_->Find(path_);
      if (file == nullptr) return Status::FromErrno(ENOENT, "could not write file \"%s\"", path_.c_str());
      XT_ASSERT(offset + length <= file->size);  // Reserved before.
      std::memcpy(file->view + offset, from, length);
      return Status::Ok();
    });
  }
  Status Sync() override { return fs_->Sync(path_.c_str()); }

 private:
  SimFileSystem* const fs_;
  const std::string path_;
};

Result<std::unique_ptr<OpenFile>> SimFileSystem::Open(const char* path) {
  XT_RETURN_IF_ERROR(Operate(kOpen, path, [&]() -> Status {
    if (Find(path) != nullptr) return Status::Ok();
    return Status::FromErrno(ENOENT, "could not open file \"%s\"", path);
  }));
  return std::unique_ptr<OpenFile>(std::make_unique<SimOpenFile>(this, path));
}

Status SimFileSystem::Rewrite(const char* path, uint64_t offset, uint64_t length) {
  return Operate(kWriteback, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file == nullptr) return Status::FromErrno(ENOENT, "could not open file \"%s\"", path);
    std::erase_if(file->believed_clean,
                  [&](const auto& entry) { return File::Inside(entry.first, offset, offset + length); });
    return Status::Ok();
  });
}

void SimFileSystem::StartWriteback(const char* path, uint64_t offset, uint64_t length) {
  writeback_bytes.fetch_add(length, std::memory_order_relaxed);
  (void)Operate(kWriteback, path, [&]() -> Status {
    const FilePtr file = Find(path);
    if (file != nullptr) {
      const uint64_t pages = length / kPage;
      WriteBackSome(file.get(), offset / kPage, pages, std::min<uint64_t>(pages, 64));
    }
    return Status::Ok();
  });
}

Status SimFileSystem::SyncDirectory(const char* path) {
  return Operate(kSyncDirectory, path, [&]() -> Status {
    const std::string directory = DirectoryOf(path);
    std::erase_if(durable_,
                  [&](const auto& entry) { return DirectoryOf(entry.first) == directory; });
    for (const auto& [name, file] : live_) {
      if (DirectoryOf(name) == directory) durable_[name] = file;
    }
    return Status::Ok();
  });
}

Status SimFileSystem::Remove(const char* path) {
  return Operate(kRemove, path, [&]() -> Status {
    if (live_.erase(path) == 0) {
      return Status::FromErrno(ENOENT, "could not remove file \"%s\"", path);
    }
    return Status::Ok();
  });
}

Status SimFileSystem::CreateDirectory(const char* path) {
  return Operate(kCreateDirectory, path, [&]() -> Status {
    if (std::find(directories_.begin(), directories_.end(), path) != directories_.end()) {
      return Status::FromErrno(EEXIST, "could not create directory \"%s\"", path);
    }
    directories_.push_back(path);
    return Status::Ok();
  });
}

namespace {

class SimIoQueue final : public IoQueue {
 public:
  SimIoQueue(FileSystem* fs, uint64_t seed) : fs_(fs), random_(seed) {}
  void SyncAll(std::vector<SyncRequest>* batch) override {
    std::vector<size_t> order(batch->size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.Below(i)]);
    for (const size_t i : order) (*batch)[i].status = fs_->Sync((*batch)[i].path.c_str());
  }
  const char* name() const override { return "simulated"; }

 private:
  FileSystem* const fs_;
  SimRandom random_;
};

}  // namespace

std::unique_ptr<IoQueue> SimFileSystem::NewQueue() {
  std::lock_guard lock(mutex_);
  return std::make_unique<SimIoQueue>(this, random_.Next());
}

void SimFileSystem::CrashAtOperation(uint64_t n) {
  std::lock_guard lock(mutex_);
  crash_at_ = operations_ + n;
}

void SimFileSystem::FailOperation(uint64_t n, Status status) {
  XT_ASSERT(!status.ok());
  std::lock_guard lock(mutex_);
  fail_at_ = operations_ + n;
  fail_status_ = std::move(status);
}

void SimFileSystem::FailKinds(uint32_t mask, Status status) {
  XT_ASSERT(mask == 0 || !status.ok());
  std::lock_guard lock(mutex_);
  fail_kinds_ = mask;
  fail_kinds_status_ = std::move(status);
}

void SimFileSystem::SetCapacity(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

bool SimFileSystem::crashed() const {
  std::lock_guard lock(mutex_);
  return crashed_;
}

uint64_t SimFileSystem::operations() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

std::string SimFileSystem::crash_operation() const {
  std::lock_guard lock(mutex_);
  return crash_operation_;
}

SimFileSystem::Image SimFileSystem::AfterPowerCut(uint64_t seed) const {
  std::lock_guard lock(mutex_);
  SimRandom random(seed);
  std::map<std::string, FilePtr> names = durable_;
  for (const auto& [name, file] : durable_) {
    if (!live_.contains(name) && random.Coin()) names.erase(name);  // The removal came through.
  }
  for (const auto& [name, file] : live_) {
    const auto was = durable_.find(name);
    const bool is_durable = was != durable_.end() && was->second == file;
    if (is_durable || random.Coin()) names[name] = file;
  }
  Image image;
  for (const auto& [name, file] : names) {
    if (!file->has_crashed) FindViolations(name, *file);
    image[name] = file->AfterPowerCut(&random);
  }
  return image;
}

void SimFileSystem::ContinueAfterKill() {
  std::lock_guard lock(mutex_);
  for (const auto* names : {&live_, &durable_}) {
    for (const auto& [name, file] : *names) {
      if (!file->has_crashed) continue;
      XT_ASSERT(file->at_crash.size() == file->size);
      if (file->size != 0) std::memcpy(file->view, file->at_crash.data(), file->size);
      file->at_crash.clear();
      file->has_crashed = false;
    }
  }
  ForgetFaults();
}

void SimFileSystem::Load(const Image& image) {
  std::lock_guard lock(mutex_);
  live_.clear();
  for (const auto& [name, content] : image) {
    auto file = std::make_shared<File>(next_inode_++);
    file->SetSize(content.size());
    if (!content.empty()) std::memcpy(file->view, content.data(), content.size());
    for (uint64_t page = 0; page < file->reserved.size(); ++page) {
      const std::byte* begin = file->view + page * kPage;
      const std::byte* end = begin + std::min(kPage, file->size - page * kPage);
      file->reserved[page] = std::any_of(begin, end, [](std::byte b) { return b != std::byte{0}; });
    }
    file->SyncAll();
    live_[name] = file;
  }
  durable_ = live_;
  ForgetFaults();
}

void SimFileSystem::ForgetFaults() {
  crash_at_ = fail_at_ = kNever;
  fail_kinds_ = 0;
  crashed_ = false;
  crash_operation_.clear();
}

SimFileSystem::Image SimFileSystem::Contents() const {
  std::lock_guard lock(mutex_);
  Image image;
  for (const auto& [name, file] : live_) {
    image[name].assign(file->view, file->view + file->size);
  }
  return image;
}

void SimFileSystem::Damage(const std::string& path, uint64_t offset, uint8_t mask) {
  std::lock_guard lock(mutex_);
  const FilePtr file = Find(path);
  XT_ASSERT(file != nullptr && offset < file->size);
  file->view[offset] ^= std::byte{mask};
  if (offset < file->synced.size()) file->synced[offset] = file->view[offset];
}

std::vector<std::string> SimFileSystem::violations() const {
  std::lock_guard lock(mutex_);
  return violations_;
}

}  // namespace xtree
