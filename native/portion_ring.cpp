#include "portion_ring.h"

#include <algorithm>
#include <utility>

namespace llmpt {

namespace {

/// How far the fastest thread may be ahead of the slowest.
constexpr std::int64_t kSlots = 4;
/// What the system is asked to read ahead of a portion: the one after the next. Its own read-ahead
/// is shorter than a portion, so that the disk would rest while we hash. Asking twice for the same
/// bytes costs as much as reading them from memory.
constexpr std::int64_t kPrefetchDistance = 2 * kPortionBytes;

}  // namespace

PortionRing::PortionRing(InputFile const& file, int threads,
                         std::function<void(std::int64_t)> report)
    : file_(file),
      threads_(threads),
      report_(std::move(report)),
      portions_((file.size() + kPortionBytes - 1) / kPortionBytes) {
  // A thread that is alone never has more than one at a time.
  std::int64_t const slots = threads == 1 ? 1 : kSlots;
  for (std::int64_t i = 0; i < std::min(slots, portions_); ++i) {
    slots_.emplace_back(std::min(file.size(), kPortionBytes)).index = i;
  }
}

std::optional<lt::span<char const>> PortionRing::Take(std::int64_t index) {
  Slot& slot = SlotOf(index);
  auto const part = slot.buffer.First(BytesOf(index));
  std::unique_lock<std::mutex> lock(mutex_);
  moved_.wait(
      lock, [&] { return is_stopped_ || (slot.index == index && slot.state != State::kReading); });
  if (is_stopped_) return std::nullopt;
  if (slot.state == State::kReady) return part;
  slot.state = State::kReading;
  lock.unlock();
  std::int64_t const offset = index * kPortionBytes;
  file_.Prefetch(offset + kPrefetchDistance, kPortionBytes);
  file_.ReadAt(offset, part);
  lock.lock();
  slot.state = State::kReady;
  slot.holders = threads_;
  lock.unlock();
  moved_.notify_all();
  return part;
}

void PortionRing::Release(std::int64_t index) {
  Slot& slot = SlotOf(index);
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (--slot.holders > 0) return;
    slot.state = State::kFree;
    slot.index += static_cast<std::int64_t>(slots_.size());
    report_(index * kPortionBytes + BytesOf(index));
  }
  moved_.notify_all();
}

void PortionRing::Stop() {
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    is_stopped_ = true;
  }
  moved_.notify_all();
}

std::int64_t PortionRing::BytesOf(std::int64_t index) const {
  return std::min(kPortionBytes, file_.size() - index * kPortionBytes);
}

PortionRing::Slot& PortionRing::SlotOf(std::int64_t index) {
  return slots_[static_cast<std::size_t>(index) % slots_.size()];
}

}  // namespace llmpt
