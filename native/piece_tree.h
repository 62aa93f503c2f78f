// The hash trees of BEP 52: one over each piece.
#pragma once

#include <cstdint>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <vector>

#include "piece_grid.h"

namespace llmpt {

/// The root of a tree of `width` leaves. `nodes` are its nodes, each over `node_leaves` leaves,
/// from the first one on; those that are missing stand over leaves that are zero. Both numbers are
/// powers of two. `nodes` is overwritten.
lt::sha256_hash TreeRoot(lt::span<lt::sha256_hash> nodes, std::int64_t node_leaves,
                         std::int64_t width);

/// The roots of pieces whose leaves come in order. Holds the leaves of one piece.
class PieceRoots {
 public:
  /// Writes into `roots`, which has one entry per piece.
  PieceRoots(PieceGrid grid, lt::span<lt::sha256_hash> roots) : grid_(grid), roots_(roots) {}

  /// The next leaf is the first one of `piece`.
  void Begin(std::int64_t piece);
  void Add(lt::span<lt::sha256_hash const> leaves);

 private:
  PieceGrid const grid_;
  lt::span<lt::sha256_hash> const roots_;
  std::int64_t piece_ = 0;
  std::vector<lt::sha256_hash> leaves_;
};

}  // namespace llmpt
