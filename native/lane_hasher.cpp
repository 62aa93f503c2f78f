#include "lane_hasher.h"

#include <algorithm>
#include <optional>

#include "git_blob.h"

namespace llmpt {

LaneHasher::LaneHasher(InputFile const& file, WantedHashes const& wanted, HashingJob const& job)
    : file_(file),
      wanted_(wanted),
      job_(job),
      hashes_{RoomForPieces(file.size(), wanted), {}, {}},
      git_sha1_(BeginGitBlob(file.size())),
      piece_sha1s_({file.size(), wanted.piece_bytes}, hashes_.pieces.v1),
      piece_roots_({file.size(), wanted.piece_bytes}, hashes_.pieces.v2) {
  AddLanes();
}

bool LaneHasher::LeavesRide() const {
  // Where leaf and digest are computed on one schedule, the leaves cost next to nothing.
  return wanted_.v2 && wanted_.sha256 && BestSha256Code() == Sha256Code::kShaNi;
}

void LaneHasher::AddLanes() {
  auto const add_roots = [this](auto part) { piece_roots_.Add(leaves_.Hash(part)); };
  if (LeavesRide()) {
    lanes_.emplace_back([this](auto part) {
      auto const leaves = leaves_.For(part);
      sha256_with_leaves_.UpdateWithLeaves(part, leaves);
      piece_roots_.Add(leaves);
    });
  } else {
    if (wanted_.sha256) lanes_.emplace_back([this](auto part) { sha256_.update(part); });
    if (wanted_.v2) lanes_.emplace_back(add_roots);
  }
  if (wanted_.git_sha1) lanes_.emplace_back([this](auto part) { git_sha1_.update(part); });
  if (wanted_.v1) lanes_.emplace_back([this](auto part) { piece_sha1s_.Update(part); });
}

FileHashes LaneHasher::Run() {
  auto const most = std::min<std::size_t>(static_cast<std::size_t>(job_.threads), lanes_.size());
  std::optional<PortionRing> ring;
  Helpers helpers(job_.budget, static_cast<int>(most) - 1);
  // Behind the helpers: should this fail before they know what to do, they hear of it and end.
  std::promise<Crew> promise;
  std::shared_future<Crew> const crew = promise.get_future();
  std::size_t threads = 1;
  while (helpers.Hire([this, crew, thread = threads] { RunShare(crew, thread); })) ++threads;
  // Who does what is known only now.
  ring.emplace(file_, static_cast<int>(threads), job_.report);
  promise.set_value({&*ring, threads});
  RunShare(crew, 0);
  helpers.Join();
  error_.Rethrow();
  if (wanted_.sha256) {
    hashes_.sha256 = LeavesRide() ? sha256_with_leaves_.Final() : sha256_.final();
  }
  if (wanted_.git_sha1) hashes_.git_sha1 = git_sha1_.final();
  return std::move(hashes_);
}

void LaneHasher::RunShare(std::shared_future<Crew> const& crew, std::size_t thread) {
  PortionRing* ring = nullptr;
  try {
    ring = crew.get().ring;
    std::size_t const threads = crew.get().threads;
    std::size_t const begin = lanes_.size() * thread / threads;
    std::size_t const end = lanes_.size() * (thread + 1) / threads;
    for (std::int64_t i = 0; i < ring->portions(); ++i) {
      job_.control.ThrowIfCancelled();
      auto const part = ring->Take(i);
      if (!part) return;
      for (std::size_t lane = begin; lane < end; ++lane) lanes_[lane](*part);
      ring->Release(i);
    }
  } catch (...) {
    error_.KeepCurrent();
    // The others need not wait for this thread.
    if (ring != nullptr) ring->Stop();
  }
}

}  // namespace llmpt
