// The portions of a file, in order, for several threads that each see all of them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <libtorrent/span.hpp>
#include <mutex>
#include <optional>
#include <vector>

#include "input_file.h"
#include "portion.h"

namespace llmpt {

/// Whoever needs a portion first reads it into a buffer that all have done with; the others find it
/// there. So the faster threads read ahead for the slower, as far as there are buffers.
class PortionRing {
 public:
  /// @param report hears how many bytes all threads have done with.
  PortionRing(InputFile const& file, int threads, std::function<void(std::int64_t)> report);

  std::int64_t portions() const { return portions_; }
  /// Portion `index` until `Release(index)`; nothing when `Stop` was called. Each thread asks for
  /// all of them, one after the other. @throws Failure when it cannot be read.
  std::optional<lt::span<char const>> Take(std::int64_t index);
  void Release(std::int64_t index);
  /// Nobody waits any longer. Any thread.
  void Stop();

 private:
  enum class State { kFree, kReading, kReady };
  struct Slot {
    explicit Slot(std::int64_t bytes) : buffer(bytes) {}
    PortionBuffer buffer;
    /// What is in there, or will be.
    std::int64_t index = 0;
    State state = State::kFree;
    int holders = 0;
  };

  std::int64_t BytesOf(std::int64_t index) const;
  Slot& SlotOf(std::int64_t index);

  InputFile const& file_;
  int const threads_;
  std::function<void(std::int64_t)> const report_;
  std::int64_t const portions_;

  std::mutex mutex_;
  std::condition_variable moved_;
  std::vector<Slot> slots_;
  bool is_stopped_ = false;
};

}  // namespace llmpt
