// Threads for bulk work.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace xtree {

// Runs work(0) .. work(threads - 1), work(0) in the calling thread, and waits for all. The host's
// signal handlers must run in the host's own thread only, so the others are born with all signals
// blocked. Where no thread is to be had, the caller does its share.
template <class Work>
void RunThreads(uint32_t threads, const Work& work) {
  std::vector<std::thread> workers;
  if (threads > 1) {
    sigset_t all, old;
    sigfillset(&all);
    workers.reserve(threads - 1);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t t = 1; t < threads; ++t) {
      try {
        workers.emplace_back([&work, t] { work(t); });
      } catch (const std::system_error&) {
        break;
      }
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  work(0);
  for (uint32_t t = static_cast<uint32_t>(workers.size()) + 1; t < threads; ++t) work(t);
  for (std::thread& worker : workers) worker.join();
}

}  // namespace xtree
