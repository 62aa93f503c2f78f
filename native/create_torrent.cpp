#include "create_torrent.h"

#include <iterator>
#include <libtorrent/bencode.hpp>
#include <libtorrent/create_torrent.hpp>
#include <libtorrent/entry.hpp>
#include <libtorrent/file_storage.hpp>
#include <libtorrent/hasher.hpp>
#include <string>
#include <utility>
#include <vector>

#include "input_file.h"
#include "job.h"
#include "piece_grid.h"

namespace llmpt {

namespace {

constexpr std::int64_t kMaxPieceBytes = 128 << 20;

struct Options {
  std::string path;
  TorrentFacts facts;
  bool sha256 = false;
  bool git_sha1 = false;
  int threads = 1;
  bool in_background = false;
};

struct Created {
  TorrentFile torrent;
  FileHashes hashes;
  int piece_length;
  std::int64_t size;
  std::int64_t read_bytes;
};

lt::create_flags_t FormatFlags(TorrentFacts const& facts) {
  if (!facts.v1) return lt::create_torrent::v2_only;
  if (!facts.v2) return lt::create_torrent::v1_only;
  return {};
}

lt::entry ToEntry(TorrentFacts const& facts, std::int64_t size, TorrentHashes const& hashes) {
  lt::file_storage files;
  files.add_file(facts.name, size);
  lt::create_torrent torrent(files, facts.piece_length, FormatFlags(facts));
  // libtorrent would put the present time in.
  torrent.set_creation_date(0);
  if (!facts.created_by.empty()) torrent.set_creator(facts.created_by.c_str());
  if (!facts.comment.empty()) torrent.set_comment(facts.comment.c_str());
  for (std::size_t i = 0; i < facts.trackers.size(); ++i) {
    torrent.add_tracker(facts.trackers[i], static_cast<int>(i));
  }
  for (std::size_t i = 0; i < hashes.v1.size(); ++i) {
    torrent.set_hash(lt::piece_index_t(static_cast<int>(i)), hashes.v1[i]);
  }
  for (std::size_t i = 0; i < hashes.v2.size(); ++i) {
    torrent.set_hash2(lt::file_index_t(0), lt::piece_index_t::diff_type(static_cast<int>(i)),
                      hashes.v2[i]);
  }
  return torrent.generate();
}

Created Create(Options const& options, JobControl& control, ThreadBudget& budget) {
  InputFile const file("createTorrent", options.path);
  std::int64_t const size = file.size();
  if (size == 0) throw Failure("createTorrent", lt::errors::torrent_invalid_length, options.path);
  TorrentFacts const& facts = options.facts;
  RequirePieceCount("createTorrent", size, facts.piece_length);
  PieceGrid const grid{size, facts.piece_length};
  auto const report = [&](std::int64_t bytes) {
    control.Report(bytes == size ? grid.pieces() : bytes / grid.piece_bytes, grid.pieces());
  };
  WantedHashes const wanted{facts.v1, facts.v2, facts.piece_length, options.sha256,
                            options.git_sha1};
  FileHashes hashes = HashFileOnce(file, wanted, {control, budget, options.threads, report});
  TorrentFile torrent = MakeTorrentFile(facts, size, hashes.pieces);
  return {std::move(torrent), std::move(hashes), facts.piece_length, size, file.read_bytes()};
}

Napi::Value ToValue(Napi::Env env, Created const& created) {
  auto object = Napi::Object::New(env);
  TorrentFile const& torrent = created.torrent;
  object.Set("torrentFile", ToBytes(env, torrent.bytes.data(), torrent.bytes.size()));
  if (!torrent.info_hash_v1.empty()) object.Set("infoHashV1", torrent.info_hash_v1);
  if (!torrent.info_hash_v2.empty()) object.Set("infoHashV2", torrent.info_hash_v2);
  object.Set("pieceLength", created.piece_length);
  object.Set("sizeBytes", static_cast<double>(created.size));
  SetDigests(object, created.hashes);
  object.Set("readBytes", static_cast<double>(created.read_bytes));
  return object;
}

std::string RequireName(Napi::Value value) {
  std::string name = RequireString(value, "name");
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    throw Napi::TypeError::New(value.Env(), "name must be a plain file name");
  }
  return name;
}

int RequirePieceLength(Napi::Value value, bool v2) {
  int const length = RequireInt(value, "pieceLength", kBlockBytes, kMaxPieceBytes);
  bool const fits = v2 ? (length & (length - 1)) == 0 : length % kBlockBytes == 0;
  if (fits) return length;
  throw Napi::RangeError::New(value.Env(), v2 ? "pieceLength must be a power of two"
                                              : "pieceLength must be a multiple of 16 KiB");
}

bool IsSet(Napi::Object object, char const* name) {
  auto const flag = Optional(object, name);
  return flag && RequireBoolean(*flag, name);
}

Options ToOptions(Napi::Value value) {
  Napi::Object const object = RequireObject(value, "options");
  std::string const format = RequireString(object.Get("format"), "format");
  if (format != "v1" && format != "v2" && format != "hybrid") {
    throw Napi::TypeError::New(value.Env(), "format must be \"v1\", \"v2\" or \"hybrid\"");
  }
  Options options;
  options.path = RequireString(object.Get("path"), "path");
  options.facts = RequireTorrentFacts(object, format != "v2", format != "v1");
  options.facts.comment = RequireString(object.Get("comment"), "comment");
  options.sha256 = IsSet(object, "sha256");
  options.git_sha1 = IsSet(object, "gitSha1");
  options.threads = RequireInt(object.Get("threads"), "threads", 1, kMaxThreadsAsked);
  options.in_background = IsSet(object, "background");
  return options;
}

}  // namespace

TorrentFile MakeTorrentFile(TorrentFacts const& facts, std::int64_t size,
                            TorrentHashes const& hashes) {
  lt::entry const torrent = ToEntry(facts, size, hashes);
  TorrentFile file;
  lt::bencode(std::back_inserter(file.bytes), torrent);
  std::vector<char> info;
  lt::bencode(std::back_inserter(info), torrent["info"]);
  if (facts.v1) file.info_hash_v1 = ToHex(lt::hasher(info).final());
  if (facts.v2) file.info_hash_v2 = ToHex(lt::hasher256(info).final());
  return file;
}

void RequirePieceCount(char const* operation, std::int64_t size, int piece_length) {
  if (size / piece_length >= kMaxInt32) {
    throw Failure(operation, lt::errors::too_many_pieces_in_torrent);
  }
}

TorrentFacts RequireTorrentFacts(Napi::Object object, bool v1, bool v2) {
  TorrentFacts facts;
  facts.v1 = v1;
  facts.v2 = v2;
  facts.name = RequireName(object.Get("name"));
  facts.piece_length = RequirePieceLength(object.Get("pieceLength"), v2);
  facts.created_by = RequireString(object.Get("createdBy"), "createdBy");
  Napi::Array const trackers = RequireArray(object.Get("trackers"), "trackers");
  for (std::uint32_t i = 0; i < trackers.Length(); ++i) {
    facts.trackers.push_back(RequireString(trackers[i], "a tracker"));
  }
  return facts;
}

Napi::Value CreateTorrent(Napi::CallbackInfo const& info) {
  Options const options = ToOptions(info[0]);
  auto const budget = Environment::Of(info.Env())->hashing->budget();
  return StartJob<Created>(
      info.Env(), "createTorrent", info[1],
      [options, budget](JobControl& control) { return Create(options, control, *budget); }, ToValue,
      options.in_background ? Waiting::kLetsProcessEnd : Waiting::kKeepsProcess);
}

}  // namespace llmpt
