// How a file is divided into pieces, and each piece into blocks.
#pragma once

#include <algorithm>
#include <cstdint>

namespace llmpt {

// BEP 52: the leaves of a v2 torrent's hash trees are blocks of 16 KiB.
inline constexpr std::int64_t kBlockBytes = 16 * 1024;

/// How many blocks hold `bytes`; the last may be shorter.
inline std::int64_t BlocksIn(std::int64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

struct PieceGrid {
  std::int64_t file_bytes = 0;
  std::int64_t piece_bytes = 0;

  std::int64_t pieces() const { return (file_bytes + piece_bytes - 1) / piece_bytes; }
  std::int64_t BytesOf(std::int64_t piece) const {
    return std::min(piece_bytes, file_bytes - piece * piece_bytes);
  }
  /// Leaves of each piece's tree, those that are missing included: a power of two. The tree of a
  /// file that fits into one piece is only as wide as the file.
  std::int64_t tree_width() const {
    std::int64_t width = 1;
    while (width * kBlockBytes < std::min(piece_bytes, file_bytes)) width *= 2;
    return width;
  }
};

}  // namespace llmpt
