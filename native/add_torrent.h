// Plain object -> lt::add_torrent_params. Torrents come from strangers: of what is outside the
// info dictionary only the trackers survive, and those only when the caller brings none.
#pragma once

#include <napi.h>

#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/address.hpp>
#include <libtorrent/socket.hpp>
#include <libtorrent/torrent_flags.hpp>
#include <utility>

namespace llmpt {

/// @throws Failure when the torrent, magnet link or resume data is not one.
lt::add_torrent_params ToAddTorrentParams(Napi::Value params, Napi::Value limits);

/// The flags that are to be set, and the mask of those that were mentioned.
std::pair<lt::torrent_flags_t, lt::torrent_flags_t> ToFlags(Napi::Value value);

/// @throws TypeError when `host` is not an IP address.
lt::tcp::endpoint ToEndpoint(Napi::Value host, Napi::Value port);
lt::address ToAddress(Napi::Value host);

}  // namespace llmpt
