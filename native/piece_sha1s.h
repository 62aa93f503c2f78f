// The v1 hashes of pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>

#include "piece_grid.h"

namespace llmpt {

/// SHA-1 of pieces whose bytes come in order, in portions of any length.
class PieceSha1s {
 public:
  /// Writes into `hashes`, which has one entry per piece.
  PieceSha1s(PieceGrid grid, lt::span<lt::sha1_hash> hashes) : grid_(grid), hashes_(hashes) {}

  /// The next byte is the first one of `piece`.
  void Begin(std::int64_t piece) {
    piece_ = piece;
    bytes_ = 0;
    sha1_.reset();
  }

  void Update(lt::span<char const> bytes) {
    while (!bytes.empty()) {
      std::int64_t const left = grid_.BytesOf(piece_) - bytes_;
      auto const part =
          bytes.first(static_cast<std::ptrdiff_t>(std::min<std::int64_t>(left, bytes.size())));
      sha1_.update(part);
      bytes_ += part.size();
      bytes = bytes.subspan(part.size());
      if (part.size() < left) continue;
      hashes_[static_cast<std::ptrdiff_t>(piece_)] = sha1_.final();
      Begin(piece_ + 1);
    }
  }

 private:
  PieceGrid const grid_;
  lt::span<lt::sha1_hash> const hashes_;
  lt::hasher sha1_;
  std::int64_t piece_ = 0;
  std::int64_t bytes_ = 0;
};

}  // namespace llmpt
