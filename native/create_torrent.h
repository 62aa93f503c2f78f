// A torrent of one file. Equal content, name, piece length and format give equal info
// dictionaries, whoever makes them: no date, no attribute, no path gets in.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hash_pipeline.h"

namespace llmpt {

/// What a torrent says apart from the hashes of its file.
struct TorrentFacts {
  std::string name;
  int piece_length = 0;
  bool v1 = false;
  bool v2 = false;
  std::vector<std::string> trackers;
  /// Empty for none.
  std::string created_by;
  std::string comment;
};

struct TorrentFile {
  std::vector<char> bytes;
  std::string info_hash_v1;
  std::string info_hash_v2;
};

/// The .torrent of a file of `size` bytes. Any thread.
TorrentFile MakeTorrentFile(TorrentFacts const& facts, std::int64_t size,
                            TorrentHashes const& hashes);

/// @throws Failure when no torrent has that many pieces.
void RequirePieceCount(char const* operation, std::int64_t size, int piece_length);

/// `name`, `pieceLength`, `createdBy` and `trackers` of a JavaScript object; JavaScript thread
/// only.
TorrentFacts RequireTorrentFacts(Napi::Object object, bool v1, bool v2);

/// (options, onProgress?) => { promise, cancel }
Napi::Value CreateTorrent(Napi::CallbackInfo const& info);

}  // namespace llmpt
