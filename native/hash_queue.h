// Jobs that hash whole files, in the order in which they came and no more at a time than the
// machine can do.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "js_thread.h"
#include "thread_budget.h"

namespace llmpt {

/// Owns its jobs; borrows threads from `Workers`, which joins them before this ends. JavaScript
/// thread only, apart from the work itself.
class HashQueue {
 public:
  using Id = std::uint64_t;

  HashQueue(std::shared_ptr<JsThread> js, Workers& workers);

  /// `work` runs when it is its turn. A job that is cancelled before is run at once, on the
  /// JavaScript thread, to say so: it must begin by asking whether it is.
  Id Add(Workers::Job job);
  /// Does nothing for a job that has ended.
  void Cancel(Id id);
  void CancelAll();
  /// No thread works for this any more, and `done` of what is left will not be called.
  void Clear() { jobs_.clear(); }

  /// What a job may take threads from.
  std::shared_ptr<ThreadBudget> const& budget() const { return budget_; }

 private:
  struct Turn {
    Id id;
    Workers::Job* job;
  };

  /// One more thread that works off what waits, if there may be one.
  void StartThread();
  /// On a thread of `Workers`: one job after the other, until none waits.
  void WorkOff();
  std::optional<Turn> Next();
  bool TakeOut(Id id);
  void PostEnd(Id id);

  std::shared_ptr<JsThread> const js_;
  Workers& workers_;
  std::shared_ptr<ThreadBudget> const budget_;
  Id last_ = 0;
  /// Changed on the JavaScript thread only: what jobs hold may be destroyed nowhere else.
  std::map<Id, Workers::Job> jobs_;

  std::mutex mutex_;
  std::deque<Turn> waiting_;
};

}  // namespace llmpt
