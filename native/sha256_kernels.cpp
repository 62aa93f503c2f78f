#include "sha256_kernels.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "piece_grid.h"

namespace llmpt {

namespace {

constexpr auto kLeafBytes = static_cast<std::ptrdiff_t>(kBlockBytes);
constexpr auto kMessageBlockBytes = static_cast<std::ptrdiff_t>(kSha256BlockBytes);

/// FIPS 180-4, section 5.3.3.
constexpr Sha256State kInitial = {{0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667},
                                  {0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372}};

/// What follows a message: its last bytes, a one bit, zeros, its length in bits.
struct Ending {
  std::array<char, 2 * kSha256BlockBytes> bytes{};
  std::size_t blocks;

  Ending(lt::span<char const> rest, std::uint64_t message_bytes)
      : blocks(rest.size() < kMessageBlockBytes - 8 ? 1 : 2) {
    std::copy(rest.begin(), rest.end(), bytes.begin());
    bytes[static_cast<std::size_t>(rest.size())] = '\x80';
    std::uint64_t bits = message_bytes * 8;
    for (std::size_t at = blocks * kSha256BlockBytes; bits != 0; bits >>= 8) {
      bytes[--at] = static_cast<char>(bits & 0xff);
    }
  }
};

/// Every leaf but the last of a file ends in the same way.
Ending const& EndingOfLeaf() {
  static Ending const ending({}, kLeafBytes);
  return ending;
}

lt::sha256_hash ToHash(Sha256State const& state) {
  auto const& [f, e, b, a] = state.feba;
  auto const& [h, g, d, c] = state.hgdc;
  std::array<unsigned char, 32> bytes;
  auto at = bytes.begin();
  for (std::uint32_t const word : {a, b, c, d, e, f, g, h}) {
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = static_cast<unsigned char>(word >> shift);
  }
  return lt::sha256_hash(reinterpret_cast<char const*>(bytes.data()));
}

lt::sha256_hash Finish(Sha256State state, lt::span<char const> rest, std::uint64_t message_bytes) {
  Ending const ending(rest, message_bytes);
  shani::Compress(state, ending.bytes.data(), ending.blocks);
  return ToHash(state);
}

lt::span<char const> WholeBlocks(lt::span<char const> bytes) {
  return bytes.first(bytes.size() / kMessageBlockBytes * kMessageBlockBytes);
}

std::size_t BlockCount(lt::span<char const> bytes) {
  return static_cast<std::size_t>(bytes.size() / kMessageBlockBytes);
}

lt::sha256_hash Digest(Sha256Code code, lt::span<char const> bytes) {
  if (code == Sha256Code::kOpenSsl) return lt::hasher256(bytes).final();
  Sha256State state = kInitial;
  shani::Compress(state, bytes.data(), BlockCount(bytes));
  return Finish(state, bytes.subspan(WholeBlocks(bytes).size()),
                static_cast<std::uint64_t>(bytes.size()));
}

void HashTwoLeaves(char const* bytes, lt::sha256_hash* leaves) {
  Sha256State first = kInitial;
  Sha256State second = kInitial;
  shani::CompressPair(first, bytes, second, bytes + kLeafBytes, kLeafBytes / kMessageBlockBytes);
  Ending const& ending = EndingOfLeaf();
  shani::CompressShared(first, second, ending.bytes.data(), ending.blocks);
  leaves[0] = ToHash(first);
  leaves[1] = ToHash(second);
}

void RequireEntryPerLeaf(lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves) {
  if (leaves.size() == (bytes.size() + kLeafBytes - 1) / kLeafBytes) return;
  throw std::invalid_argument("leaves must have one entry per 16 KiB");
}

/// Calls `hash(block, leaf)` for one block of 16 KiB after the other.
template <typename Hash>
void ForEachLeaf(lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves, Hash hash) {
  for (lt::sha256_hash& leaf : leaves) {
    auto const block = bytes.first(std::min(bytes.size(), kLeafBytes));
    hash(block, leaf);
    bytes = bytes.subspan(block.size());
  }
}

Sha256Code FindBestSha256Code() {
  char const* const wanted = std::getenv("HF_P2P_SHA256");
  bool const is_forced = wanted != nullptr && std::string_view(wanted) == "openssl";
  return !is_forced && shani::IsAvailable() ? Sha256Code::kShaNi : Sha256Code::kOpenSsl;
}

}  // namespace

Sha256Code BestSha256Code() {
  static Sha256Code const best = FindBestSha256Code();
  return best;
}

void HashLeaves(Sha256Code code, lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves) {
  RequireEntryPerLeaf(bytes, leaves);
  if (code == Sha256Code::kShaNi) {
    while (bytes.size() >= 2 * kLeafBytes) {
      HashTwoLeaves(bytes.data(), leaves.data());
      bytes = bytes.subspan(2 * kLeafBytes);
      leaves = leaves.subspan(2);
    }
  }
  ForEachLeaf(bytes, leaves, [code](lt::span<char const> block, lt::sha256_hash& leaf) {
    leaf = Digest(code, block);
  });
}

StreamSha256::StreamSha256(Sha256Code code) : code_(code), state_(kInitial) {}

void StreamSha256::UpdateWithLeaves(lt::span<char const> bytes, lt::span<lt::sha256_hash> leaves) {
  RequireEntryPerLeaf(bytes, leaves);
  if (size_ % kLeafBytes != 0) {
    throw std::invalid_argument("the stream does not stand at the beginning of a leaf");
  }
  // Block by block, so that whoever comes second finds the bytes in the first level's cache.
  ForEachLeaf(bytes, leaves, [this](lt::span<char const> block, lt::sha256_hash& leaf) {
    UpdateBlockWithLeaf(block, leaf);
  });
}

void StreamSha256::UpdateBlockWithLeaf(lt::span<char const> block, lt::sha256_hash& leaf) {
  if (code_ == Sha256Code::kOpenSsl) {
    leaf = Digest(code_, block);
    if (!block.empty()) openssl_.update(block);
    size_ += static_cast<std::uint64_t>(block.size());
    return;
  }
  Sha256State leaf_state = kInitial;
  auto const whole = WholeBlocks(block);
  shani::CompressShared(state_, leaf_state, whole.data(), BlockCount(whole));
  auto const rest = block.subspan(whole.size());
  std::copy(rest.begin(), rest.end(), rest_.begin());
  size_ += static_cast<std::uint64_t>(block.size());
  leaf = Finish(leaf_state, rest, static_cast<std::uint64_t>(block.size()));
}

lt::sha256_hash StreamSha256::Final() {
  return code_ == Sha256Code::kOpenSsl ? openssl_.final() : Finish(state_, Rest(), size_);
}

lt::span<char const> StreamSha256::Rest() const {
  return lt::span<char const>(rest_).first(static_cast<std::ptrdiff_t>(size_ % kSha256BlockBytes));
}

}  // namespace llmpt
