// Registration, and the data of each environment. Worker threads load this file again in the same
// process: there are no mutable globals here or anywhere.
#include <napi.h>

#include <libtorrent/session.hpp>
#include <utility>
#include <vector>

#include "create_torrent.h"
#include "environment.h"
#include "errors.h"
#include "file_digest.h"
#include "file_lock.h"
#include "hash_file.h"
#include "self_check.h"
#include "session.h"
#include "sha256_kernels.h"
#include "torrent.h"

namespace llmpt {

namespace {

/// Owned by the JavaScript environment.
struct AddonData {
  std::shared_ptr<Environment> environment;
};

// Node runs cleanup hooks in reverse order of registration. This one was registered after the
// thread-safe function made its own, so it runs before that function is freed.
void OnEnvironmentEnd(void* data) { static_cast<AddonData*>(data)->environment->Shutdown(); }

// process.exit() and an uncaught error run no cleanup hooks on the main thread: the C library would
// destroy its and OpenSSL's statics under the threads of libtorrent. They do emit 'exit', like
// every orderly end.
void ShutDownOnExit(Napi::Env env, std::weak_ptr<Environment> const& environment) {
  auto process = env.Global().Get("process").As<Napi::Object>();
  auto const on_exit = Napi::Function::New(env, [environment](Napi::CallbackInfo const&) {
    if (auto const living = environment.lock()) living->Shutdown();
  });
  process.Get("once").As<Napi::Function>().Call(process, {Napi::String::New(env, "exit"), on_exit});
}

template <Napi::Value (*Call)(Napi::CallbackInfo const&)>
Napi::Function Export(Napi::Env env, char const* name) {
  return Napi::Function::New(
      env,
      [name](Napi::CallbackInfo const& info) {
        return Guarded(info.Env(), name, [&] { return Call(info); });
      },
      name);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  // Here, while nobody else can be reading or changing the environment's variables.
  BestSha256Code();
  auto data = std::make_unique<AddonData>();
  data->environment = std::make_shared<Environment>(env);
  data->environment->torrent_class = Napi::Persistent(Torrent::Define(env));
  napi_add_env_cleanup_hook(env, OnEnvironmentEnd, data.get());
  ShutDownOnExit(env, data->environment);
  env.SetInstanceData(data.release());

  exports.Set("versions", Versions(env));
  exports.Set("Session", Session::Define(env));
  exports.Set("FileDigest", FileDigest::Define(env));
  exports.Set("selfCheck", Export<SelfCheck>(env, "selfCheck"));
  exports.Set("createTorrent", Export<CreateTorrent>(env, "createTorrent"));
  exports.Set("hashFile", Export<HashFile>(env, "hashFile"));
  exports.Set("tryLock", Export<TryLock>(env, "tryLock"));
  exports.Set("unlock", Export<Unlock>(env, "unlock"));
  return exports;
}

}  // namespace

std::shared_ptr<Environment> Environment::Of(Napi::Env env) {
  return env.GetInstanceData<AddonData>()->environment;
}

void Environment::Shutdown() {
  std::vector<lt::session_proxy> ending;
  for (SessionCore* core : std::exchange(sessions, {})) {
    auto const session = core->TakeSession();
    // Whoever ends the process or the thread does not wait for trackers.
    lt::settings_pack hurry;
    hurry.set_int(lt::settings_pack::stop_tracker_timeout, 0);
    session->apply_settings(std::move(hurry));
    ending.push_back(session->abort());
  }
  hashing->CancelAll();
  workers->CancelAndJoin();
  hashing->Clear();
  js->Close();
  torrent_class.Reset();
  // All sessions end at the same time; leaving the scope waits for the last.
}

}  // namespace llmpt

NAPI_MODULE_INIT() { return Napi::RegisterModule(env, exports, llmpt::Init); }
