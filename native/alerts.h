// The only file that knows libtorrent's alert types: alert -> plain object, told apart by `type`.
// src/native/alerts.ts describes them.
#pragma once

#include <napi.h>

#include <cstdint>
#include <libtorrent/alert.hpp>
#include <libtorrent/torrent_status.hpp>
#include <libtorrent/units.hpp>
#include <optional>
#include <vector>

#include "slice_id_plugin.h"
#include "torrent_table.h"
#include "written_elsewhere.h"

namespace llmpt {

/// A piece that peers brought a part of.
struct UnfinishedPiece {
  int piece;
  /// One bit per block that is on disk, most significant bit first.
  std::vector<std::uint8_t> blocks;
};
struct UnfinishedReport {
  std::uint32_t id;
  std::vector<UnfinishedPiece> pieces;
};

/// A copy of all that JavaScript wants of `alert`, or nothing when it does not want it. Keeps
/// `torrents` up to date on the way: torrents become present, learn their pieces, and end.
std::optional<Napi::Object> ToObject(Napi::Env env, lt::alert const& alert, TorrentTable& torrents);

/// Answers to requests that libtorrent 2.0.8 has no alert for.
Napi::Object StatusAlert(Napi::Env env, std::uint32_t id, lt::torrent_status const& status);
Napi::Object PieceCheckedAlert(Napi::Env env, std::uint32_t id, std::uint32_t request,
                               lt::piece_index_t piece, PieceCheck const& check);
Napi::Object AvailabilityAlert(Napi::Env env, std::uint32_t id, std::vector<int> const& counts);
Napi::Object UnfinishedAlert(Napi::Env env, UnfinishedReport const& report);
Napi::Object PeersAlert(Napi::Env env, std::uint32_t id, std::vector<PeerSight> const& peers);

}  // namespace llmpt
