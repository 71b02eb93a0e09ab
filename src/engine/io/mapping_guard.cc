#include "io/mapping_guard.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "base/mapping_fault.h"

namespace xtree {
namespace {

// A signal handler can take no lock, so regions are kept in slots that are never moved or freed.
struct Region {
  std::atomic<uintptr_t> begin;  // 0: free. Stored last when taken, first when given back.
  std::atomic<uint64_t> bytes;
  std::atomic<std::atomic<uint32_t>*> faults;
};

constexpr uint32_t kChunkRegions = 128;  // Of most processes the only ones; new ones touch few pages.

struct Chunk {
  Region regions[kChunkRegions] = {};
  std::atomic<Chunk*> next{nullptr};
};

constinit Chunk g_first_chunk;
std::mutex g_mutex;  // Serializes the changes.
struct sigaction g_previous;
bool g_installed = false;
size_t g_page_bytes = 4096;

Region* FindRegion(uintptr_t address) {
  for (Chunk* chunk = &g_first_chunk; chunk != nullptr;
       chunk = chunk->next.load(std::memory_order_acquire)) {
    for (Region& region : chunk->regions) {
      const uintptr_t begin = region.begin.load(std::memory_order_acquire);
      if (begin != 0 && address >= begin &&
          address - begin < region.bytes.load(std::memory_order_relaxed)) {
        return &region;
      }
    }
  }
  return nullptr;
}

bool PutZeros(uintptr_t begin, uint64_t bytes) {
  return mmap(reinterpret_cast<void*>(begin), bytes, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

// Only system calls and atomics here.
void OnBusError(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  Region* region = info->si_code > 0 ? FindRegion(address) : nullptr;
  if (region != nullptr) {
    const uintptr_t begin = region->begin.load(std::memory_order_relaxed);
    // The one page, so that what has been read elsewhere stays what it was. A process that has used up
    // its mappings gets zeros for the whole region, which takes away mappings.
    if (PutZeros(address & ~(g_page_bytes - 1), g_page_bytes) ||
        PutZeros(begin, region->bytes.load(std::memory_order_relaxed))) {
      region->faults.load(std::memory_order_relaxed)->fetch_add(1, std::memory_order_relaxed);
      NoteMappingFault();
      errno = saved_errno;
      return;
    }
  }
  errno = saved_errno;
  if (g_previous.sa_flags & SA_SIGINFO) {
    g_previous.sa_sigaction(signal, info, context);
  } else if (g_previous.sa_handler == SIG_IGN && info->si_code <= 0) {
    return;
  } else if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(signal);
  } else {
    // The instruction, repeated, ends the process where it is to blame; a signal that was sent, here.
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(SIGBUS, &action, nullptr);
    if (info->si_code <= 0) raise(SIGBUS);
  }
}

}  // namespace

void InstallMappingGuard() {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (g_installed) return;
  g_page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  sigemptyset(&action.sa_mask);
  // Restart: the handler interrupts no system call that would be better interrupted.
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  g_installed = sigaction(SIGBUS, &action, &g_previous) == 0;
}

void GuardMapping(std::byte* base, uint64_t bytes, std::atomic<uint32_t>* faults) {
  std::lock_guard<std::mutex> lock(g_mutex);
  Chunk* chunk = &g_first_chunk;
  for (;;) {
    for (Region& region : chunk->regions) {
      if (region.begin.load(std::memory_order_relaxed) != 0) continue;
      region.bytes.store(bytes, std::memory_order_relaxed);
      region.faults.store(faults, std::memory_order_relaxed);
      region.begin.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
      return;
    }
    Chunk* next = chunk->next.load(std::memory_order_relaxed);
    if (next == nullptr) {
      next = new Chunk;
      chunk->next.store(next, std::memory_order_release);
    }
    chunk = next;
  }
}

void UnguardMapping(std::byte* base) noexcept {
  const auto begin = reinterpret_cast<uintptr_t>(base);
  std::lock_guard<std::mutex> lock(g_mutex);
  for (Chunk* chunk = &g_first_chunk; chunk != nullptr;
       chunk = chunk->next.load(std::memory_order_relaxed)) {
    for (Region& region : chunk->regions) {
      if (region.begin.load(std::memory_order_relaxed) != begin) continue;
      region.begin.store(0, std::memory_order_release);
      return;
    }
  }
}

GuardedMapping::GuardedMapping(FileSystem* fs, const char* path, uint64_t bytes)
    : fs_(fs), bytes_(bytes) {
  Result<std::byte*> mapped = fs->Map(path, bytes, true);
  status_ = mapped.status();
  if (!status_.ok()) return;
  try {
    GuardMapping(*mapped, bytes, &faults_);
  } catch (...) {
    fs->Unmap(*mapped, bytes);
    throw;
  }
  base_ = *mapped;
}

GuardedMapping::~GuardedMapping() {
  if (base_ == nullptr) return;
  UnguardMapping(base_);
  fs_->Unmap(base_, bytes_);
}

}  // namespace xtree
