// What JavaScript holds for one torrent.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "session.h"

namespace llmpt {

/// Owns nothing: the torrent may be removed, and its session closed, at any time, and every call
/// then throws. Keeps its `Session` wrapper, hence the lt::session, alive.
class Torrent : public Napi::ObjectWrap<Torrent> {
 public:
  static constexpr napi_type_tag kTag = {0xb81f6a0c2d9e4735ULL, 0x64c3901ef7ab52d8ULL};

  /// What only `Session` can give to the constructor.
  struct Seed {
    std::shared_ptr<SessionCore> core;
    std::uint32_t id;
  };

  static Napi::Function Define(Napi::Env env);
  explicit Torrent(Napi::CallbackInfo const& info);

  Napi::Value PostStatus(Napi::CallbackInfo const& info);
  Napi::Value PostPieceAvailability(Napi::CallbackInfo const& info);
  Napi::Value PostUnfinishedPieces(Napi::CallbackInfo const& info);
  Napi::Value PostPeers(Napi::CallbackInfo const& info);
  Napi::Value SetPiecePriority(Napi::CallbackInfo const& info);
  Napi::Value SetPiecePriorities(Napi::CallbackInfo const& info);
  Napi::Value AddPiece(Napi::CallbackInfo const& info);
  Napi::Value AnnouncePiece(Napi::CallbackInfo const& info);
  Napi::Value SharePieces(Napi::CallbackInfo const& info);
  Napi::Value SetPieceDeadline(Napi::CallbackInfo const& info);
  Napi::Value ClearPieceDeadlines(Napi::CallbackInfo const& info);
  Napi::Value SaveResumeData(Napi::CallbackInfo const& info);
  Napi::Value RenameFile(Napi::CallbackInfo const& info);
  Napi::Value SetFlags(Napi::CallbackInfo const& info);
  Napi::Value SetRateLimits(Napi::CallbackInfo const& info);
  Napi::Value ConnectPeer(Napi::CallbackInfo const& info);
  Napi::Value ForceReannounce(Napi::CallbackInfo const& info);
  Napi::Value ForceRecheck(Napi::CallbackInfo const& info);

 private:
  /// @throws Failure when the torrent is gone.
  TorrentEntry const& Entry() const { return core_->RequirePresent(id_); }
  lt::torrent_handle const& Handle() const { return Entry().handle; }
  /// @throws Failure before the metadata is known.
  PieceLayout const& Layout() const;
  lt::piece_index_t RequirePiece(Napi::Value value) const;
  /// Runs `ask` on libtorrent's thread, where a getter of the torrent does not wait.
  template <typename Ask>
  void PostQuestion(Ask ask) const;
  /// Runs `act` there with what the disk backend knows of other writers.
  /// @throws Failure when the backend is not ours.
  template <typename Act>
  void OnNetworkThread(char const* operation, Act act) const;

  std::shared_ptr<SessionCore> core_;
  std::uint32_t id_ = 0;
  Napi::ObjectReference session_;
};

}  // namespace llmpt
