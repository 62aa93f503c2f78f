// Digests of a whole file in one pass: SHA-256, and git's blob SHA-1.
#pragma once

#include <napi.h>

namespace llmpt {

/// (path, { sha256, gitSha1, threads? }, onProgress?) => { promise, cancel }
Napi::Value HashFile(Napi::CallbackInfo const& info);

}  // namespace llmpt
