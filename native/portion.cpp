#include "portion.h"

#include <algorithm>
#include <bitset>
#include <cassert>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace llmpt {

namespace {

constexpr std::size_t kPageBytes = 2 * 1024 * 1024;
constexpr std::size_t kSlotBytes = static_cast<std::size_t>(kPortionBytes);
constexpr std::size_t kSlotsPerPage = kPageBytes / kSlotBytes;
static_assert(kPageBytes % kSlotBytes == 0);

/// Portions of all jobs in as few huge pages as hold them. Small pages lie anywhere in memory, and
/// many of them share the same few places of a core's cache: reading into a fresh buffer of them
/// takes the system two thirds longer.
class PortionPool {
 public:
  char* Take() {
    std::lock_guard<std::mutex> const lock(mutex_);
    auto page = std::find_if(pages_.begin(), pages_.end(),
                             [](Page const& each) { return !each.taken.all(); });
    if (page == pages_.end()) page = pages_.insert(page, NewPage());
    std::size_t slot = 0;
    while (page->taken[slot]) ++slot;
    page->taken.set(slot);
    return page->memory.get() + slot * kSlotBytes;
  }

  void GiveBack(char* portion) {
    std::lock_guard<std::mutex> const lock(mutex_);
    auto const page = std::find_if(pages_.begin(), pages_.end(), [portion](Page const& each) {
      return portion >= each.memory.get() && portion < each.memory.get() + kPageBytes;
    });
    assert(page != pages_.end());
    page->taken.reset(static_cast<std::size_t>(portion - page->memory.get()) / kSlotBytes);
    // One is kept: zeroing it costs more than hashing a small file.
    if (page->taken.none() && pages_.size() > 1) pages_.erase(page);
  }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  struct Page {
    std::unique_ptr<char, Free> memory;
    std::bitset<kSlotsPerPage> taken;
  };

  static Page NewPage() {
#ifdef MADV_HUGEPAGE
    auto* const memory = static_cast<char*>(std::aligned_alloc(kPageBytes, kPageBytes));
    // Where there are no huge pages, it is memory all the same.
    if (memory != nullptr) madvise(memory, kPageBytes, MADV_HUGEPAGE);
#else
    auto* const memory = static_cast<char*>(std::malloc(kPageBytes));
#endif
    if (memory == nullptr) throw std::bad_alloc();
    return {std::unique_ptr<char, Free>(memory), {}};
  }

  std::mutex mutex_;
  std::vector<Page> pages_;
};

/// Never destroyed: hashing threads may end after the process's other statics have.
PortionPool& Pool() {
  static auto* const pool = new PortionPool;
  return *pool;
}

}  // namespace

PortionBuffer::PortionBuffer(std::int64_t bytes) : bytes_(Pool().Take()), size_(bytes) {
  assert(bytes <= kPortionBytes);
}

void PortionBuffer::GiveBack::operator()(char* bytes) const { Pool().GiveBack(bytes); }

}  // namespace llmpt
