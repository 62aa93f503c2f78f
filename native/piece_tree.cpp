#include "piece_tree.h"

#include <array>
#include <cstring>

#include "sha256_kernels.h"

namespace llmpt {

namespace {

constexpr std::ptrdiff_t kHashBytes = lt::sha256_hash::size();

// A pair of hashes is one short block: no shorter way leads to its digest.
lt::sha256_hash Parent(lt::sha256_hash const& left, lt::sha256_hash const& right) {
  std::array<char, 2 * kHashBytes> pair;
  std::memcpy(pair.data(), left.data(), kHashBytes);
  std::memcpy(pair.data() + kHashBytes, right.data(), kHashBytes);
  lt::sha256_hash parent;
  HashLeaves(BestSha256Code(), pair, {&parent, 1});
  return parent;
}

lt::sha256_hash RootOfZeroes(std::int64_t leaves) {
  lt::sha256_hash root;
  for (; leaves > 1; leaves /= 2) root = Parent(root, root);
  return root;
}

}  // namespace

lt::sha256_hash TreeRoot(lt::span<lt::sha256_hash> nodes, std::int64_t node_leaves,
                         std::int64_t width) {
  bool const is_full = nodes.size() * node_leaves == width;
  lt::sha256_hash missing = is_full ? lt::sha256_hash() : RootOfZeroes(node_leaves);
  for (; node_leaves < width; node_leaves *= 2) {
    std::ptrdiff_t const parents = (nodes.size() + 1) / 2;
    for (std::ptrdiff_t i = 0; i < parents; ++i) {
      bool const has_right = 2 * i + 1 < nodes.size();
      nodes[i] = Parent(nodes[2 * i], has_right ? nodes[2 * i + 1] : missing);
    }
    nodes = nodes.first(parents);
    if (!is_full) missing = Parent(missing, missing);
  }
  return nodes[0];
}

void PieceRoots::Begin(std::int64_t piece) {
  piece_ = piece;
  leaves_.clear();
}

void PieceRoots::Add(lt::span<lt::sha256_hash const> leaves) {
  for (lt::sha256_hash const& leaf : leaves) {
    leaves_.push_back(leaf);
    if (static_cast<std::int64_t>(leaves_.size()) < BlocksIn(grid_.BytesOf(piece_))) continue;
    roots_[static_cast<std::ptrdiff_t>(piece_)] = TreeRoot(leaves_, 1, grid_.tree_width());
    Begin(piece_ + 1);
  }
}

}  // namespace llmpt
