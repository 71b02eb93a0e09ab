// Threads for bulk work.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace xtree {

// Runs work(0) .. work(threads - 1), work(0) in the calling thread, waits for all, and throws what one of
// them threw. The host's
// signal handlers must run in the host's own thread only, so the others are born with all signals
// blocked. Where no thread is to be had, the caller does its share.
template <class Work>
void RunThreads(uint32_t threads, const Work& work) {
  std::vector<std::thread> workers;
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto run = [&](uint32_t t) {
    try {
      work(t);
    } catch (...) {
      std::lock_guard<std::mutex> lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  if (threads > 1) {
    sigset_t all, old;
    sigfillset(&all);
    // A fault of the thread's own is delivered to it or ends the process (io/mapping_guard.h).
    sigdelset(&all, SIGBUS);
    workers.reserve(threads - 1);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t t = 1; t < threads; ++t) {
      try {
        workers.emplace_back([&run, t] { run(t); });
      } catch (const std::system_error&) {
        break;
      }
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  run(0);
  for (uint32_t t = static_cast<uint32_t>(workers.size()) + 1; t < threads; ++t) run(t);
  for (std::thread& worker : workers) worker.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace xtree
