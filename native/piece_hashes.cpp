#include "piece_hashes.h"

#include <algorithm>

namespace llmpt {

namespace {

constexpr std::size_t kMaxPieces = 4096;
/// Of pieces that hold 2 GiB, in less than 5 MiB.
constexpr std::size_t kMaxLeaves = 128 * 1024;

lt::sha256_hash Leaf(lt::span<char const> bytes) { return lt::hasher256(bytes).final(); }

}  // namespace

bool IsSame(PieceHash const& one, PieceHash const& other, PieceShape shape) {
  if (shape.v2_bytes > 0) {
    auto const& leaves = one.leaves;
    bool const is_complete = std::all_of(leaves.begin(), leaves.end(),
                                         [](auto const& leaf) { return leaf.has_value(); });
    return is_complete && leaves == other.leaves;
  }
  // Asking for a digest ends its hasher.
  lt::hasher first = one.v1;
  lt::hasher second = other.v1;
  return one.v1_bytes == shape.v1_bytes && other.v1_bytes == shape.v1_bytes &&
         first.final() == second.final();
}

void PieceHashes::Add(Key key, PieceShape shape, int offset, lt::span<char const> bytes) {
  PieceHash& hash = Touch(key, shape);
  int const length = static_cast<int>(bytes.size());
  if (shape.v1_bytes > 0) {
    // Written anew: what was hashed is no longer what is on the disk.
    if (offset < hash.v1_bytes) {
      hash.v1.reset();
      hash.v1_bytes = 0;
    }
    if (offset == hash.v1_bytes) {
      hash.v1.update(bytes);
      hash.v1_bytes += length;
    }
  }
  if (offset < shape.v2_bytes) {
    int const covered = std::min(length, shape.v2_bytes - offset);
    hash.leaves[static_cast<std::size_t>(offset / kDiskBlockBytes)] = Leaf(bytes.first(covered));
  }
}

PieceHash PieceHashes::Take(Key key, PieceShape shape) {
  auto const found = index_.find(key);
  PieceHash hash;
  if (found != index_.end()) {
    std::swap(hash, found->second->hash);
    leaves_ -= hash.leaves.size();
    Erase(found);
  }
  hash.leaves.resize(static_cast<std::size_t>(shape.leaves()));
  return hash;
}

void PieceHashes::Forget(Key key) {
  auto const found = index_.find(key);
  if (found != index_.end()) Erase(found);
}

void PieceHashes::Forget(StorageId storage) {
  auto at = index_.lower_bound({storage, lt::piece_index_t(0)});
  while (at != index_.end() && at->first.first == storage) Erase(at++);
}

PieceHash& PieceHashes::Touch(Key key, PieceShape shape) {
  auto const found = index_.find(key);
  if (found != index_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->hash;
  }
  entries_.push_front({key, {}});
  index_[key] = entries_.begin();
  PieceHash& hash = entries_.front().hash;
  hash.leaves.resize(static_cast<std::size_t>(shape.leaves()));
  leaves_ += hash.leaves.size();
  Shrink();
  return hash;
}

void PieceHashes::Erase(std::map<Key, Entries::iterator>::iterator found) {
  leaves_ -= found->second->hash.leaves.size();
  entries_.erase(found->second);
  index_.erase(found);
}

// The one in use is the newest and stays, however large it is.
void PieceHashes::Shrink() {
  while (entries_.size() > 1 && (entries_.size() > kMaxPieces || leaves_ > kMaxLeaves)) {
    Erase(index_.find(entries_.back().key));
  }
}

}  // namespace llmpt
