#include "hash_pipeline.h"

#include "convert.h"
#include "lane_hasher.h"
#include "piece_grid.h"
#include "piece_hasher.h"

namespace llmpt {

TorrentHashes RoomForPieces(std::int64_t file_bytes, WantedHashes const& wanted) {
  TorrentHashes room;
  if (!wanted.v1 && !wanted.v2) return room;
  auto const pieces = static_cast<std::size_t>(PieceGrid{file_bytes, wanted.piece_bytes}.pieces());
  if (wanted.v1) room.v1.resize(pieces);
  if (wanted.v2) room.v2.resize(pieces);
  return room;
}

FileHashes HashFileOnce(InputFile const& file, WantedHashes const& wanted, HashingJob const& job) {
  FileHashes hashes;
  if (wanted.sha256 || wanted.git_sha1) {
    hashes = LaneHasher(file, wanted, job).Run();
  } else if (wanted.v1 || wanted.v2) {
    hashes.pieces = PieceHasher(file, wanted, job).Run();
  }
  job.control.ThrowIfCancelled();
  file.RequireUnchanged();
  return hashes;
}

void SetDigests(Napi::Object object, FileHashes const& hashes) {
  if (hashes.sha256) object.Set("sha256", ToHex(*hashes.sha256));
  if (hashes.git_sha1) object.Set("gitSha1", ToHex(*hashes.git_sha1));
}

}  // namespace llmpt
