// Plain object -> lt::add_torrent_params. Torrents come from strangers: of what is outside the
// info dictionary only the trackers survive, and those only when the caller brings none.
#pragma once

#include <napi.h>

#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/address.hpp>
#include <libtorrent/socket.hpp>
#include <libtorrent/torrent_flags.hpp>
#include <memory>
#include <utility>

#include "slice_id_plugin.h"

namespace llmpt {

struct NewTorrent {
  lt::add_torrent_params params;
  /// Attached by `params`, and the way to ask for the torrent's peers.
  std::shared_ptr<SliceIdPlugin const> slices;
};

/// @throws Failure when the torrent, magnet link or resume data is not one.
NewTorrent ToNewTorrent(Napi::Value params, Napi::Value limits);

/// The flags that are to be set, and the mask of those that were mentioned.
std::pair<lt::torrent_flags_t, lt::torrent_flags_t> ToFlags(Napi::Value value);

/// @throws TypeError when `host` is not an IP address.
lt::tcp::endpoint ToEndpoint(Napi::Value host, Napi::Value port);
lt::address ToAddress(Napi::Value host);

}  // namespace llmpt
