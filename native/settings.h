// Plain object -> libtorrent's settings_pack, by libtorrent's own names.
#pragma once

#include <napi.h>

#include <libtorrent/settings_pack.hpp>

namespace llmpt {

/// @throws TypeError for an unknown name or a wrong type, RangeError for a number that does not
/// fit.
lt::settings_pack ToSettings(Napi::Value value);

}  // namespace llmpt
