// The hash tree of BEP 52 over one piece, or over a file that is smaller than one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <vector>

namespace llmpt {

// BEP 52: the leaves of a v2 torrent's hash trees are blocks of 16 KiB.
inline constexpr std::int64_t kBlockBytes = 16 * 1024;

/// Takes the bytes in order, in portions of any length. Holds one hash per level, not per leaf.
class PieceTree {
 public:
  void Update(lt::span<char const> bytes);
  /// Of the tree over `width` leaves (a power of two, at least the blocks there are); those that
  /// are missing are zero. The tree is then empty again.
  lt::sha256_hash TakeRoot(std::int64_t width);

 private:
  void AddLeaf(lt::sha256_hash const& leaf);

  lt::hasher256 block_;
  std::int64_t block_bytes_ = 0;
  std::int64_t leaves_ = 0;
  /// Bit n of `leaves_` says whether entry n, the root of 2^n leaves, waits for its right sibling.
  std::vector<lt::sha256_hash> levels_;
};

/// Leaves of the tree over `piece_bytes`, which is a whole piece, or the length of a file that
/// fits into one: its tree is only as wide as the file.
std::int64_t TreeWidth(std::int64_t piece_bytes);

}  // namespace llmpt
