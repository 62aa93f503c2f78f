// Hashes a file from its beginning as far as it is final, reading each byte once, while the rest of
// it is still being written.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "create_torrent.h"
#include "hash_pipeline.h"
#include "input_file.h"
#include "piece_tree.h"
#include "portion.h"
#include "sha256_kernels.h"

namespace llmpt {

struct PrefixDigests {
  std::int64_t size = 0;
  /// Empty when not asked for.
  std::string sha256;
  std::string git_sha1;
  /// Absent for an empty file, which has no torrent.
  std::optional<TorrentFile> torrent;
};

/// Shared by whoever says how far the file is (one thread) and the thread that runs it. Owns the
/// descriptor, from `Open` to the end of `Run`.
class PrefixHasher {
 public:
  struct Request {
    std::string path;
    std::int64_t size;
    bool sha256;
    bool git_sha1;
    /// v2 only.
    std::optional<TorrentFacts> torrent;
  };

  explicit PrefixHasher(Request request);

  /// Must come before `Run`; from then on it does not matter what the file is called. Idempotent.
  void Open();
  /// The bytes `[0, end)` will not be written again.
  void Advance(std::int64_t end);
  /// Makes `Run` throw soon: within one read. Any thread.
  void Cancel();
  /// Gives the descriptor back without a `Run`.
  void Close() { file_.reset(); }

  /// Follows the file to its end and sleeps while it does not grow.
  PrefixDigests Run();

  std::int64_t size() const { return request_.size; }
  std::int64_t end() const { return end_; }
  /// How many bytes are in the digests, or in memory on their way into them.
  std::int64_t hashed() const { return hashed_; }
  /// All that was ever read from the file.
  std::int64_t read() const { return read_; }

 private:
  void HashAll(InputFile const& file);
  /// Where the prefix ends now, which is behind `offset`.
  std::int64_t WaitBeyond(std::int64_t offset);
  void Update(lt::span<char const> bytes);
  PrefixDigests Finish();

  Request const request_;
  WantedHashes const wanted_;
  std::unique_ptr<InputFile> file_;

  // Only `Run` touches these.
  TorrentHashes pieces_;
  lt::hasher256 sha256_;
  /// Instead of `sha256_`, where there is a torrent to be made.
  StreamSha256 sha256_with_leaves_;
  lt::hasher git_sha1_;
  PieceRoots roots_;
  PortionLeaves leaves_;

  std::mutex mutex_;
  std::condition_variable moved_;
  std::atomic<std::int64_t> end_{0};
  std::atomic<bool> is_cancelled_{false};
  std::atomic<std::int64_t> hashed_{0};
  std::atomic<std::int64_t> read_{0};
};

}  // namespace llmpt
