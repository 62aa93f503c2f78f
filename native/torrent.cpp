#include "torrent.h"

#include <cerrno>
#include <cstring>
#include <libtorrent/extensions.hpp>
#include <libtorrent/torrent_status.hpp>
#include <utility>
#include <vector>

#include "add_torrent.h"
#include "binding_class.h"
#include "convert.h"

namespace llmpt {

Napi::Function Torrent::Define(Napi::Env env) {
  return DefineClass(
      env, "Torrent",
      {
          DescribeMethod<Torrent, &Torrent::PostStatus>("postStatus"),
          DescribeMethod<Torrent, &Torrent::PostPieceAvailability>("postPieceAvailability"),
          DescribeMethod<Torrent, &Torrent::PostUnfinishedPieces>("postUnfinishedPieces"),
          DescribeMethod<Torrent, &Torrent::PostPeers>("postPeers"),
          DescribeMethod<Torrent, &Torrent::SetPiecePriority>("setPiecePriority"),
          DescribeMethod<Torrent, &Torrent::SetPiecePriorities>("setPiecePriorities"),
          DescribeMethod<Torrent, &Torrent::AddPiece>("addPiece"),
          DescribeMethod<Torrent, &Torrent::AnnouncePiece>("announcePiece"),
          DescribeMethod<Torrent, &Torrent::SharePieces>("sharePieces"),
          DescribeMethod<Torrent, &Torrent::SetPieceDeadline>("setPieceDeadline"),
          DescribeMethod<Torrent, &Torrent::ClearPieceDeadlines>("clearPieceDeadlines"),
          DescribeMethod<Torrent, &Torrent::SaveResumeData>("saveResumeData"),
          DescribeMethod<Torrent, &Torrent::RenameFile>("renameFile"),
          DescribeMethod<Torrent, &Torrent::SetFlags>("setFlags"),
          DescribeMethod<Torrent, &Torrent::SetRateLimits>("setRateLimits"),
          DescribeMethod<Torrent, &Torrent::ConnectPeer>("connectPeer"),
          DescribeMethod<Torrent, &Torrent::ForceReannounce>("forceReannounce"),
          DescribeMethod<Torrent, &Torrent::ForceRecheck>("forceRecheck"),
      });
}

Torrent::Torrent(Napi::CallbackInfo const& info) : Napi::ObjectWrap<Torrent>(info) {
  if (info.Length() != 2 || !info[0].IsExternal()) {
    throw Napi::TypeError::New(info.Env(), "a Torrent comes from a Session");
  }
  auto const* seed = info[0].As<Napi::External<Seed>>().Data();
  core_ = seed->core;
  id_ = seed->id;
  session_ = Napi::Persistent(info[1].As<Napi::Object>());
  Napi::Object self = info.This().As<Napi::Object>();
  self.TypeTag(&kTag);
  self.DefineProperty(
      Napi::PropertyDescriptor::Value("id", Napi::Number::New(info.Env(), id_), napi_enumerable));
}

PieceLayout const& Torrent::Layout() const {
  TorrentEntry const& entry = Entry();
  if (!entry.layout) throw Failure("torrent", lt::errors::no_metadata);
  return *entry.layout;
}

lt::piece_index_t Torrent::RequirePiece(Napi::Value value) const {
  return lt::piece_index_t(RequireInt(value, "piece", 0, Layout().num_pieces - 1));
}

// libtorrent 2.0.8 has only getters that wait for its thread. A function given to add_extension()
// runs on that thread, where the same getters answer at once; it adds no extension.
template <typename Ask>
void Torrent::PostQuestion(Ask ask) const {
  lt::torrent_handle handle = Handle();
  handle.add_extension(
      [mailbox = core_->mailbox(), ask](lt::torrent_handle const& torrent, lt::client_data_t) {
        try {
          mailbox->Post(ask(torrent));
        } catch (lt::system_error const&) {
          // The torrent ended meanwhile; its removal answers whoever waits.
        }
        return std::shared_ptr<lt::torrent_plugin>();
      });
}

template <typename Act>
void Torrent::OnNetworkThread(char const* operation, Act act) const {
  if (!core_->elsewhere()) throw SystemFailure(operation, ENOTSUP);
  lt::torrent_handle handle = Handle();
  handle.add_extension(
      [elsewhere = core_->elsewhere(), act](lt::torrent_handle const& torrent, lt::client_data_t) {
        act(*elsewhere, torrent);
        return std::shared_ptr<lt::torrent_plugin>();
      });
}

Napi::Value Torrent::PostStatus(Napi::CallbackInfo const& info) {
  PostQuestion([id = id_](lt::torrent_handle const& torrent) {
    return StatusReport{id, torrent.status(lt::torrent_handle::query_pieces |
                                           lt::torrent_handle::query_accurate_download_counters)};
  });
  return info.Env().Undefined();
}

Napi::Value Torrent::PostPieceAvailability(Napi::CallbackInfo const& info) {
  PostQuestion([id = id_](lt::torrent_handle const& torrent) {
    AvailabilityReport report{id, {}};
    torrent.piece_availability(report.counts);
    return report;
  });
  return info.Env().Undefined();
}

Napi::Value Torrent::PostUnfinishedPieces(Napi::CallbackInfo const& info) {
  Layout();
  PostQuestion([id = id_, layout = Entry().layout](lt::torrent_handle const& torrent) {
    UnfinishedReport report{id, {}};
    for (lt::partial_piece_info const& piece : torrent.get_download_queue()) {
      UnfinishedPiece unfinished{static_cast<int>(piece.piece_index), {}};
      // libtorrent counts the padding of a v2 torrent's last piece too; nobody else does.
      int const blocks = layout->Blocks(unfinished.piece);
      unfinished.blocks.resize(static_cast<std::size_t>((blocks + 7) / 8));
      for (int block = 0; block < blocks; ++block) {
        if (piece.blocks[block].state != lt::block_info::finished) continue;
        unfinished.blocks[static_cast<std::size_t>(block / 8)] |=
            static_cast<std::uint8_t>(0x80 >> (block % 8));
      }
      report.pieces.push_back(std::move(unfinished));
    }
    return report;
  });
  return info.Env().Undefined();
}

Napi::Value Torrent::PostPeers(Napi::CallbackInfo const& info) {
  PostQuestion([id = id_, slices = Entry().slices](lt::torrent_handle const&) {
    return PeersReport{id, slices->Peers()};
  });
  return info.Env().Undefined();
}

Napi::Value Torrent::SetPiecePriority(Napi::CallbackInfo const& info) {
  lt::piece_index_t const piece = RequirePiece(info[0]);
  auto const priority = static_cast<std::uint8_t>(RequireInt(info[1], "priority", 0, 7));
  Handle().piece_priority(piece, lt::download_priority_t(priority));
  return info.Env().Undefined();
}

Napi::Value Torrent::SetPiecePriorities(Napi::CallbackInfo const& info) {
  auto const bytes = RequireBytes(info[0], "priorities");
  if (bytes.size() != Layout().num_pieces) {
    throw Napi::RangeError::New(info.Env(), "priorities must have one entry per piece");
  }
  std::vector<lt::download_priority_t> priorities;
  priorities.reserve(static_cast<std::size_t>(bytes.size()));
  for (char const byte : bytes) {
    auto const priority = static_cast<std::uint8_t>(byte);
    if (priority > 7) throw Napi::RangeError::New(info.Env(), "a priority must be at most 7");
    priorities.emplace_back(priority);
  }
  Handle().prioritize_pieces(priorities);
  return info.Env().Undefined();
}

// A v2-only torrent is laid out in whole pieces: libtorrent 2.0.8 silently ignores the last piece
// of a file unless it comes padded with zeros to the full piece length. The file gets its true
// length all the same.
Napi::Value Torrent::AddPiece(Napi::CallbackInfo const& info) {
  lt::piece_index_t const piece = RequirePiece(info[0]);
  auto const bytes = RequireBytes(info[1], "data");
  bool const overwrite = RequireBoolean(info[2], "overwrite");
  PieceLayout const& layout = Layout();
  int const expected = layout.FileBytes(static_cast<int>(piece));
  if (bytes.size() != expected) {
    throw Napi::RangeError::New(info.Env(), "piece " + std::to_string(static_cast<int>(piece)) +
                                                " has " + std::to_string(expected) +
                                                " bytes, not " + std::to_string(bytes.size()));
  }
  auto const padded = static_cast<std::size_t>(layout.PaddedBytes(static_cast<int>(piece)));
  std::vector<char> data;
  data.reserve(padded);
  data.assign(bytes.begin(), bytes.end());
  data.resize(padded);
  Handle().add_piece(piece, std::move(data),
                     overwrite ? lt::torrent_handle::overwrite_existing : lt::add_piece_flags_t{});
  return info.Env().Undefined();
}

Napi::Value Torrent::AnnouncePiece(Napi::CallbackInfo const& info) {
  lt::piece_index_t const piece = RequirePiece(info[0]);
  auto const request =
      static_cast<std::uint32_t>(RequireInteger(info[1], "request", 0, UINT32_MAX));
  int const padded = Layout().PaddedBytes(static_cast<int>(piece));
  auto const answer = [mailbox = core_->mailbox(), id = id_, piece,
                       request](PieceCheck const& check) {
    mailbox->Post(CheckReport{id, request, piece, check});
  };
  OnNetworkThread("announcePiece", [piece, padded, answer](WrittenElsewhere& elsewhere,
                                                           lt::torrent_handle const& torrent) {
    elsewhere.Announce(torrent, piece, padded, answer);
  });
  return info.Env().Undefined();
}

Napi::Value Torrent::SharePieces(Napi::CallbackInfo const& info) {
  int const count = Layout().num_pieces;
  lt::piece_index_t const end(RequireInt(info[1], "end", 0, count));
  lt::piece_index_t const first(RequireInt(info[0], "first", 0, static_cast<int>(end)));
  OnNetworkThread("sharePieces",
                  [first, end](WrittenElsewhere& elsewhere, lt::torrent_handle const& torrent) {
                    elsewhere.Share(torrent, first, end);
                  });
  return info.Env().Undefined();
}

Napi::Value Torrent::SetPieceDeadline(Napi::CallbackInfo const& info) {
  Handle().set_piece_deadline(RequirePiece(info[0]), RequireInt(info[1], "deadlineMs"));
  return info.Env().Undefined();
}

Napi::Value Torrent::ClearPieceDeadlines(Napi::CallbackInfo const& info) {
  Handle().clear_piece_deadlines();
  return info.Env().Undefined();
}

Napi::Value Torrent::SaveResumeData(Napi::CallbackInfo const& info) {
  Handle().save_resume_data(lt::torrent_handle::save_info_dict);
  return info.Env().Undefined();
}

Napi::Value Torrent::RenameFile(Napi::CallbackInfo const& info) {
  int const file = RequireInt(info[0], "file");
  Handle().rename_file(lt::file_index_t(file), RequireString(info[1], "path"));
  return info.Env().Undefined();
}

Napi::Value Torrent::SetFlags(Napi::CallbackInfo const& info) {
  auto const [flags, mask] = ToFlags(info[0]);
  Handle().set_flags(flags, mask);
  return info.Env().Undefined();
}

Napi::Value Torrent::SetRateLimits(Napi::CallbackInfo const& info) {
  lt::torrent_handle const& handle = Handle();
  int const download = RequireInt(info[0], "downloadBytesPerSecond");
  int const upload = RequireInt(info[1], "uploadBytesPerSecond");
  handle.set_download_limit(download);
  handle.set_upload_limit(upload);
  return info.Env().Undefined();
}

Napi::Value Torrent::ConnectPeer(Napi::CallbackInfo const& info) {
  Handle().connect_peer(ToEndpoint(info[0], info[1]));
  return info.Env().Undefined();
}

Napi::Value Torrent::ForceReannounce(Napi::CallbackInfo const& info) {
  Handle().force_reannounce();
  return info.Env().Undefined();
}

Napi::Value Torrent::ForceRecheck(Napi::CallbackInfo const& info) {
  Handle().force_recheck();
  return info.Env().Undefined();
}

}  // namespace llmpt
