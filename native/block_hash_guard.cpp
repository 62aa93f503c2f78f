#include "block_hash_guard.h"

#include <libtorrent/peer_connection.hpp>
#include <libtorrent/peer_connection_handle.hpp>
#include <libtorrent/torrent_peer.hpp>

#include <utility>

namespace llmpt {

class BlockHashGuard::Peer final : public lt::peer_plugin {
 public:
  Peer(std::shared_ptr<BlockHashGuard> guard, lt::peer_connection_handle connection)
      : guard_(std::move(guard)), connection_(std::move(connection)) {
    guard_->peers_.insert(this);
  }
  ~Peer() override { guard_->peers_.erase(this); }
  Peer(Peer const&) = delete;
  Peer& operator=(Peer const&) = delete;

  bool on_handshake(lt::span<char const>) override {
    has_greeted_ = true;
    if (guard_->has_failed_) Mute();
    return true;
  }

  // Which info hash a later connection to this peer begins with depends on the same bit.
  void on_disconnect(lt::error_code const&) override {
    lt::torrent_peer* const peer = is_muted_ ? Info() : nullptr;
    if (peer != nullptr) peer->protocol_v2 = true;
    is_muted_ = false;
  }

  // A failed piece costs everybody a share of whose blocks are in it, and libtorrent bans at seven
  // points: among many who send rubbish the one honest seed would be the first to go. Those who
  // send it are found out without: after a failure each is given whole pieces of its own.
  void on_piece_failed(lt::piece_index_t) override {
    lt::torrent_peer* const peer = Info();
    if (peer != nullptr) peer->trust_points = 0;
  }

  void Mute() {
    lt::torrent_peer* const peer = has_greeted_ ? Info() : nullptr;
    if (peer == nullptr || !peer->protocol_v2) return;
    peer->protocol_v2 = false;
    is_muted_ = true;
  }

 private:
  lt::torrent_peer* Info() const {
    auto const connection = connection_.native_handle();
    return connection ? connection->peer_info_struct() : nullptr;
  }

  std::shared_ptr<BlockHashGuard> const guard_;
  lt::peer_connection_handle const connection_;
  bool has_greeted_ = false;
  bool is_muted_ = false;
};

std::shared_ptr<lt::peer_plugin> BlockHashGuard::new_connection(
    lt::peer_connection_handle const& connection) {
  return std::make_shared<Peer>(shared_from_this(), connection);
}

void BlockHashGuard::on_piece_failed(lt::piece_index_t) {
  has_failed_ = true;
  MuteAll();
}

// Whoever names a peer again (a tracker, the caller) sets the bit again, also of one that is
// connected.
void BlockHashGuard::on_add_peer(lt::tcp::endpoint const&, lt::peer_source_flags_t,
                                 lt::add_peer_flags_t) {
  if (has_failed_) MuteAll();
}

void BlockHashGuard::MuteAll() {
  for (Peer* const peer : peers_) peer->Mute();
}

}  // namespace llmpt
