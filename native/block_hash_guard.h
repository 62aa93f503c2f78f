// Keeps failed pieces from hurting more than those who sent them.
#pragma once

#include <libtorrent/extensions.hpp>

#include <memory>
#include <set>

namespace llmpt {

/// When a piece of a v2 torrent fails its hash, libtorrent asks its v2 peers for the hashes of the
/// blocks, to find out who lied. A peer that answers "hash reject" - and honest seeds do, they have
/// no block hashes at hand - makes libtorrent write past the end of a vector
/// (https://github.com/arvidn/libtorrent/pull/8630): one peer that sends rubbish could end the
/// process. So from the first failed piece of a torrent on, none of its peers counts as one that
/// speaks v2's hash messages: nothing is asked, and a reject nobody asked for closes its
/// connection. Piece hashes come with the torrent, so pieces are checked as before. A piece that
/// only somebody else wrote (written_elsewhere.h) is nobody's failure, and does not come here.
///
/// Nor is anybody banned for pieces to which others contributed too.
///
/// Owned by its torrent. All of it runs on libtorrent's thread.
class BlockHashGuard final : public lt::torrent_plugin,
                             public std::enable_shared_from_this<BlockHashGuard> {
 public:
  std::shared_ptr<lt::peer_plugin> new_connection(
      lt::peer_connection_handle const& connection) override;
  void on_piece_failed(lt::piece_index_t piece) override;
  void on_add_peer(lt::tcp::endpoint const& peer, lt::peer_source_flags_t source,
                   lt::add_peer_flags_t flags) override;

 private:
  class Peer;
  void MuteAll();

  bool has_failed_ = false;
  std::set<Peer*> peers_;
};

}  // namespace llmpt
