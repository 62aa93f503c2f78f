// One libtorrent session behind a JavaScript object.
//
// Life: open from construction; `close()`, garbage collection and the end of the environment each
// take the lt::session out of its core, which is then closed for good, and destroy it where waiting
// is allowed. Only the JavaScript thread touches a core; libtorrent's has its mailbox.
#pragma once

#include <napi.h>

#include <cstdint>
#include <libtorrent/ip_filter.hpp>
#include <libtorrent/session.hpp>
#include <libtorrent/torrent_status.hpp>
#include <libtorrent/units.hpp>
#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "alerts.h"
#include "disk_io.h"
#include "environment.h"
#include "slice_id_plugin.h"
#include "torrent_table.h"

namespace llmpt {

struct StatusReport {
  std::uint32_t id;
  lt::torrent_status status;
};
struct AvailabilityReport {
  std::uint32_t id;
  std::vector<int> counts;
};
struct PeersReport {
  std::uint32_t id;
  std::vector<PeerSight> peers;
};
/// What became of an announce.
struct CheckReport {
  std::uint32_t id;
  std::uint32_t request;
  lt::piece_index_t piece;
  PieceCheck check;
};
using Report =
    std::variant<StatusReport, AvailabilityReport, CheckReport, PeersReport, UnfinishedReport>;

class SessionCore;

/// Where libtorrent's thread leaves reports for the JavaScript thread. Apart from the core, which
/// libtorrent's thread must never own: as the last owner it would join itself.
class Mailbox {
 public:
  Mailbox(std::shared_ptr<JsThread> js, std::weak_ptr<SessionCore> core)
      : js_(std::move(js)), core_(std::move(core)) {}

  void Post(Report report);
  std::vector<Report> Empty();

 private:
  std::shared_ptr<JsThread> js_;
  std::weak_ptr<SessionCore> core_;
  std::mutex mutex_;
  std::vector<Report> reports_;
};

/// Owns the lt::session. Shared by its `Session` and the `Torrent`s.
class SessionCore : public std::enable_shared_from_this<SessionCore> {
 public:
  /// `elsewhere` is null for libtorrent's posix disk backend.
  SessionCore(std::shared_ptr<Environment> environment, lt::settings_pack settings,
              Napi::Function on_alerts, std::shared_ptr<WrittenElsewhere> elsewhere);
  ~SessionCore();

  /// Begins to deliver alerts.
  void Start();
  /// @throws Failure when the session was closed.
  lt::session& session() const;
  /// Ends all deliveries. What comes back must be destroyed where waiting is allowed; null when
  /// the session was closed before.
  std::unique_ptr<lt::session> TakeSession();

  /// @throws Failure when the torrent is not in the session.
  TorrentEntry& RequirePresent(std::uint32_t id);

  std::shared_ptr<Mailbox> const& mailbox() const { return mailbox_; }
  /// Null unless the disk backend is ours.
  std::shared_ptr<WrittenElsewhere> const& elsewhere() const { return elsewhere_; }
  /// One call of `onAlerts` with all there is.
  void Deliver(Napi::Env env);

  TorrentTable torrents;
  lt::ip_filter bans;

 private:
  std::shared_ptr<Environment> environment_;
  std::shared_ptr<WrittenElsewhere> elsewhere_;
  std::unique_ptr<lt::session> session_;
  Napi::FunctionReference on_alerts_;
  std::shared_ptr<Mailbox> mailbox_;
};

/// Owns a `SessionCore`; collected while open, it closes in the background.
class Session : public Napi::ObjectWrap<Session> {
 public:
  static constexpr napi_type_tag kTag = {0x3f0c8d53a6f94b1eULL, 0x9d2b7e11c05a48f6ULL};

  static Napi::Function Define(Napi::Env env);
  explicit Session(Napi::CallbackInfo const& info);  // (settings, onAlerts, options)
  ~Session() override;

  Napi::Value ApplySettings(Napi::CallbackInfo const& info);
  Napi::Value AddTorrent(Napi::CallbackInfo const& info);
  Napi::Value GetTorrent(Napi::CallbackInfo const& info);
  Napi::Value RemoveTorrent(Napi::CallbackInfo const& info);
  Napi::Value PostTorrentUpdates(Napi::CallbackInfo const& info);
  Napi::Value PostSessionStats(Napi::CallbackInfo const& info);
  Napi::Value ExemptLocalPeers(Napi::CallbackInfo const& info);
  Napi::Value BanPeer(Napi::CallbackInfo const& info);
  Napi::Value Close(Napi::CallbackInfo const& info);

 private:
  std::shared_ptr<Environment> environment_;
  std::shared_ptr<SessionCore> core_;
  /// What every call of `close()` returns, once there was one.
  Napi::Reference<Napi::Promise> closing_;
};

}  // namespace llmpt
