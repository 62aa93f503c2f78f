// The way from any thread to the JavaScript thread of one environment, and the threads of ours
// that outlast a call.
#pragma once

#include <napi.h>

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace llmpt {

/// Runs tasks on the JavaScript thread. Owns the thread-safe function, which never keeps the
/// process alive unless someone asked for it with `KeepAlive`.
class JsThread {
 public:
  using Task = std::function<void(Napi::Env)>;

  explicit JsThread(Napi::Env env);

  /// From any thread. Tasks run in the order of their posting; after `Close` they are dropped.
  void Post(Task task);

  /// Counted, JavaScript thread only: the event loop does not end while the count is above zero.
  void KeepAlive();
  void LetGo();

  /// Drops what is queued and lets nobody in any more. To be called in the environment's cleanup
  /// hook: Node frees the thread-safe function right after, and its own guard does not cover
  /// a call from another thread at that moment.
  void Close();

 private:
  bool IsOpen();
  static void Run(Napi::Env env, Napi::Function, JsThread* self, void*);
  using Bell = Napi::TypedThreadSafeFunction<JsThread, void, &JsThread::Run>;

  Napi::Env env_;
  Bell bell_;
  int keepers_ = 0;

  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool is_open_ = true;
  bool has_rung_ = false;
};

/// Threads that work for this environment. JavaScript thread only, apart from the work itself.
class Workers {
 public:
  explicit Workers(std::shared_ptr<JsThread> js) : js_(std::move(js)) {}

  struct Job {
    /// On an own thread.
    std::function<void()> work;
    /// Then on the JavaScript thread; not called when the environment ends first.
    JsThread::Task done;
    /// Makes `work` return soon. Any thread, any time until `done`.
    std::function<void()> cancel;
    bool keeps_process_alive = true;
  };

  void Start(Job job);

  /// The environment ends: nothing of ours may run after this.
  void CancelAndJoin();

 private:
  struct Worker {
    Job job;
    std::thread thread;
  };
  std::shared_ptr<JsThread> js_;
  std::list<Worker> workers_;
};

}  // namespace llmpt
