// SHA-256 in the two shapes that hashing a file for a v2 torrent needs: the leaves of its hash
// tree (and the nodes above them), and the leaves together with the digest of the whole file.
//
// OpenSSL hashes one message at a time, and most of the time waits for the previous round's result.
// With the x86 SHA instructions, code of ours fills those waits with a second digest. Everywhere
// else (ARM too, whose instructions OpenSSL uses) OpenSSL computes, as it does every other hash.
//
// Source: FIPS 180-4 (the function), BEP 52 (leaves are blocks of 16 KiB).
#pragma once

#include <array>
#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>

#include "sha256_shani.h"

namespace llmpt {

/// Who computes.
enum class Sha256Code { kOpenSsl, kShaNi };

/// The fastest that this processor has; `HF_P2P_SHA256=openssl` forces OpenSSL. Found out once.
Sha256Code BestSha256Code();

/// The digests of the blocks of 16 KiB of `bytes`, the last of which may be shorter. `leaves` has
/// one entry per block; any other number of entries throws std::invalid_argument.
void HashLeaves(Sha256Code code, lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves);

/// The digest of a stream together with the leaves of the same bytes. With `kShaNi`, the processor
/// must have the instructions. Whoever wants no leaves has no use for this: OpenSSL's digest of a
/// single message is as fast.
class StreamSha256 {
 public:
  explicit StreamSha256(Sha256Code code = BestSha256Code());

  /// `leaves` has one entry per block of 16 KiB. Only the last call of a stream may end within a
  /// block. Throws std::invalid_argument when one of these is not so.
  void UpdateWithLeaves(lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves);
  /// Ends the stream: afterwards it can only be assigned to.
  lt::sha256_hash Final();

 private:
  void UpdateBlockWithLeaf(lt::span<char const> block, lt::sha256_hash& leaf);
  lt::span<char const> Rest() const;

  Sha256Code code_;
  lt::hasher256 openssl_;
  Sha256State state_;
  std::uint64_t size_ = 0;
  /// The bytes behind the last whole block of 64, for the SHA instructions.
  std::array<char, kSha256BlockBytes> rest_;
};

}  // namespace llmpt
