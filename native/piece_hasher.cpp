#include "piece_hasher.h"

#include <algorithm>
#include <optional>

#include "piece_sha1s.h"
#include "piece_tree.h"

namespace llmpt {

namespace {

std::int64_t UnitBytes(WantedHashes const& wanted) {
  if (!wanted.v1) return kPortionBytes;
  return std::max<std::int64_t>(1, kPortionBytes / wanted.piece_bytes) * wanted.piece_bytes;
}

std::int64_t DivideUp(std::int64_t bytes, std::int64_t by) { return (bytes + by - 1) / by; }

}  // namespace

struct PieceHasher::OneThread {
  PortionBuffer buffer;
  PortionLeaves leaves;
  PieceSha1s sha1s;
  PieceRoots roots;
};

PieceHasher::PieceHasher(InputFile const& file, WantedHashes const& wanted, HashingJob const& job)
    : file_(file),
      wanted_(wanted),
      job_(job),
      grid_{file.size(), wanted.piece_bytes},
      unit_bytes_(UnitBytes(wanted)),
      units_(DivideUp(file.size(), unit_bytes_)),
      hashes_(RoomForPieces(file.size(), wanted)),
      helpers_(job.budget, static_cast<int>(std::min<std::int64_t>(job.threads, units_)) - 1) {}

TorrentHashes PieceHasher::Run() {
  HashUnits(Role::kOwner);
  helpers_.Join();
  error_.Rethrow();
  return std::move(hashes_);
}

void PieceHasher::HashUnits(Role role) {
  try {
    OneThread thread{PortionBuffer(std::min(file_.size(), kPortionBytes)),
                     {},
                     PieceSha1s(grid_, hashes_.v1),
                     PieceRoots(grid_, hashes_.v2)};
    while (!error_.is_set() && !job_.control.is_cancelled()) {
      if (role == Role::kHelper && job_.budget.IsExceeded()) return;
      // Again at each unit: other jobs end, and leave their threads to this one.
      if (role == Role::kOwner && next_ + 1 < units_) {
        helpers_.Hire([this] { HashUnits(Role::kHelper); });
      }
      std::int64_t const unit = next_++;
      if (unit >= units_) return;
      HashUnit(unit, thread);
    }
  } catch (...) {
    error_.KeepCurrent();
  }
}

void PieceHasher::HashUnit(std::int64_t unit, OneThread& thread) {
  std::int64_t const begin = unit * unit_bytes_;
  std::int64_t const end = std::min(begin + unit_bytes_, file_.size());
  if (wanted_.v1) {
    thread.sha1s.Begin(begin / grid_.piece_bytes);
    thread.roots.Begin(begin / grid_.piece_bytes);
  }
  for (std::int64_t offset = begin; offset < end;) {
    if (job_.control.is_cancelled()) return;
    auto const part = thread.buffer.First(std::min(thread.buffer.size(), end - offset));
    file_.ReadAt(offset, part);
    if (!wanted_.v1) {
      HashTrees(offset, part, thread);
    } else {
      thread.sha1s.Update(part);
      if (wanted_.v2) thread.roots.Add(thread.leaves.Hash(part));
    }
    offset += part.size();
    Report(part.size());
  }
}

void PieceHasher::HashTrees(std::int64_t offset, lt::span<char const> bytes, OneThread& thread) {
  auto leaves = thread.leaves.Hash(bytes);
  if (grid_.piece_bytes <= kPortionBytes) {
    thread.roots.Begin(offset / grid_.piece_bytes);
    thread.roots.Add(leaves);
    return;
  }
  auto const width = std::min(kPortionBytes / kBlockBytes, grid_.tree_width());
  AddSubtree(offset, TreeRoot(leaves, 1, width));
}

void PieceHasher::AddSubtree(std::int64_t offset, lt::sha256_hash const& root) {
  std::int64_t const piece = offset / grid_.piece_bytes;
  std::lock_guard<std::mutex> const lock(mutex_);
  Subtrees& subtrees = unfinished_[piece];
  if (subtrees.roots.empty()) {
    subtrees.missing = DivideUp(grid_.BytesOf(piece), kPortionBytes);
    subtrees.roots.resize(static_cast<std::size_t>(subtrees.missing));
  }
  subtrees.roots[static_cast<std::size_t>(offset % grid_.piece_bytes / kPortionBytes)] = root;
  if (--subtrees.missing > 0) return;
  std::int64_t const node_leaves = std::min(kPortionBytes / kBlockBytes, grid_.tree_width());
  hashes_.v2[static_cast<std::size_t>(piece)] =
      TreeRoot(subtrees.roots, node_leaves, grid_.tree_width());
  unfinished_.erase(piece);
}

void PieceHasher::Report(std::int64_t bytes) {
  std::lock_guard<std::mutex> const lock(mutex_);
  hashed_bytes_ += bytes;
  job_.report(hashed_bytes_);
}

}  // namespace llmpt
