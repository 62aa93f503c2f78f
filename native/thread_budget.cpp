#include "thread_budget.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace llmpt {

namespace {

constexpr int kFewest = 4;
/// What a thread hashes from takes memory.
constexpr int kMost = 32;

}  // namespace

bool ThreadBudget::BeginJob() {
  std::lock_guard<std::mutex> const lock(mutex_);
  if (jobs_ == limit_) return false;
  ++jobs_;
  return true;
}

void ThreadBudget::EndJob() {
  std::lock_guard<std::mutex> const lock(mutex_);
  --jobs_;
}

bool ThreadBudget::HasJobs() const {
  std::lock_guard<std::mutex> const lock(mutex_);
  return jobs_ > 0;
}

bool ThreadBudget::BeginHelp() {
  std::lock_guard<std::mutex> const lock(mutex_);
  if (jobs_ + helpers_ >= limit_) return false;
  ++helpers_;
  return true;
}

void ThreadBudget::EndHelp() {
  std::lock_guard<std::mutex> const lock(mutex_);
  --helpers_;
}

bool ThreadBudget::IsExceeded() const {
  std::lock_guard<std::mutex> const lock(mutex_);
  return jobs_ + helpers_ > limit_;
}

int HashingThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), kFewest, kMost);
}

Helpers::Helpers(ThreadBudget& budget, int most)
    : budget_(budget), places_(static_cast<std::size_t>(std::clamp(most, 0, budget.limit()))) {}

bool Helpers::Hire(std::function<void()> work) {
  auto const place =
      std::find_if(places_.begin(), places_.end(), [](Place const& one) { return !one.is_busy; });
  if (place == places_.end() || !budget_.BeginHelp()) return false;
  if (place->thread.joinable()) place->thread.join();
  place->is_busy = true;
  try {
    place->thread = std::thread([this, place, work = std::move(work)] {
      work();
      budget_.EndHelp();
      place->is_busy = false;
    });
  } catch (std::system_error const&) {
    // The system gives no more: whoever asked does without.
    place->is_busy = false;
    budget_.EndHelp();
    return false;
  }
  return true;
}

void Helpers::Join() {
  for (Place& place : places_) {
    if (place.thread.joinable()) place.thread.join();
  }
}

}  // namespace llmpt
