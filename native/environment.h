// What one JavaScript environment (the main thread, or one worker thread) has of us.
#pragma once

#include <napi.h>

#include <memory>
#include <set>

#include "hash_queue.h"
#include "js_thread.h"

namespace llmpt {

class SessionCore;

/// Shared by everything of one environment. Worker threads load the addon again and get their
/// own, so nothing here may become a global. JavaScript thread only.
struct Environment {
  explicit Environment(Napi::Env env)
      : js(std::make_shared<JsThread>(env)),
        workers(std::make_unique<Workers>(js)),
        hashing(std::make_shared<HashQueue>(js, *workers)) {}

  /// The environment of the caller.
  static std::shared_ptr<Environment> Of(Napi::Env env);

  /// Aborts and joins all there is. Idempotent.
  void Shutdown();

  std::shared_ptr<JsThread> js;
  std::unique_ptr<Workers> workers;
  std::shared_ptr<HashQueue> hashing;
  /// Sessions that are open. Each takes itself out.
  std::set<SessionCore*> sessions;
  Napi::FunctionReference torrent_class;
};

}  // namespace llmpt
