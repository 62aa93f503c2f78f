#include "session.h"

#include <libtorrent/alert.hpp>
#include <libtorrent/posix_disk_io.hpp>
#include <libtorrent/session_params.hpp>
#include <libtorrent/torrent_flags.hpp>
#include <libtorrent/torrent_info.hpp>
#include <utility>

#include "add_torrent.h"
#include "alerts.h"
#include "binding_class.h"
#include "convert.h"
#include "settings.h"
#include "torrent.h"

namespace llmpt {

namespace {

// libtorrent's default disk backend takes the process's SIGSEGV and SIGBUS handlers for itself,
// without chaining: WebAssembly's out-of-bounds traps would then kill Node instead of throwing.
lt::session_params ToParams(lt::settings_pack settings,
                            std::shared_ptr<WrittenElsewhere> const& elsewhere) {
  lt::session_params params(std::move(settings));
  params.disk_io_constructor =
      elsewhere ? DiskIoConstructor(elsewhere) : lt::posix_disk_io_constructor;
  return params;
}

/// Null for libtorrent's posix disk backend.
std::shared_ptr<WrittenElsewhere> ToElsewhere(Napi::Value options) {
  std::string backend = "own";
  if (!options.IsUndefined()) {
    auto const given = Optional(RequireObject(options, "options"), "diskBackend");
    if (given) backend = RequireString(*given, "diskBackend");
  }
  if (backend == "own") return std::make_shared<WrittenElsewhere>();
  if (backend == "posix") return nullptr;
  throw Napi::TypeError::New(options.Env(), "diskBackend must be 'own' or 'posix'");
}

void AddClass(lt::ip_filter& filter, char const* first, char const* last, lt::peer_class_t id) {
  filter.add_rule(lt::make_address(first), lt::make_address(last),
                  1U << static_cast<std::uint32_t>(id));
}

// libtorrent's own table; only what counts as local can be left out of it.
lt::ip_filter PeerClasses(bool exempt_local) {
  auto const everyone = lt::session_handle::global_peer_class_id;
  auto const local = exempt_local ? lt::session_handle::local_peer_class_id : everyone;
  lt::ip_filter filter;
  AddClass(filter, "0.0.0.0", "255.255.255.255", everyone);
  AddClass(filter, "10.0.0.0", "10.255.255.255", local);
  AddClass(filter, "172.16.0.0", "172.31.255.255", local);
  AddClass(filter, "192.168.0.0", "192.168.255.255", local);
  AddClass(filter, "169.254.0.0", "169.254.255.255", local);
  AddClass(filter, "127.0.0.0", "127.255.255.255", local);
  AddClass(filter, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", everyone);
  AddClass(filter, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", local);
  AddClass(filter, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", local);
  AddClass(filter, "::1", "::1", local);
  return filter;
}

// The destructor tells trackers and joins threads, which can take seconds.
std::function<void()> Destruction(std::unique_ptr<lt::session> session) {
  return [doomed = std::shared_ptr<lt::session>(std::move(session))]() mutable { doomed.reset(); };
}

Napi::Object ToObject(Napi::Env env, Report const& report) {
  if (auto const* status = std::get_if<StatusReport>(&report)) {
    return StatusAlert(env, status->id, status->status);
  }
  if (auto const* checked = std::get_if<CheckReport>(&report)) {
    return PieceCheckedAlert(env, checked->id, checked->request, checked->piece, checked->check);
  }
  if (auto const* unfinished = std::get_if<UnfinishedReport>(&report)) {
    return UnfinishedAlert(env, *unfinished);
  }
  if (auto const* availability = std::get_if<AvailabilityReport>(&report)) {
    return AvailabilityAlert(env, availability->id, availability->counts);
  }
  auto const& seen = std::get<PeersReport>(report);
  return PeersAlert(env, seen.id, seen.peers);
}

std::uint32_t IdOf(Report const& report) {
  return std::visit([](auto const& one) { return one.id; }, report);
}

}  // namespace

void Mailbox::Post(Report report) {
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    reports_.push_back(std::move(report));
    if (reports_.size() > 1) return;
  }
  js_->Post([core = core_](Napi::Env env) {
    if (auto const living = core.lock()) living->Deliver(env);
  });
}

std::vector<Report> Mailbox::Empty() {
  std::lock_guard<std::mutex> const lock(mutex_);
  return std::exchange(reports_, {});
}

SessionCore::SessionCore(std::shared_ptr<Environment> environment, lt::settings_pack settings,
                         Napi::Function on_alerts, std::shared_ptr<WrittenElsewhere> elsewhere)
    : environment_(std::move(environment)),
      elsewhere_(std::move(elsewhere)),
      session_(std::make_unique<lt::session>(ToParams(std::move(settings), elsewhere_))),
      on_alerts_(Napi::Persistent(on_alerts)) {
  environment_->sessions.insert(this);
}

SessionCore::~SessionCore() { environment_->sessions.erase(this); }

// libtorrent calls the notification once per non-empty transition of its queue, on a thread of its
// own and with the queue locked: nothing may happen there but a message.
void SessionCore::Start() {
  mailbox_ = std::make_shared<Mailbox>(environment_->js, weak_from_this());
  session_->set_alert_notify([weak = weak_from_this(), js = environment_->js] {
    js->Post([weak](Napi::Env env) {
      if (auto const core = weak.lock()) core->Deliver(env);
    });
  });
}

lt::session& SessionCore::session() const {
  if (!session_) throw Failure("session", lt::errors::session_is_closing);
  return *session_;
}

std::unique_ptr<lt::session> SessionCore::TakeSession() {
  if (!session_) return nullptr;
  environment_->sessions.erase(this);
  session_->set_alert_notify({});
  on_alerts_.Reset();
  return std::move(session_);
}

TorrentEntry& SessionCore::RequirePresent(std::uint32_t id) {
  session();
  TorrentEntry* entry = torrents.Find(id);
  if (entry == nullptr || entry->life != TorrentEntry::Life::kPresent) {
    throw Failure("torrent", lt::errors::invalid_torrent_handle);
  }
  return *entry;
}

// The session owns the alerts and frees them at the next pop_alerts(), so everything JavaScript may
// keep is copied here, in one crossing. Reports are taken first and given last: no report overtakes
// an alert from before it.
void SessionCore::Deliver(Napi::Env env) {
  if (!session_) return;
  std::vector<Report> const reports = mailbox_->Empty();
  std::vector<lt::alert*> alerts;
  session_->pop_alerts(&alerts);

  auto batch = Napi::Array::New(env);
  std::uint32_t length = 0;
  for (lt::alert const* alert : alerts) {
    Napi::HandleScope const scope(env);
    if (auto const object = llmpt::ToObject(env, *alert, torrents)) batch[length++] = *object;
  }
  for (Report const& report : reports) {
    Napi::HandleScope const scope(env);
    if (torrents.Find(IdOf(report)) != nullptr) batch[length++] = ToObject(env, report);
  }
  if (length > 0) on_alerts_.Call({batch});
}

Napi::Function Session::Define(Napi::Env env) {
  return DefineClass(
      env, "Session",
      {
          DescribeMethod<Session, &Session::ApplySettings>("applySettings"),
          DescribeMethod<Session, &Session::AddTorrent>("addTorrent"),
          DescribeMethod<Session, &Session::GetTorrent>("torrent"),
          DescribeMethod<Session, &Session::RemoveTorrent>("removeTorrent"),
          DescribeMethod<Session, &Session::PostTorrentUpdates>("postTorrentUpdates"),
          DescribeMethod<Session, &Session::PostSessionStats>("postSessionStats"),
          DescribeMethod<Session, &Session::ExemptLocalPeers>("exemptLocalPeers"),
          DescribeMethod<Session, &Session::BanPeer>("banPeer"),
          DescribeMethod<Session, &Session::Close>("close"),
      });
}

Session::Session(Napi::CallbackInfo const& info)
    : Napi::ObjectWrap<Session>(info), environment_(Environment::Of(info.Env())) {
  Guarded(info.Env(), "Session", [&] {
    lt::settings_pack settings = ToSettings(info[0]);
    Napi::Function const on_alerts = RequireFunction(info[1], "onAlerts");
    core_ = std::make_shared<SessionCore>(environment_, std::move(settings), on_alerts,
                                          ToElsewhere(info[2]));
  });
  info.This().As<Napi::Object>().TypeTag(&kTag);
  core_->Start();
}

Session::~Session() {
  if (!core_) return;
  auto session = core_->TakeSession();
  if (!session) return;
  environment_->workers->Start({Destruction(std::move(session)), {}, {}, false});
}

Napi::Value Session::ApplySettings(Napi::CallbackInfo const& info) {
  lt::session& session = core_->session();
  session.apply_settings(ToSettings(info[0]));
  return info.Env().Undefined();
}

Napi::Value Session::AddTorrent(Napi::CallbackInfo const& info) {
  lt::session& session = core_->session();
  auto [params, slices] = ToNewTorrent(info[0], info[1]);
  auto const request =
      static_cast<std::uint32_t>(RequireInteger(info[2], "request", 0, UINT32_MAX));
  std::shared_ptr<PieceLayout const> layout;
  if (params.ti) layout = std::make_shared<PieceLayout const>(*params.ti);
  // Only the flags decide, not what resume data says.
  bool const is_read_only = core_->elsewhere() && (params.flags & lt::torrent_flags::seed_mode);
  params.storage_mode = is_read_only ? kReadOnly : lt::storage_mode_sparse;
  params.userdata =
      ToUserData(core_->torrents.Announce(request, std::move(layout), std::move(slices)));
  session.async_add_torrent(std::move(params));
  return info.Env().Undefined();
}

Napi::Value Session::GetTorrent(Napi::CallbackInfo const& info) {
  core_->session();
  auto const id = static_cast<std::uint32_t>(RequireInteger(info[0], "id", 0, UINT32_MAX));
  TorrentEntry const* entry = core_->torrents.Find(id);
  if (entry == nullptr || entry->life != TorrentEntry::Life::kPresent) {
    return info.Env().Undefined();
  }
  Torrent::Seed seed{core_, id};
  return environment_->torrent_class.New(
      {Napi::External<Torrent::Seed>::New(info.Env(), &seed), info.This()});
}

Napi::Value Session::RemoveTorrent(Napi::CallbackInfo const& info) {
  auto const id = static_cast<std::uint32_t>(RequireInteger(info[0], "id", 0, UINT32_MAX));
  bool const deletes_files = RequireBoolean(info[1], "deleteFiles");
  TorrentEntry& entry = core_->RequirePresent(id);
  core_->session().remove_torrent(
      entry.handle, deletes_files ? lt::session_handle::delete_files : lt::remove_flags_t{});
  entry.life = TorrentEntry::Life::kLeaving;
  entry.deletes_files = deletes_files;
  return info.Env().Undefined();
}

Napi::Value Session::PostTorrentUpdates(Napi::CallbackInfo const& info) {
  core_->session().post_torrent_updates(lt::torrent_handle::query_pieces |
                                        lt::torrent_handle::query_accurate_download_counters);
  return info.Env().Undefined();
}

Napi::Value Session::PostSessionStats(Napi::CallbackInfo const& info) {
  core_->session().post_session_stats();
  return info.Env().Undefined();
}

Napi::Value Session::ExemptLocalPeers(Napi::CallbackInfo const& info) {
  core_->session().set_peer_class_filter(PeerClasses(RequireBoolean(info[0], "exempt")));
  return info.Env().Undefined();
}

Napi::Value Session::BanPeer(Napi::CallbackInfo const& info) {
  lt::session& session = core_->session();
  lt::address const address = ToAddress(info[0]);
  core_->bans.add_rule(address, address, lt::ip_filter::blocked);
  session.set_ip_filter(core_->bans);
  return info.Env().Undefined();
}

Napi::Value Session::Close(Napi::CallbackInfo const& info) {
  if (!closing_.IsEmpty()) return closing_.Value();
  auto const deferred = Napi::Promise::Deferred::New(info.Env());
  closing_ = Napi::Persistent(deferred.Promise());
  environment_->workers->Start({
      Destruction(core_->TakeSession()),
      [deferred](Napi::Env env) { deferred.Resolve(env.Undefined()); },
      {},
  });
  return deferred.Promise();
}

}  // namespace llmpt
