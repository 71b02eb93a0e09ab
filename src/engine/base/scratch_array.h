// Memory for many elements at once that is written before it is read. It is not initialized, so that several
// threads can share the page faults of the first stores; and large arrays are in large pages where the
// system has them, which makes the faults few. Throws std::bad_alloc.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>

namespace xtree {

template <class T>
class ScratchArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  explicit ScratchArray(size_t size) {
    const size_t bytes = size * sizeof(T);
    if (bytes < kLargeMin) {
      data_ = static_cast<T*>(std::malloc(bytes > 0 ? bytes : 1));
    } else {
      const size_t rounded = (bytes + kLargePage - 1) / kLargePage * kLargePage;
      data_ = static_cast<T*>(std::aligned_alloc(kLargePage, rounded));
      // A hint.
      if (data_ != nullptr) (void)madvise(data_, rounded, MADV_HUGEPAGE);
    }
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~ScratchArray() { std::free(data_); }
  ScratchArray(const ScratchArray&) = delete;
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  static constexpr size_t kLargePage = size_t{2} << 20;
  static constexpr size_t kLargeMin = 2 * kLargePage;
  T* data_;
};

}  // namespace xtree
