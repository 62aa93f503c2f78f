// Piece hashes of a file, on several threads that each take the next part of it that is left.
#pragma once

#include <atomic>
#include <cstdint>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <map>
#include <mutex>
#include <vector>

#include "first_error.h"
#include "hash_pipeline.h"
#include "piece_grid.h"
#include "portion.h"

namespace llmpt {

/// A unit is what one thread takes at a time. SHA-1 cannot be divided within a piece: then it is
/// one piece, or as many small ones as fill a portion. Trees can: then it is a portion, and the
/// threads share the work also when pieces are large.
class PieceHasher {
 public:
  PieceHasher(InputFile const& file, WantedHashes const& wanted, HashingJob const& job);
  TorrentHashes Run();

 private:
  enum class Role { kOwner, kHelper };
  struct OneThread;

  void HashUnits(Role role);
  void HashUnit(std::int64_t unit, OneThread& thread);
  /// `bytes` stand at `offset` and are all of a unit.
  void HashTrees(std::int64_t offset, lt::span<char const> bytes, OneThread& thread);
  /// The root of a part of a piece is known; the last of them gives that of the piece.
  void AddSubtree(std::int64_t offset, lt::sha256_hash const& root);
  void Report(std::int64_t bytes);

  InputFile const& file_;
  WantedHashes const& wanted_;
  HashingJob const& job_;
  PieceGrid const grid_;
  std::int64_t const unit_bytes_;
  std::int64_t const units_;
  TorrentHashes hashes_;
  FirstError error_;
  std::atomic<std::int64_t> next_{0};

  std::mutex mutex_;
  std::int64_t hashed_bytes_ = 0;
  /// Of pieces that are being hashed: the roots of their portions, as far as they are known.
  struct Subtrees {
    std::vector<lt::sha256_hash> roots;
    std::int64_t missing = 0;
  };
  std::map<std::int64_t, Subtrees> unfinished_;

  /// Behind everything that they use.
  Helpers helpers_;
};

}  // namespace llmpt
