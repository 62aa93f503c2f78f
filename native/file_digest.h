// The digests of a file that is still being downloaded, ready a moment after its last byte.
//
// Life: waits without a thread until there is enough to hash, then runs on one of its own, then is
// settled. The JavaScript thread alone moves it from one to the next.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>

#include "environment.h"
#include "prefix_hasher.h"

namespace llmpt {

/// Shares a `PrefixHasher` with the thread that runs it. Collected before the whole file is final,
/// it cancels: nobody can say any more that it goes on.
class FileDigest : public Napi::ObjectWrap<FileDigest> {
 public:
  static constexpr napi_type_tag kTag = {0x6b1d94e2f07a4c35ULL, 0xa85e3d0c72194bf6ULL};

  static Napi::Function Define(Napi::Env env);
  explicit FileDigest(Napi::CallbackInfo const& info);  // (path, options)
  ~FileDigest() override;

  Napi::Value Advance(Napi::CallbackInfo const& info);
  Napi::Value Close(Napi::CallbackInfo const& info);
  Napi::Value HashedBytes(Napi::CallbackInfo const& info);
  Napi::Value ReadBytes(Napi::CallbackInfo const& info);

 private:
  bool IsWorthAThread() const;
  void Start();

  std::shared_ptr<Environment> environment_;
  std::shared_ptr<PrefixHasher> hasher_;
  /// The promise, as long as no thread has been given it and it is not settled.
  std::optional<Napi::Promise::Deferred> waiting_;
};

}  // namespace llmpt
