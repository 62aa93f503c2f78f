#include "hash_queue.h"

#include <algorithm>
#include <utility>

namespace llmpt {

HashQueue::HashQueue(std::shared_ptr<JsThread> js, Workers& workers)
    : js_(std::move(js)),
      workers_(workers),
      budget_(std::make_shared<ThreadBudget>(HashingThreads())) {}

HashQueue::Id HashQueue::Add(Workers::Job job) {
  Id const id = ++last_;
  auto const added = jobs_.emplace(id, std::move(job)).first;
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    waiting_.push_back({id, &added->second});
  }
  try {
    StartThread();
  } catch (...) {
    // Any other thread will come to it: then it does not matter that this one did not start.
    if (!budget_->HasJobs() && TakeOut(id)) {
      jobs_.erase(added);
      throw;
    }
  }
  if (added->second.keeps_process_alive) js_->KeepAlive();
  return id;
}

void HashQueue::StartThread() {
  {
    // Under the lock, or a thread could find nothing to do just before and end just after.
    std::lock_guard<std::mutex> const lock(mutex_);
    if (waiting_.empty() || !budget_->BeginJob()) return;
  }
  try {
    workers_.Start({[this] { WorkOff(); }, {}, {}, false});
  } catch (...) {
    budget_->EndJob();
    throw;
  }
}

void HashQueue::WorkOff() {
  while (auto const turn = Next()) {
    turn->job->work();
    PostEnd(turn->id);
  }
}

std::optional<HashQueue::Turn> HashQueue::Next() {
  std::lock_guard<std::mutex> const lock(mutex_);
  if (waiting_.empty()) {
    budget_->EndJob();
    return std::nullopt;
  }
  Turn const turn = waiting_.front();
  waiting_.pop_front();
  return turn;
}

bool HashQueue::TakeOut(Id id) {
  std::lock_guard<std::mutex> const lock(mutex_);
  auto const found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [id](Turn const& turn) { return turn.id == id; });
  if (found == waiting_.end()) return false;
  waiting_.erase(found);
  return true;
}

void HashQueue::PostEnd(Id id) {
  js_->Post([this, id](Napi::Env env) {
    Workers::Job const job = std::move(jobs_.extract(id).mapped());
    if (job.keeps_process_alive) js_->LetGo();
    job.done(env);
  });
}

void HashQueue::Cancel(Id id) {
  auto const found = jobs_.find(id);
  if (found == jobs_.end()) return;
  found->second.cancel();
  if (!TakeOut(id)) return;
  found->second.work();
  PostEnd(id);
}

void HashQueue::CancelAll() {
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    waiting_.clear();
  }
  for (auto const& [id, job] : jobs_) job.cancel();
}

}  // namespace llmpt
