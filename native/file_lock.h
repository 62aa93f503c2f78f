// flock(2), which Node does not offer and Python's huggingface_hub takes.
#pragma once

#include <napi.h>

namespace llmpt {

Napi::Value TryLock(Napi::CallbackInfo const& info);  // (fd) => boolean
Napi::Value Unlock(Napi::CallbackInfo const& info);   // (fd) => void

}  // namespace llmpt
