#include "slice_id_plugin.h"

#include <libtorrent/bdecode.hpp>
#include <libtorrent/entry.hpp>
#include <libtorrent/peer_connection_handle.hpp>
#include <libtorrent/peer_info.hpp>
#include <utility>

namespace llmpt {

namespace {

constexpr char const* kKey = "llmpt_slice";

}  // namespace

class SliceIdPlugin::Peer final : public lt::peer_plugin {
 public:
  Peer(std::shared_ptr<SliceIdPlugin> plugin, lt::peer_connection_handle connection)
      : plugin_(std::move(plugin)), connection_(std::move(connection)) {
    plugin_->peers_.insert(this);
  }
  ~Peer() override { plugin_->peers_.erase(this); }
  Peer(Peer const&) = delete;
  Peer& operator=(Peer const&) = delete;

  void add_handshake(lt::entry& handshake) override {
    if (plugin_->own_) handshake[kKey] = plugin_->own_->to_string();
  }

  // Returning false would end this object, and the connection would not be seen any more.
  bool on_extension_handshake(lt::bdecode_node const& handshake) override {
    if (handshake.type() != lt::bdecode_node::dict_t || id_) return true;
    auto const bytes = handshake.dict_find_string_value(kKey);
    if (bytes.size() == static_cast<std::size_t>(SliceId::size())) id_ = SliceId(bytes.data());
    return true;
  }

  std::optional<PeerSight> Sight() const {
    // Without it the handle's getters have no object to ask.
    auto const living = connection_.native_handle();
    if (!living || connection_.in_handshake() || connection_.is_disconnecting()) {
      return std::nullopt;
    }
    lt::peer_info info;
    connection_.get_peer_info(info);
    PeerSight sight;
    sight.endpoint = info.ip;
    sight.slice_id = id_;
    sight.is_seed = connection_.is_seed();
    sight.num_pieces = info.num_pieces;
    sight.download_bytes = info.total_download;
    sight.download_rate = info.payload_down_speed;
    sight.hash_failures = info.num_hashfails;
    sight.is_choking = bool(info.flags & lt::peer_info::remote_choked);
    sight.is_interesting = bool(info.flags & lt::peer_info::interesting);
    return sight;
  }

 private:
  std::shared_ptr<SliceIdPlugin> const plugin_;
  lt::peer_connection_handle const connection_;
  std::optional<SliceId> id_;
};

std::shared_ptr<lt::peer_plugin> SliceIdPlugin::new_connection(
    lt::peer_connection_handle const& connection) {
  return std::make_shared<Peer>(shared_from_this(), connection);
}

std::vector<PeerSight> SliceIdPlugin::Peers() const {
  std::vector<PeerSight> sights;
  for (Peer const* const peer : peers_) {
    if (auto sight = peer->Sight()) sights.push_back(std::move(*sight));
  }
  return sights;
}

}  // namespace llmpt
