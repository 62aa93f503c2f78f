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

namespace llmpt {

namespace {

// BEP 52: the leaves of a v2 torrent's hash trees are blocks of 16 KiB.
constexpr std::int64_t kBlockBytes = 16 * 1024;
constexpr std::int64_t kReadBytes = 1 << 20;
constexpr std::int64_t kMaxPieceBytes = 128 << 20;

struct Options {
  std::string path;
  std::string name;
  int piece_length;
  bool v1;
  bool v2;
  std::vector<std::string> trackers;
  std::string created_by;
  std::string comment;
  int threads;
  bool in_background = false;
};

struct Created {
  std::vector<char> torrent_file;
  std::string info_hash_v1;
  std::string info_hash_v2;
  int piece_length;
  std::int64_t size;
};

/// Of a full binary tree over `width` leaves (a power of two); those that are missing are zero.
lt::sha256_hash MerkleRoot(std::vector<lt::sha256_hash> level, std::size_t width) {
  level.resize(width);
  while (level.size() > 1) {
    for (std::size_t i = 0; i < level.size() / 2; ++i) {
      lt::hasher256 pair;
      pair.update(level[2 * i]);
      pair.update(level[2 * i + 1]);
      level[i] = pair.final();
    }
    level.resize(level.size() / 2);
  }
  return level.front();
}

std::size_t PowerOfTwoFrom(std::size_t number) {
  std::size_t power = 1;
  while (power < number) power *= 2;
  return power;
}

/// Hashes all pieces of one file on several threads; each takes the next piece that is left.
class PieceHasher {
 public:
  PieceHasher(Options const& options, InputFile const& file, JobControl& control)
      : options_(options),
        file_(file),
        control_(control),
        pieces_((file.size() + options.piece_length - 1) / options.piece_length) {
    if (options.v1) v1_.resize(static_cast<std::size_t>(pieces_));
    if (options.v2) v2_.resize(static_cast<std::size_t>(pieces_));
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

  std::vector<lt::sha1_hash> const& v1() const { return v1_; }
  std::vector<lt::sha256_hash> const& v2() const { return v2_; }

 private:
  void HashSome() {
    try {
      std::vector<char> buffer(
          static_cast<std::size_t>(std::min<std::int64_t>(kReadBytes, options_.piece_length)));
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
    std::int64_t const begin = piece * options_.piece_length;
    std::int64_t const end = std::min(begin + options_.piece_length, file_.size());
    lt::hasher sha1;
    std::vector<lt::sha256_hash> leaves;
    for (std::int64_t offset = begin; offset < end;) {
      if (control_.is_cancelled()) return;
      auto const bytes = std::min(static_cast<std::int64_t>(buffer.size()), end - offset);
      lt::span<char> const part(buffer.data(), static_cast<std::ptrdiff_t>(bytes));
      file_.ReadAt(offset, part);
      if (options_.v1) sha1.update(part);
      if (options_.v2) AddLeaves(part, leaves);
      offset += bytes;
    }
    if (options_.v1) v1_[static_cast<std::size_t>(piece)] = sha1.final();
    if (options_.v2) v2_[static_cast<std::size_t>(piece)] = PieceRoot(std::move(leaves));
    ReportOne();
  }

  static void AddLeaves(lt::span<char const> bytes, std::vector<lt::sha256_hash>& leaves) {
    while (!bytes.empty()) {
      auto const block = bytes.first(std::min<std::ptrdiff_t>(kBlockBytes, bytes.size()));
      leaves.push_back(lt::hasher256(block).final());
      bytes = bytes.subspan(block.size());
    }
  }

  // The tree of a file that fits into one piece is only as wide as the file.
  lt::sha256_hash PieceRoot(std::vector<lt::sha256_hash> leaves) const {
    auto const width = pieces_ == 1 ? PowerOfTwoFrom(leaves.size())
                                    : static_cast<std::size_t>(options_.piece_length / kBlockBytes);
    return MerkleRoot(std::move(leaves), width);
  }

  void ReportOne() {
    std::lock_guard<std::mutex> const lock(mutex_);
    control_.Report(++hashed_, pieces_);
  }

  Options const& options_;
  InputFile const& file_;
  JobControl& control_;
  std::int64_t const pieces_;
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> has_failed_{false};
  std::vector<lt::sha1_hash> v1_;
  std::vector<lt::sha256_hash> v2_;

  std::mutex mutex_;
  std::int64_t hashed_ = 0;
  std::exception_ptr error_;
};

lt::create_flags_t FormatFlags(Options const& options) {
  if (!options.v1) return lt::create_torrent::v2_only;
  if (!options.v2) return lt::create_torrent::v1_only;
  return {};
}

lt::entry ToEntry(Options const& options, std::int64_t size, PieceHasher const& hashes) {
  lt::file_storage files;
  files.add_file(options.name, size);
  lt::create_torrent torrent(files, options.piece_length, FormatFlags(options));
  // libtorrent would put the present time in.
  torrent.set_creation_date(0);
  if (!options.created_by.empty()) torrent.set_creator(options.created_by.c_str());
  if (!options.comment.empty()) torrent.set_comment(options.comment.c_str());
  for (std::size_t i = 0; i < options.trackers.size(); ++i) {
    torrent.add_tracker(options.trackers[i], static_cast<int>(i));
  }
  for (std::size_t i = 0; i < hashes.v1().size(); ++i) {
    torrent.set_hash(lt::piece_index_t(static_cast<int>(i)), hashes.v1()[i]);
  }
  for (std::size_t i = 0; i < hashes.v2().size(); ++i) {
    torrent.set_hash2(lt::file_index_t(0), lt::piece_index_t::diff_type(static_cast<int>(i)),
                      hashes.v2()[i]);
  }
  return torrent.generate();
}

Created Create(Options const& options, JobControl& control) {
  InputFile const file("createTorrent", options.path);
  if (file.size() == 0) {
    throw Failure("createTorrent", lt::errors::torrent_invalid_length, options.path);
  }
  if (file.size() / options.piece_length >= kMaxInt32) {
    throw Failure("createTorrent", lt::errors::too_many_pieces_in_torrent, options.path);
  }
  PieceHasher hashes(options, file, control);
  hashes.Run();

  lt::entry const torrent = ToEntry(options, file.size(), hashes);
  Created created;
  created.piece_length = options.piece_length;
  created.size = file.size();
  lt::bencode(std::back_inserter(created.torrent_file), torrent);
  std::vector<char> info;
  lt::bencode(std::back_inserter(info), torrent["info"]);
  if (options.v1) created.info_hash_v1 = ToHex(lt::hasher(info).final());
  if (options.v2) created.info_hash_v2 = ToHex(lt::hasher256(info).final());
  return created;
}

Napi::Value ToValue(Napi::Env env, Created const& created) {
  auto object = Napi::Object::New(env);
  object.Set("torrentFile", ToBytes(env, created.torrent_file.data(), created.torrent_file.size()));
  if (!created.info_hash_v1.empty()) object.Set("infoHashV1", created.info_hash_v1);
  if (!created.info_hash_v2.empty()) object.Set("infoHashV2", created.info_hash_v2);
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
  options.name = RequireName(object.Get("name"));
  options.v1 = format != "v2";
  options.v2 = format != "v1";
  options.piece_length = RequirePieceLength(object.Get("pieceLength"), options.v2);
  options.created_by = RequireString(object.Get("createdBy"), "createdBy");
  options.comment = RequireString(object.Get("comment"), "comment");
  options.threads = RequireInt(object.Get("threads"), "threads", 1, 1024);
  Napi::Value const background = object.Get("background");
  options.in_background = !background.IsUndefined() && RequireBoolean(background, "background");
  Napi::Array const trackers = RequireArray(object.Get("trackers"), "trackers");
  for (std::uint32_t i = 0; i < trackers.Length(); ++i) {
    options.trackers.push_back(RequireString(trackers[i], "a tracker"));
  }
  return options;
}

}  // namespace

Napi::Value CreateTorrent(Napi::CallbackInfo const& info) {
  Options const options = ToOptions(info[0]);
  return StartJob<Created>(
      info.Env(), "createTorrent", info[1],
      [options](JobControl& control) { return Create(options, control); }, ToValue,
      options.in_background ? Waiting::kLetsProcessEnd : Waiting::kKeepsProcess);
}

}  // namespace llmpt
