#include "piece_tree.h"

#include <algorithm>
#include <optional>

namespace llmpt {

namespace {

lt::sha256_hash Parent(lt::sha256_hash const& left, lt::sha256_hash const& right) {
  lt::hasher256 pair;
  pair.update(left);
  pair.update(right);
  return pair.final();
}

}  // namespace

void PieceTree::Update(lt::span<char const> bytes) {
  while (!bytes.empty()) {
    auto const part = bytes.first(static_cast<std::ptrdiff_t>(
        std::min<std::int64_t>(kBlockBytes - block_bytes_, bytes.size())));
    block_.update(part);
    block_bytes_ += part.size();
    bytes = bytes.subspan(part.size());
    if (block_bytes_ == kBlockBytes) AddLeaf(block_.final());
  }
}

void PieceTree::AddLeaf(lt::sha256_hash const& leaf) {
  block_.reset();
  block_bytes_ = 0;
  lt::sha256_hash node = leaf;
  std::size_t level = 0;
  for (; (leaves_ >> level & 1) != 0; ++level) node = Parent(levels_[level], node);
  if (level == levels_.size()) levels_.emplace_back();
  levels_[level] = node;
  ++leaves_;
}

lt::sha256_hash PieceTree::TakeRoot(std::int64_t width) {
  if (block_bytes_ > 0) AddLeaf(block_.final());
  // From the lowest level up: `right` is the root of the leaves so far that fill no subtree.
  std::optional<lt::sha256_hash> right;
  lt::sha256_hash missing;
  std::size_t level = 0;
  for (; (std::int64_t{1} << level) < width; ++level) {
    if ((leaves_ >> level & 1) != 0) {
      right = Parent(levels_[level], right.value_or(missing));
    } else if (right) {
      right = Parent(*right, missing);
    }
    missing = Parent(missing, missing);
  }
  lt::sha256_hash const root = right ? *right : levels_.at(level);
  leaves_ = 0;
  return root;
}

std::int64_t TreeWidth(std::int64_t piece_bytes) {
  std::int64_t width = 1;
  while (width * kBlockBytes < piece_bytes) width *= 2;
  return width;
}

}  // namespace llmpt
