// How many threads hash files at the same time, however many files there are.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llmpt {

/// Every job has one thread; what is left goes to whoever could use more. Helpers that can end
/// between two portions do so when another job comes (`IsExceeded`); those with a share of a job
/// that nobody else could take over (lane_hasher) stay to its end. Any thread.
class ThreadBudget {
 public:
  explicit ThreadBudget(int limit) : limit_(limit) {}

  int limit() const { return limit_; }
  /// One more job, unless there are as many as there may be threads.
  bool BeginJob();
  void EndJob();
  bool HasJobs() const;
  /// One more helper, if no thread is over the limit then.
  bool BeginHelp();
  void EndHelp();
  /// Whether a helper should end: a job began that has the first right to its place.
  bool IsExceeded() const;

 private:
  int const limit_;
  mutable std::mutex mutex_;
  int jobs_ = 0;
  int helpers_ = 0;
};

/// As many as the machine has cores; at least 4, so that reading from a slow disk overlaps.
int HashingThreads();

/// Threads that help one job. Owns them; used by the job's own thread.
class Helpers {
 public:
  /// @param most never more than so many at a time.
  Helpers(ThreadBudget& budget, int most);
  ~Helpers() { Join(); }
  Helpers(Helpers const&) = delete;
  Helpers& operator=(Helpers const&) = delete;

  /// Runs `work`, which must not throw, on one more thread. False: there is none.
  bool Hire(std::function<void()> work);
  void Join();

 private:
  struct Place {
    std::thread thread;
    std::atomic<bool> is_busy{false};
  };

  ThreadBudget& budget_;
  std::vector<Place> places_;
};

}  // namespace llmpt
