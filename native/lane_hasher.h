// Digests of a whole file, and whatever else is wanted of the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <libtorrent/hasher.hpp>
#include <libtorrent/span.hpp>
#include <vector>

#include "first_error.h"
#include "hash_pipeline.h"
#include "piece_sha1s.h"
#include "piece_tree.h"
#include "portion.h"
#include "portion_ring.h"
#include "sha256_kernels.h"

namespace llmpt {

/// A lane is a hash that needs the bytes in order. Neighbouring lanes share a thread when there are
/// more of them than threads; the payload is read once in any case.
class LaneHasher {
 public:
  LaneHasher(InputFile const& file, WantedHashes const& wanted, HashingJob const& job);
  FileHashes Run();

 private:
  /// Takes the portions of the file in order. One thread at a time.
  using Lane = std::function<void(lt::span<char const>)>;

  struct Crew {
    PortionRing* ring;
    std::size_t threads;
  };

  bool LeavesRide() const;
  void AddLanes();
  /// One thread's share of the lanes, through the whole file.
  void RunShare(std::shared_future<Crew> const& crew, std::size_t thread);

  InputFile const& file_;
  WantedHashes const& wanted_;
  HashingJob const& job_;
  FileHashes hashes_;
  FirstError error_;

  lt::hasher256 sha256_;
  /// Instead of `sha256_`, where the leaves ride along.
  StreamSha256 sha256_with_leaves_;
  lt::hasher git_sha1_;
  PieceSha1s piece_sha1s_;
  PieceRoots piece_roots_;
  PortionLeaves leaves_;
  std::vector<Lane> lanes_;
};

}  // namespace llmpt
