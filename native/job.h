// Hashing, when its turn has come, on threads of its own behind `{ promise, cancel() }`, with
// progress.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "convert.h"
#include "environment.h"
#include "errors.h"

namespace llmpt {

/// What the work sees of its caller. Any thread.
class JobControl {
 public:
  explicit JobControl(std::string operation, std::shared_ptr<JsThread> js)
      : operation_(std::move(operation)), js_(std::move(js)) {}

  void Cancel() { is_cancelled_ = true; }
  bool is_cancelled() const { return is_cancelled_; }
  /// @throws Failure when the caller has lost interest.
  void ThrowIfCancelled() const {
    if (is_cancelled_) throw Cancelled(operation_);
  }
  /// The newest numbers reach JavaScript as soon as it has time; older ones are skipped.
  void Report(std::int64_t done, std::int64_t total) {
    done_ = done;
    total_ = total;
    if (!on_report_ || is_reporting_.exchange(true)) return;
    js_->Post([report = on_report_](Napi::Env env) { report(env); });
  }

 private:
  friend class ProgressCallback;
  std::string const operation_;
  std::shared_ptr<JsThread> const js_;
  JsThread::Task on_report_;
  std::atomic<bool> is_cancelled_{false};
  std::atomic<bool> is_reporting_{false};
  std::atomic<std::int64_t> done_{0};
  std::atomic<std::int64_t> total_{0};
};

/// Holds the caller's `onProgress`. JavaScript thread only, its destruction included.
class ProgressCallback {
 public:
  /// Connects `control` to `callback`, which is a function or undefined.
  static std::shared_ptr<ProgressCallback> Connect(std::shared_ptr<JobControl> const& control,
                                                   Napi::Value callback) {
    auto progress = std::make_shared<ProgressCallback>();
    if (callback.IsUndefined()) return progress;
    progress->callback_ = Napi::Persistent(RequireFunction(callback, "onProgress"));
    control->on_report_ = [weak_progress = std::weak_ptr<ProgressCallback>(progress),
                           weak_control = std::weak_ptr<JobControl>(control)](Napi::Env env) {
      auto const living = weak_progress.lock();
      auto const reporter = weak_control.lock();
      if (living && reporter) living->Call(env, *reporter);
    };
    return progress;
  }

  /// The last numbers, unless they were given already.
  void Finish(Napi::Env env, JobControl& control) {
    if (!callback_.IsEmpty() && control.is_reporting_) Call(env, control);
  }

 private:
  void Call(Napi::Env env, JobControl& control) {
    if (!control.is_reporting_.exchange(false)) return;
    auto const done = static_cast<double>(control.done_);
    auto const total = static_cast<double>(control.total_);
    callback_.Call({Napi::Number::New(env, done), Napi::Number::New(env, total)});
  }

  Napi::FunctionReference callback_;
};

/// Whether the process waits for a job before it ends.
enum class Waiting { kKeepsProcess, kLetsProcessEnd };

/// Queues `work(control)`, and settles the promise with `convert(env, result)`.
template <typename Result>
Napi::Value StartJob(Napi::Env env, char const* operation, Napi::Value on_progress,
                     std::function<Result(JobControl&)> work,
                     std::function<Napi::Value(Napi::Env, Result const&)> convert,
                     Waiting waiting = Waiting::kKeepsProcess) {
  auto const environment = Environment::Of(env);
  auto const control = std::make_shared<JobControl>(operation, environment->js);
  auto const progress = ProgressCallback::Connect(control, on_progress);
  auto const deferred = Napi::Promise::Deferred::New(env);

  struct Outcome {
    std::optional<Result> result;
    std::exception_ptr error;
  };
  auto const outcome = std::make_shared<Outcome>();

  Workers::Job job;
  job.work = [work = std::move(work), control, outcome] {
    try {
      control->ThrowIfCancelled();
      outcome->result = work(*control);
    } catch (...) {
      outcome->error = std::current_exception();
    }
  };
  job.done = [operation, convert = std::move(convert), control, progress, deferred,
              outcome](Napi::Env env) {
    try {
      Guarded(env, operation, [&] {
        if (outcome->error) std::rethrow_exception(outcome->error);
        progress->Finish(env, *control);
        deferred.Resolve(convert(env, *outcome->result));
      });
    } catch (Napi::Error const& error) {
      deferred.Reject(error.Value());
    }
  };
  job.cancel = [control] { control->Cancel(); };
  job.keeps_process_alive = waiting == Waiting::kKeepsProcess;
  HashQueue::Id const id = environment->hashing->Add(std::move(job));

  auto handle = Napi::Object::New(env);
  handle.Set("promise", deferred.Promise());
  handle.Set("cancel", Napi::Function::New(
                           env,
                           [queue = std::weak_ptr<HashQueue>(environment->hashing),
                            id](Napi::CallbackInfo const&) {
                             if (auto const living = queue.lock()) living->Cancel(id);
                           },
                           "cancel"));
  return handle;
}

}  // namespace llmpt
