// All hashes of one file from reading it once: piece hashes of torrents and digests of the whole.
//
// Without a digest of the whole, threads take parts of the file independently (piece_hasher).
// With one, the bytes must go by in order: each output is a lane, lanes are spread over threads,
// and all threads see the same portions in the same buffers (lane_hasher).
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <libtorrent/sha1_hash.hpp>
#include <optional>
#include <vector>

#include "input_file.h"
#include "job.h"
#include "thread_budget.h"

namespace llmpt {

/// What is to be found out about a file.
struct WantedHashes {
  /// Of every piece: SHA-1, and the root of its hash tree (BEP 52).
  bool v1 = false;
  bool v2 = false;
  /// At least one block. A power of two when `v2`; does not matter without pieces.
  std::int64_t piece_bytes = 0;
  /// Of the whole file.
  bool sha256 = false;
  /// As git names a blob: "blob <size>", a NUL, and the content.
  bool git_sha1 = false;
};

/// One entry per piece, in order; none of what was not wanted.
struct TorrentHashes {
  std::vector<lt::sha1_hash> v1;
  std::vector<lt::sha256_hash> v2;
};

/// Room for the piece hashes of a file of `file_bytes`.
TorrentHashes RoomForPieces(std::int64_t file_bytes, WantedHashes const& wanted);

struct FileHashes {
  TorrentHashes pieces;
  std::optional<lt::sha256_hash> sha256;
  std::optional<lt::sha1_hash> git_sha1;
};

/// Who wants them.
struct HashingJob {
  JobControl const& control;
  ThreadBudget& budget;
  /// As many as the budget has, and never more than this.
  int threads = 1;
  /// Hears how many bytes are hashed, never fewer than before. One call at a time, any thread.
  std::function<void(std::int64_t)> report;
};

/// Holds 512 KiB for each thread and little more, whatever the size of the file and of its pieces.
///
/// @throws Failure when the file cannot be read, changes meanwhile, or the job is cancelled, which
/// takes effect within one portion.
FileHashes HashFileOnce(InputFile const& file, WantedHashes const& wanted, HashingJob const& job);

/// The most that callers may ask for. How many there are is up to the budget.
inline constexpr int kMaxThreadsAsked = 1024;

/// `sha256` and `gitSha1` of a JavaScript object, where they were wanted. JavaScript thread only.
void SetDigests(Napi::Object object, FileHashes const& hashes);

}  // namespace llmpt
