// The only file that knows libtorrent's alert types: alert -> plain object, told apart by `type`.
// src/native/alerts.ts describes them.
#pragma once

#include <napi.h>

#include <cstdint>
#include <libtorrent/alert.hpp>
#include <libtorrent/torrent_status.hpp>
#include <optional>
#include <vector>

#include "torrent_table.h"

namespace llmpt {

/// A copy of all that JavaScript wants of `alert`, or nothing when it does not want it. Keeps
/// `torrents` up to date on the way: torrents become present, learn their pieces, and end.
std::optional<Napi::Object> ToObject(Napi::Env env, lt::alert const& alert, TorrentTable& torrents);

/// Answers to requests that libtorrent 2.0.8 has no alert for.
Napi::Object StatusAlert(Napi::Env env, std::uint32_t id, lt::torrent_status const& status);
Napi::Object AvailabilityAlert(Napi::Env env, std::uint32_t id, std::vector<int> const& counts);

}  // namespace llmpt
