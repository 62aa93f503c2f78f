// Whether the libtorrent that was loaded is the one this addon was compiled for.
#pragma once

#include <napi.h>

namespace llmpt {

/// ({ expectVersion? }?) => { ok, reason? }
Napi::Value SelfCheck(Napi::CallbackInfo const& info);
Napi::Object Versions(Napi::Env env);

}  // namespace llmpt
