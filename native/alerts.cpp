#include "alerts.h"

#include <libtorrent/alert_types.hpp>
#include <libtorrent/bencode.hpp>
#include <libtorrent/operations.hpp>
#include <libtorrent/session_stats.hpp>
#include <libtorrent/torrent_info.hpp>
#include <libtorrent/write_resume_data.hpp>

#include "convert.h"
#include "errors.h"

namespace llmpt {

namespace {

Napi::Object NewAlert(Napi::Env env, char const* type) {
  auto object = Napi::Object::New(env);
  object.Set("type", type);
  return object;
}

char const* StateName(lt::torrent_status::state_t state) {
  switch (state) {
    case lt::torrent_status::checking_files:
      return "checking_files";
    case lt::torrent_status::downloading_metadata:
      return "downloading_metadata";
    case lt::torrent_status::downloading:
      return "downloading";
    case lt::torrent_status::finished:
      return "finished";
    case lt::torrent_status::seeding:
      return "seeding";
    default:
      return "checking_resume_data";
  }
}

// libtorrent has these names too, but does not export them.
char const* SocketTypeName(lt::socket_type_t type) {
  switch (type) {
    case lt::socket_type_t::tcp:
      return "tcp";
    case lt::socket_type_t::socks5:
      return "socks5";
    case lt::socket_type_t::http:
      return "http";
    case lt::socket_type_t::utp:
      return "utp";
    case lt::socket_type_t::i2p:
      return "i2p";
    case lt::socket_type_t::tcp_ssl:
      return "tcp_ssl";
    case lt::socket_type_t::utp_ssl:
      return "utp_ssl";
    default:
      return "other";
  }
}

Napi::Object StatusObject(Napi::Env env, std::uint32_t id, lt::torrent_status const& status) {
  auto object = Napi::Object::New(env);
  auto const set = [&](char const* name, auto value) { object.Set(name, value); };
  auto const count = [](std::int64_t number) { return static_cast<double>(number); };
  set("torrent", id);
  set("state", StateName(status.state));
  set("progress", status.progress_ppm / 1e6);
  set("hasMetadata", status.has_metadata);
  set("totalDone", count(status.total_done));
  set("totalWanted", count(status.total_wanted));
  set("totalWantedDone", count(status.total_wanted_done));
  set("payloadDownload", count(status.total_payload_download));
  set("payloadUpload", count(status.total_payload_upload));
  set("allTimeUpload", count(status.all_time_upload));
  set("allTimeDownload", count(status.all_time_download));
  set("failedBytes", count(status.total_failed_bytes));
  set("redundantBytes", count(status.total_redundant_bytes));
  set("downloadRate", status.download_payload_rate);
  set("uploadRate", status.upload_payload_rate);
  set("numPeers", status.num_peers);
  set("numSeeds", status.num_seeds);
  set("numConnections", status.num_connections);
  set("connectCandidates", status.connect_candidates);
  set("numPieces", status.num_pieces);
  set("isPaused", bool(status.flags & lt::torrent_flags::paused));
  set("isSeeding", status.is_seeding);
  set("isFinished", status.is_finished);
  if (status.errc) set("error", ToObject(env, status.errc));
  if (status.has_metadata) {
    auto const bytes = static_cast<std::size_t>((status.pieces.size() + 7) / 8);
    set("pieces", ToBytes(env, status.pieces.data(), bytes));
  }
  return object;
}

Napi::Object PeerObject(Napi::Env env, PeerSight const& peer) {
  auto object = Napi::Object::New(env);
  object.Set("host", peer.endpoint.address().to_string());
  object.Set("port", peer.endpoint.port());
  if (peer.slice_id) object.Set("sliceId", ToHex(*peer.slice_id));
  object.Set("isSeed", peer.is_seed);
  object.Set("numPieces", peer.num_pieces);
  object.Set("downloadBytes", static_cast<double>(peer.download_bytes));
  object.Set("downloadRate", peer.download_rate);
  object.Set("hashFailures", peer.hash_failures);
  object.Set("isChoking", peer.is_choking);
  object.Set("isInteresting", peer.is_interesting);
  return object;
}

/// Fills one kind of alert in. `object` already has `type`, and `torrent` where there is one.
/// One overload per alert type of the table below.
struct Converter {
  Napi::Env env;
  Napi::Object object;
  TorrentTable& torrents;

  void SetError(lt::error_code const& error) { object.Set("error", ToObject(env, error)); }
  void SetPeer(lt::peer_alert const& alert) {
    object.Set("host", alert.endpoint.address().to_string());
    object.Set("port", alert.endpoint.port());
  }
  void SetInfoHashes(lt::info_hash_t const& hashes) {
    if (hashes.has_v1()) object.Set("infoHashV1", ToHex(hashes.v1));
    if (hashes.has_v2()) object.Set("infoHashV2", ToHex(hashes.v2));
  }

  void operator()(lt::listen_succeeded_alert const& alert) {
    object.Set("host", alert.address.to_string());
    object.Set("port", alert.port);
    object.Set("socketType", SocketTypeName(alert.socket_type));
  }
  void operator()(lt::listen_failed_alert const& alert) {
    // What could not even be resolved has no address, only the name from the settings.
    std::string const interface = alert.listen_interface();
    bool const is_resolved = !alert.address.is_unspecified() || interface.empty();
    object.Set("host", ToText(env, is_resolved ? alert.address.to_string() : interface));
    object.Set("port", alert.port);
    object.Set("socketType", SocketTypeName(alert.socket_type));
    SetError(alert.error);
  }
  void operator()(lt::session_stats_alert const& alert) {
    auto counters = Napi::Object::New(env);
    auto const values = alert.counters();
    for (lt::stats_metric const& metric : lt::session_stats_metrics()) {
      counters.Set(metric.name, static_cast<double>(values[metric.value_index]));
    }
    object.Set("counters", counters);
  }
  void operator()(lt::state_update_alert const& alert) {
    auto statuses = Napi::Array::New(env);
    for (lt::torrent_status const& status : alert.status) {
      Napi::HandleScope const scope(env);
      if (auto const id = torrents.IdOf(status.handle)) {
        statuses[statuses.Length()] = StatusObject(env, *id, status);
      }
    }
    object.Set("statuses", statuses);
  }
  void operator()(lt::alerts_dropped_alert const& alert) {
    auto names = Napi::Array::New(env);
    for (int type = 0; type < lt::num_alert_types; ++type) {
      if (alert.dropped_alerts[static_cast<std::size_t>(type)]) {
        names[names.Length()] = Napi::String::New(env, lt::alert_name(type));
      }
    }
    object.Set("names", names);
  }
  void operator()(lt::add_torrent_alert const& alert) {
    std::uint32_t const id = FromUserData(alert.params.userdata);
    object.Set("torrent", id);
    if (TorrentEntry const* entry = torrents.Find(id)) object.Set("request", entry->request);
    if (alert.error) {
      SetError(alert.error);
      return torrents.Forget(id);
    }
    torrents.Present(id, alert.handle);
    SetInfoHashes(alert.params.ti ? alert.params.ti->info_hashes() : alert.params.info_hashes);
  }
  void operator()(lt::torrent_error_alert const& alert) {
    SetError(alert.error);
    object.Set("file", ToText(env, alert.filename()));
  }
  void operator()(lt::file_error_alert const& alert) {
    SetError(alert.error);
    object.Set("file", ToText(env, alert.filename()));
    object.Set("operation", lt::operation_name(alert.op));
  }
  void operator()(lt::metadata_received_alert const& alert) {
    auto const info = alert.handle.torrent_file();
    if (!info) return;
    if (auto const id = torrents.IdOf(alert.handle)) {
      torrents.Find(*id)->layout = std::make_shared<PieceLayout const>(*info);
    }
    auto const section = info->info_section();
    std::string const bytes = "d4:info" + std::string(section.data(), section.size()) + "e";
    object.Set("torrentFile", ToBytes(env, bytes.data(), bytes.size()));
  }
  void operator()(lt::metadata_failed_alert const& alert) { SetError(alert.error); }
  void operator()(lt::piece_finished_alert const& alert) {
    object.Set("piece", static_cast<int>(alert.piece_index));
  }
  void operator()(lt::hash_failed_alert const& alert) {
    object.Set("piece", static_cast<int>(alert.piece_index));
  }
  void operator()(lt::save_resume_data_alert const& alert) {
    std::vector<char> const bytes = lt::write_resume_data_buf(alert.params);
    object.Set("resumeData", ToBytes(env, bytes.data(), bytes.size()));
  }
  void operator()(lt::save_resume_data_failed_alert const& alert) { SetError(alert.error); }
  void operator()(lt::fastresume_rejected_alert const& alert) {
    SetError(alert.error);
    object.Set("file", ToText(env, alert.file_path()));
  }
  void operator()(lt::file_renamed_alert const& alert) {
    object.Set("file", static_cast<int>(alert.index));
    object.Set("path", ToText(env, alert.new_name()));
  }
  void operator()(lt::file_rename_failed_alert const& alert) {
    object.Set("file", static_cast<int>(alert.index));
    SetError(alert.error);
  }
  void operator()(lt::state_changed_alert const& alert) {
    object.Set("state", StateName(alert.state));
  }
  void operator()(lt::tracker_reply_alert const& alert) {
    object.Set("url", ToText(env, alert.tracker_url()));
    object.Set("peers", alert.num_peers);
  }
  void operator()(lt::tracker_error_alert const& alert) {
    object.Set("url", ToText(env, alert.tracker_url()));
    SetError(alert.error);
    object.Set("reason", ToText(env, alert.failure_reason()));
    object.Set("failures", alert.times_in_row);
  }
  void operator()(lt::peer_connect_alert const& alert) { SetPeer(alert); }
  void operator()(lt::peer_disconnected_alert const& alert) {
    SetPeer(alert);
    SetError(alert.error);
  }
  void operator()(lt::peer_ban_alert const& alert) { SetPeer(alert); }
  void operator()(lt::torrent_removed_alert const&) {}
  void operator()(lt::torrent_deleted_alert const&) {}
  void operator()(lt::torrent_delete_failed_alert const& alert) { SetError(alert.error); }
  void operator()(lt::torrent_checked_alert const&) {}
  void operator()(lt::torrent_finished_alert const&) {}
  void operator()(lt::torrent_paused_alert const&) {}
  void operator()(lt::torrent_resumed_alert const&) {}
};

/// A torrent that is gone, files included when that was asked, needs no number any more.
void ForgetEnded(lt::alert const& alert, std::uint32_t id, TorrentTable& torrents) {
  TorrentEntry* entry = torrents.Find(id);
  if (entry == nullptr) return;
  bool const removed = alert.type() == lt::torrent_removed_alert::alert_type;
  bool const deleted = alert.type() == lt::torrent_deleted_alert::alert_type ||
                       alert.type() == lt::torrent_delete_failed_alert::alert_type;
  if (removed) entry->life = TorrentEntry::Life::kLeaving;
  if (deleted || (removed && !entry->deletes_files)) torrents.Forget(id);
}

template <typename Alert>
std::optional<Napi::Object> Convert(Napi::Env env, lt::alert const& alert, char const* type,
                                    TorrentTable& torrents) {
  auto const& exact = static_cast<Alert const&>(alert);
  Converter convert{env, NewAlert(env, type), torrents};
  constexpr bool is_of_torrent =
      std::is_base_of_v<lt::torrent_alert, Alert> && !std::is_same_v<Alert, lt::add_torrent_alert>;
  std::optional<std::uint32_t> id;
  if constexpr (is_of_torrent) {
    id = torrents.IdOf(exact.handle);
    if (!id) return std::nullopt;
    convert.object.Set("torrent", *id);
  }
  convert(exact);
  if (id) ForgetEnded(alert, *id, torrents);
  return convert.object;
}

}  // namespace

std::optional<Napi::Object> ToObject(Napi::Env env, lt::alert const& alert,
                                     TorrentTable& torrents) {
  switch (alert.type()) {
#define LLMPT_ALERT(name)            \
  case lt::name##_alert::alert_type: \
    return Convert<lt::name##_alert>(env, alert, #name, torrents)
    LLMPT_ALERT(listen_succeeded);
    LLMPT_ALERT(listen_failed);
    LLMPT_ALERT(session_stats);
    LLMPT_ALERT(state_update);
    LLMPT_ALERT(alerts_dropped);
    LLMPT_ALERT(add_torrent);
    LLMPT_ALERT(torrent_removed);
    LLMPT_ALERT(torrent_deleted);
    LLMPT_ALERT(torrent_delete_failed);
    LLMPT_ALERT(torrent_checked);
    LLMPT_ALERT(torrent_finished);
    LLMPT_ALERT(torrent_paused);
    LLMPT_ALERT(torrent_resumed);
    LLMPT_ALERT(torrent_error);
    LLMPT_ALERT(file_error);
    LLMPT_ALERT(metadata_received);
    LLMPT_ALERT(metadata_failed);
    LLMPT_ALERT(piece_finished);
    LLMPT_ALERT(hash_failed);
    LLMPT_ALERT(save_resume_data);
    LLMPT_ALERT(save_resume_data_failed);
    LLMPT_ALERT(fastresume_rejected);
    LLMPT_ALERT(file_renamed);
    LLMPT_ALERT(file_rename_failed);
    LLMPT_ALERT(state_changed);
    LLMPT_ALERT(tracker_reply);
    LLMPT_ALERT(tracker_error);
    LLMPT_ALERT(peer_connect);
    LLMPT_ALERT(peer_disconnected);
    LLMPT_ALERT(peer_ban);
#undef LLMPT_ALERT
    default:
      return std::nullopt;
  }
}

Napi::Object StatusAlert(Napi::Env env, std::uint32_t id, lt::torrent_status const& status) {
  Napi::Object object = NewAlert(env, "torrent_status");
  object.Set("torrent", id);
  object.Set("status", StatusObject(env, id, status));
  return object;
}

Napi::Object PieceCheckedAlert(Napi::Env env, std::uint32_t id, std::uint32_t request,
                               lt::piece_index_t piece, PieceCheck const& check) {
  Napi::Object object = NewAlert(env, "piece_checked");
  object.Set("torrent", id);
  object.Set("request", request);
  object.Set("piece", static_cast<int>(piece));
  object.Set("hasPassed", check.has_passed);
  object.Set("wasThere", check.was_there);
  if (check.error) object.Set("error", ToObject(env, check.error));
  return object;
}

Napi::Object AvailabilityAlert(Napi::Env env, std::uint32_t id, std::vector<int> const& counts) {
  Napi::Object object = NewAlert(env, "piece_availability");
  auto availability = Napi::Uint32Array::New(env, counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    availability[i] = static_cast<std::uint32_t>(counts[i]);
  }
  object.Set("torrent", id);
  object.Set("availability", availability);
  return object;
}

Napi::Object UnfinishedAlert(Napi::Env env, UnfinishedReport const& report) {
  Napi::Object object = NewAlert(env, "unfinished_pieces");
  auto pieces = Napi::Array::New(env, report.pieces.size());
  for (std::size_t i = 0; i < report.pieces.size(); ++i) {
    UnfinishedPiece const& unfinished = report.pieces[i];
    auto entry = Napi::Object::New(env);
    entry.Set("piece", unfinished.piece);
    entry.Set("blocks", Napi::Buffer<std::uint8_t>::Copy(env, unfinished.blocks.data(),
                                                         unfinished.blocks.size()));
    pieces[static_cast<std::uint32_t>(i)] = entry;
  }
  object.Set("torrent", report.id);
  object.Set("pieces", pieces);
  return object;
}

Napi::Object PeersAlert(Napi::Env env, std::uint32_t id, std::vector<PeerSight> const& peers) {
  Napi::Object object = NewAlert(env, "peers");
  auto sights = Napi::Array::New(env, peers.size());
  for (std::uint32_t i = 0; i < peers.size(); ++i) {
    Napi::HandleScope const scope(env);
    sights[i] = PeerObject(env, peers[i]);
  }
  object.Set("torrent", id);
  object.Set("peers", sights);
  return object;
}

}  // namespace llmpt
