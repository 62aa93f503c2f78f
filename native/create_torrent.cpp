#include "create_torrent.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <libtorrent/bencode.hpp>
#include <libtorrent/create_torrent.hpp>
#include <libtorrent/entry.hpp>
#include <libtorrent/file_storage.hpp>
#include <libtorrent/hasher.hpp>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "input_file.h"
#include "job.h"
#include "piece_tree.h"

namespace llmpt {

namespace {

constexpr std::int64_t kReadBytes = 1 << 20;
constexpr std::int64_t kMaxPieceBytes = 128 << 20;

struct Options {
  std::string path;
  TorrentFacts facts;
  int threads;
  bool in_background = false;
};

struct Created {
  TorrentFile torrent;
  int piece_length;
  std::int64_t size;
};

/// Hashes all pieces of one file on several threads; each takes the next piece that is left.
class PieceHasher {
 public:
  PieceHasher(Options const& options, InputFile const& file, JobControl& control)
      : options_(options),
        file_(file),
        control_(control),
        facts_(options.facts),
        pieces_((file.size() + facts_.piece_length - 1) / facts_.piece_length) {
    if (facts_.v1) hashes_.v1.resize(static_cast<std::size_t>(pieces_));
    if (facts_.v2) hashes_.v2.resize(static_cast<std::size_t>(pieces_));
  }

  void Run() {
    std::vector<std::thread> helpers;
    auto const threads = std::min<std::int64_t>(options_.threads, pieces_);
    try {
      for (std::int64_t i = 1; i < threads; ++i) helpers.emplace_back([this] { HashSome(); });
    } catch (std::system_error const&) {
      // As many threads as the system gives; this one suffices.
    }
    HashSome();
    for (std::thread& helper : helpers) helper.join();
    if (error_) std::rethrow_exception(error_);
    control_.ThrowIfCancelled();
    file_.RequireSameSize();
  }

  TorrentHashes const& hashes() const { return hashes_; }

 private:
  void HashSome() {
    try {
      std::vector<char> buffer(
          static_cast<std::size_t>(std::min<std::int64_t>(kReadBytes, facts_.piece_length)));
      while (!has_failed_ && !control_.is_cancelled()) {
        std::int64_t const piece = next_++;
        if (piece >= pieces_) return;
        HashOne(piece, buffer);
      }
    } catch (...) {
      std::lock_guard<std::mutex> const lock(mutex_);
      if (!error_) error_ = std::current_exception();
      has_failed_ = true;
    }
  }

  void HashOne(std::int64_t piece, std::vector<char>& buffer) {
    std::int64_t const begin = piece * facts_.piece_length;
    std::int64_t const end = std::min(begin + facts_.piece_length, file_.size());
    lt::hasher sha1;
    PieceTree tree;
    for (std::int64_t offset = begin; offset < end;) {
      if (control_.is_cancelled()) return;
      auto const bytes = std::min(static_cast<std::int64_t>(buffer.size()), end - offset);
      lt::span<char> const part(buffer.data(), static_cast<std::ptrdiff_t>(bytes));
      file_.ReadAt(offset, part);
      if (facts_.v1) sha1.update(part);
      if (facts_.v2) tree.Update(part);
      offset += bytes;
    }
    auto const index = static_cast<std::size_t>(piece);
    if (facts_.v1) hashes_.v1[index] = sha1.final();
    if (facts_.v2) {
      hashes_.v2[index] =
          tree.TakeRoot(TreeWidth(pieces_ == 1 ? file_.size() : facts_.piece_length));
    }
    ReportOne();
  }

  void ReportOne() {
    std::lock_guard<std::mutex> const lock(mutex_);
    control_.Report(++hashed_, pieces_);
  }

  Options const& options_;
  InputFile const& file_;
  JobControl& control_;
  TorrentFacts const& facts_;
  std::int64_t const pieces_;
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> has_failed_{false};
  TorrentHashes hashes_;

  std::mutex mutex_;
  std::int64_t hashed_ = 0;
  std::exception_ptr error_;
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

Created Create(Options const& options, JobControl& control) {
  InputFile const file("createTorrent", options.path);
  if (file.size() == 0) {
    throw Failure("createTorrent", lt::errors::torrent_invalid_length, options.path);
  }
  RequirePieceCount("createTorrent", file.size(), options.facts.piece_length);
  PieceHasher hasher(options, file, control);
  hasher.Run();
  return {MakeTorrentFile(options.facts, file.size(), hasher.hashes()), options.facts.piece_length,
          file.size()};
}

Napi::Value ToValue(Napi::Env env, Created const& created) {
  auto object = Napi::Object::New(env);
  TorrentFile const& torrent = created.torrent;
  object.Set("torrentFile", ToBytes(env, torrent.bytes.data(), torrent.bytes.size()));
  if (!torrent.info_hash_v1.empty()) object.Set("infoHashV1", torrent.info_hash_v1);
  if (!torrent.info_hash_v2.empty()) object.Set("infoHashV2", torrent.info_hash_v2);
  object.Set("pieceLength", created.piece_length);
  object.Set("sizeBytes", static_cast<double>(created.size));
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
  options.threads = RequireInt(object.Get("threads"), "threads", 1, 1024);
  Napi::Value const background = object.Get("background");
  options.in_background = !background.IsUndefined() && RequireBoolean(background, "background");
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
  return StartJob<Created>(
      info.Env(), "createTorrent", info[1],
      [options](JobControl& control) { return Create(options, control); }, ToValue,
      options.in_background ? Waiting::kLetsProcessEnd : Waiting::kKeepsProcess);
}

}  // namespace llmpt
