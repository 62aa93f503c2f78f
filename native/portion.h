// The portions in which files are read.
#pragma once

#include <array>
#include <cstdint>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <memory>

#include "piece_grid.h"
#include "sha256_kernels.h"

namespace llmpt {

/// A power of two, so that a portion is a whole subtree or whole pieces. Small enough to stay in a
/// core's own cache between reading and hashing.
inline constexpr std::int64_t kPortionBytes = 512 * 1024;

/// Memory for one read, of a portion at most. Owns it; what is in there before is not defined.
class PortionBuffer {
 public:
  /// @throws std::bad_alloc
  explicit PortionBuffer(std::int64_t bytes);

  std::int64_t size() const { return size_; }
  lt::span<char> First(std::int64_t bytes) {
    return {bytes_.get(), static_cast<std::ptrdiff_t>(bytes)};
  }

 private:
  struct GiveBack {
    void operator()(char* bytes) const;
  };
  std::unique_ptr<char, GiveBack> bytes_;
  std::int64_t size_;
};

/// The leaves of one portion.
class PortionLeaves {
 public:
  /// Room for the leaves of `bytes`.
  lt::span<lt::sha256_hash> For(lt::span<char const> bytes) {
    return lt::span<lt::sha256_hash>(leaves_).first(
        static_cast<std::ptrdiff_t>(BlocksIn(bytes.size())));
  }
  lt::span<lt::sha256_hash> Hash(lt::span<char const> bytes) {
    auto const leaves = For(bytes);
    HashLeaves(BestSha256Code(), bytes, leaves);
    return leaves;
  }

 private:
  std::array<lt::sha256_hash, kPortionBytes / kBlockBytes> leaves_;
};

}  // namespace llmpt
