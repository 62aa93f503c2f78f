#include "file_lock.h"

#include <sys/file.h>

#include <cerrno>

#include "convert.h"
#include "errors.h"

namespace llmpt {

namespace {

/// 0, or the error number.
int Flock(int fd, int operation) {
  while (flock(fd, operation) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace

Napi::Value TryLock(Napi::CallbackInfo const& info) {
  Napi::Env const env = info.Env();
  int const error = Flock(RequireInt(info[0], "fd"), LOCK_EX | LOCK_NB);
  if (error != 0 && error != EWOULDBLOCK) throw ToError(env, SystemFailure("tryLock", error));
  return Napi::Boolean::New(env, error == 0);
}

Napi::Value Unlock(Napi::CallbackInfo const& info) {
  Napi::Env const env = info.Env();
  int const error = Flock(RequireInt(info[0], "fd"), LOCK_UN);
  if (error != 0) throw ToError(env, SystemFailure("unlock", error));
  return env.Undefined();
}

}  // namespace llmpt
