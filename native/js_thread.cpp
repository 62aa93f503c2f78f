#include "js_thread.h"

#include <utility>

namespace llmpt {

namespace {

/// An error nobody can catch belongs to the process, as from any callback in JavaScript.
void ReportUncaught(Napi::Env env, Napi::Error const& error) {
  napi_fatal_exception(env, error.Value());
}

}  // namespace

JsThread::JsThread(Napi::Env env) : env_(env), bell_(Bell::New(env, "llmpt_native", 0, 1, this)) {
  bell_.Unref(env);
}

void JsThread::Post(Task task) {
  std::lock_guard<std::mutex> const lock(mutex_);
  if (!is_open_) return;
  tasks_.push_back(std::move(task));
  if (has_rung_) return;
  has_rung_ = bell_.NonBlockingCall() == napi_ok;
}

void JsThread::KeepAlive() {
  if (keepers_++ == 0) bell_.Ref(env_);
}

void JsThread::LetGo() {
  if (--keepers_ == 0) bell_.Unref(env_);
}

void JsThread::Close() {
  std::vector<Task> dropped;
  std::lock_guard<std::mutex> const lock(mutex_);
  is_open_ = false;
  tasks_.swap(dropped);
}

bool JsThread::IsOpen() {
  std::lock_guard<std::mutex> const lock(mutex_);
  return is_open_;
}

// Node calls with a null environment when it throws the queue away.
void JsThread::Run(Napi::Env env, Napi::Function, JsThread* self, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;
  std::vector<Task> tasks;
  {
    std::lock_guard<std::mutex> const lock(self->mutex_);
    self->has_rung_ = false;
    tasks.swap(self->tasks_);
  }
  for (Task const& task : tasks) {
    // JavaScript may end the environment from within a task: what the next ones are about is gone.
    if (!self->IsOpen()) return;
    Napi::HandleScope const scope(env);
    try {
      task(env);
    } catch (Napi::Error const& error) {
      ReportUncaught(env, error);
    } catch (std::exception const& error) {
      ReportUncaught(env, Napi::Error::New(env, error.what()));
    }
  }
}

void Workers::Start(Job job) {
  auto const worker = workers_.emplace(workers_.end());
  worker->job = std::move(job);
  auto const finish = [this, worker](Napi::Env env) {
    worker->thread.join();
    Job const finished = std::move(worker->job);
    workers_.erase(worker);
    if (finished.keeps_process_alive) js_->LetGo();
    if (finished.done) finished.done(env);
  };
  try {
    worker->thread = std::thread([js = js_, worker, finish] {
      worker->job.work();
      js->Post(finish);
    });
  } catch (...) {
    workers_.erase(worker);
    throw;
  }
  if (worker->job.keeps_process_alive) js_->KeepAlive();
}

void Workers::CancelAndJoin() {
  for (Worker& worker : workers_) {
    if (worker.job.cancel) worker.job.cancel();
  }
  for (Worker& worker : workers_) worker.thread.join();
  workers_.clear();
}

}  // namespace llmpt
