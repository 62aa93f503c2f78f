// A torrent of one file. Equal content, name, piece length and format give equal info
// dictionaries, whoever makes them: no date, no attribute, no path gets in.
#pragma once

#include <napi.h>

namespace llmpt {

/// (options, onProgress?) => { promise, cancel }
Napi::Value CreateTorrent(Napi::CallbackInfo const& info);

}  // namespace llmpt
