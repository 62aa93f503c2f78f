// What several threads that work on one thing ran into.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>

namespace llmpt {

/// Keeps the first error; the others follow from it. Any thread.
class FirstError {
 public:
  /// To be called in a `catch`.
  void KeepCurrent() {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (!error_) error_ = std::current_exception();
    is_set_ = true;
  }
  bool is_set() const { return is_set_; }
  /// When all threads have ended.
  void Rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  std::atomic<bool> is_set_{false};
};

}  // namespace llmpt
