// Hashes of pieces that are being written, taken from the bytes while they are in memory.
#pragma once

#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <libtorrent/units.hpp>
#include <list>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "file_pool.h"
#include "piece_grid.h"

namespace llmpt {

inline constexpr int kDiskBlockBytes = kBlockBytes;

/// What of a piece was hashed on its way to the disk. Whatever is missing must be read back.
struct PieceHash {
  /// SHA-1 of the first `v1_bytes` of the piece.
  lt::hasher v1;
  int v1_bytes = 0;
  /// SHA-256 of each 16 KiB block that came; nothing for the others.
  std::vector<std::optional<lt::sha256_hash>> leaves;
};

/// How a piece is divided.
struct PieceShape {
  /// Length with padding, which SHA-1 covers; 0 when SHA-1 is not wanted.
  int v1_bytes;
  /// Length without padding, which the leaves cover; 0 when leaves are not wanted.
  int v2_bytes;

  int leaves() const { return (v2_bytes + kDiskBlockBytes - 1) / kDiskBlockBytes; }
};

/// Whether both know all of a piece, and the same.
bool IsSame(PieceHash const& one, PieceHash const& other, PieceShape shape);

/// Bounded: when too many pieces are under way, those that were touched least recently are
/// forgotten, which costs a read and nothing else.
class PieceHashes {
 public:
  using Key = std::pair<StorageId, lt::piece_index_t>;

  /// A block was written. SHA-1 goes on only where it stopped: blocks out of order are for later.
  void Add(Key key, PieceShape shape, int offset, lt::span<char const> bytes);
  /// What is known of a piece; it is forgotten here.
  PieceHash Take(Key key, PieceShape shape);
  void Forget(Key key);
  void Forget(StorageId storage);

 private:
  struct Entry {
    Key key;
    PieceHash hash;
  };
  using Entries = std::list<Entry>;

  PieceHash& Touch(Key key, PieceShape shape);
  void Erase(std::map<Key, Entries::iterator>::iterator found);
  void Shrink();

  Entries entries_;  // most recently touched first
  std::map<Key, Entries::iterator> index_;
  std::size_t leaves_ = 0;
};

}  // namespace llmpt
