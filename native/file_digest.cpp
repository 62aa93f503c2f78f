#include "file_digest.h"

#include <exception>
#include <functional>
#include <utility>

#include "binding_class.h"
#include "convert.h"
#include "errors.h"

namespace llmpt {

namespace {

constexpr char kOperation[] = "fileDigest";

/// Up to here hashing takes less than a millisecond: it begins when all is there, so that the
/// thread never has to wait.
constexpr std::int64_t kSmallBytes = 1 << 20;

PrefixHasher::Request ToRequest(Napi::Value path, Napi::Value value) {
  Napi::Object const options = RequireObject(value, "options");
  PrefixHasher::Request request;
  request.path = RequireString(path, "path");
  request.size = RequireInteger(options.Get("sizeBytes"), "sizeBytes", 0, kMaxSafeInteger);
  request.sha256 = RequireBoolean(options.Get("sha256"), "sha256");
  request.git_sha1 = RequireBoolean(options.Get("gitSha1"), "gitSha1");
  if (auto const torrent = Optional(options, "torrent")) {
    request.torrent = RequireTorrentFacts(RequireObject(*torrent, "torrent"), false, true);
    RequirePieceCount(kOperation, request.size, request.torrent->piece_length);
  }
  return request;
}

Napi::Value ToValue(Napi::Env env, PrefixDigests const& digests) {
  auto object = Napi::Object::New(env);
  object.Set("sizeBytes", static_cast<double>(digests.size));
  if (!digests.sha256.empty()) object.Set("sha256", digests.sha256);
  if (!digests.git_sha1.empty()) object.Set("gitSha1", digests.git_sha1);
  if (digests.torrent) {
    std::vector<char> const& bytes = digests.torrent->bytes;
    object.Set("torrentFile", ToBytes(env, bytes.data(), bytes.size()));
    object.Set("infoHashV2", digests.torrent->info_hash_v2);
  }
  return object;
}

/// Resolves with what `produce` returns, or rejects with what it throws.
void Settle(Napi::Env env, Napi::Promise::Deferred deferred,
            std::function<PrefixDigests()> const& produce) {
  try {
    deferred.Resolve(Guarded(env, kOperation, [&] { return ToValue(env, produce()); }));
  } catch (Napi::Error const& error) {
    deferred.Reject(error.Value());
  }
}

void RejectAsCancelled(Napi::Env env, Napi::Promise::Deferred deferred) {
  deferred.Reject(ToError(env, Cancelled(kOperation)).Value());
}

}  // namespace

Napi::Function FileDigest::Define(Napi::Env env) {
  return DefineClass(env, "FileDigest",
                     {
                         DescribeMethod<FileDigest, &FileDigest::Advance>("advance"),
                         DescribeMethod<FileDigest, &FileDigest::Close>("close"),
                         DescribeGetter<FileDigest, &FileDigest::HashedBytes>("hashedBytes"),
                         DescribeGetter<FileDigest, &FileDigest::ReadBytes>("readBytes"),
                     });
}

FileDigest::FileDigest(Napi::CallbackInfo const& info)
    : Napi::ObjectWrap<FileDigest>(info), environment_(Environment::Of(info.Env())) {
  Napi::Env const env = info.Env();
  hasher_ = Guarded(env, kOperation,
                    [&] { return std::make_shared<PrefixHasher>(ToRequest(info[0], info[1])); });
  auto self = info.This().As<Napi::Object>();
  self.TypeTag(&kTag);
  auto const deferred = Napi::Promise::Deferred::New(env);
  self.DefineProperty(
      Napi::PropertyDescriptor::Value("finished", deferred.Promise(), napi_enumerable));
  if (hasher_->size() == 0) {
    Settle(env, deferred, [&] { return hasher_->Run(); });
  } else {
    waiting_ = deferred;
  }
}

// A finalizer may not run JavaScript: the promise, which somebody may still hold, is settled later.
FileDigest::~FileDigest() {
  if (!hasher_ || hasher_->end() == hasher_->size()) return;
  hasher_->Cancel();
  if (!waiting_) return;
  environment_->js->Post(
      [deferred = *waiting_](Napi::Env env) { RejectAsCancelled(env, deferred); });
}

Napi::Value FileDigest::Advance(Napi::CallbackInfo const& info) {
  Napi::Env const env = info.Env();
  std::int64_t const end = RequireInteger(info[0], "endBytes", hasher_->end(), hasher_->size());
  try {
    if (waiting_) hasher_->Open();
    hasher_->Advance(end);
    if (waiting_ && IsWorthAThread()) Start();
  } catch (std::exception const&) {
    // Whether the file cannot be opened or cannot be read: the caller hears of it in one place.
    auto const error = std::current_exception();
    hasher_->Close();
    Settle(env, *std::exchange(waiting_, std::nullopt),
           [&]() -> PrefixDigests { std::rethrow_exception(error); });
  }
  return env.Undefined();
}

bool FileDigest::IsWorthAThread() const {
  std::int64_t const end = hasher_->end();
  return end == hasher_->size() || (end > 0 && hasher_->size() > kSmallBytes);
}

void FileDigest::Start() {
  struct Outcome {
    PrefixDigests digests;
    std::exception_ptr error;
  };
  auto const outcome = std::make_shared<Outcome>();
  Workers::Job job;
  job.keeps_process_alive = false;
  job.work = [hasher = hasher_, outcome] {
    try {
      outcome->digests = hasher->Run();
    } catch (...) {
      outcome->error = std::current_exception();
    }
  };
  job.done = [deferred = *waiting_, outcome](Napi::Env env) {
    Settle(env, deferred, [&] {
      if (outcome->error) std::rethrow_exception(outcome->error);
      return std::move(outcome->digests);
    });
  };
  job.cancel = [hasher = hasher_] { hasher->Cancel(); };
  environment_->workers->Start(std::move(job));
  waiting_.reset();
}

Napi::Value FileDigest::Close(Napi::CallbackInfo const& info) {
  hasher_->Cancel();
  if (waiting_) {
    hasher_->Close();
    RejectAsCancelled(info.Env(), *std::exchange(waiting_, std::nullopt));
  }
  return info.Env().Undefined();
}

Napi::Value FileDigest::HashedBytes(Napi::CallbackInfo const& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(hasher_->hashed()));
}

Napi::Value FileDigest::ReadBytes(Napi::CallbackInfo const& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(hasher_->read()));
}

}  // namespace llmpt
