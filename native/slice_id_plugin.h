// Tells the peers of a torrent our slice id and learns theirs.
#pragma once

#include <cstdint>
#include <libtorrent/extensions.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/socket.hpp>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace llmpt {

/// 8 random bytes that stand for one client in one torrent.
using SliceId = lt::digest32<64>;

/// One connection, as it was when it was asked about. Bytes are payload.
struct PeerSight {
  lt::tcp::endpoint endpoint;
  std::optional<SliceId> slice_id;
  bool is_seed;
  int num_pieces;
  std::int64_t download_bytes;
  int download_rate;
  int hash_failures;
  bool is_choking;
  bool is_interesting;
};

/// Adds a torrent's slice id to the extension handshake (BEP 10, top level, key "llmpt_slice", the
/// 8 bytes as they are) and remembers what each peer says there. Whatever a peer sends that is not
/// exactly that counts as nothing. The first id of a connection stays: a peer that says another one
/// later would have everybody divide the pieces anew each time.
///
/// Owned by its torrent; JavaScript's side may keep it longer. Apart from construction and
/// destruction all of it runs on libtorrent's thread.
class SliceIdPlugin final : public lt::torrent_plugin,
                            public std::enable_shared_from_this<SliceIdPlugin> {
 public:
  /// Without an id of its own it only listens.
  explicit SliceIdPlugin(std::optional<SliceId> own) : own_(own) {}

  std::shared_ptr<lt::peer_plugin> new_connection(
      lt::peer_connection_handle const& connection) override;

  /// The connections that are past their handshake and not about to end. The extension handshake
  /// comes after that: the id of a new connection may be missing for a moment.
  std::vector<PeerSight> Peers() const;

 private:
  class Peer;

  std::optional<SliceId> const own_;
  std::set<Peer*> peers_;
};

}  // namespace llmpt
