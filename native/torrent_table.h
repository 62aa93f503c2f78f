// The torrents of one session by our own numbers. libtorrent's handles cannot be named in
// JavaScript: `torrent_handle::id()` is derived from an address and reused.
#pragma once

#include <cstdint>
#include <libtorrent/fwd.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <map>
#include <memory>
#include <optional>

#include "slice_id_plugin.h"

namespace llmpt {

/// What adding a piece needs to know of a torrent, copied out: libtorrent's thread goes on
/// changing its torrent_info.
struct PieceLayout {
  explicit PieceLayout(lt::torrent_info const& info);

  /// Bytes of files in `piece`: what its owner has.
  int FileBytes(int piece) const;
  /// Bytes that libtorrent takes for `piece`.
  int PaddedBytes(int piece) const;
  /// 16 KiB blocks that hold the bytes of files in `piece`.
  int Blocks(int piece) const;

  int num_pieces;

 private:
  std::shared_ptr<lt::file_storage const> files_;
};

struct TorrentEntry {
  std::uint32_t request = 0;
  lt::torrent_handle handle;
  /// Absent before the metadata is known.
  std::shared_ptr<PieceLayout const> layout;
  /// Only libtorrent's thread may look into it.
  std::shared_ptr<SliceIdPlugin const> slices;
  enum class Life { kAdding, kPresent, kLeaving } life = Life::kAdding;
  bool deletes_files = false;
};

/// JavaScript thread only.
class TorrentTable {
 public:
  /// A torrent that is about to be added. Ids are unique in the session and never reused.
  std::uint32_t Announce(std::uint32_t request, std::shared_ptr<PieceLayout const> layout,
                         std::shared_ptr<SliceIdPlugin const> slices);
  void Present(std::uint32_t id, lt::torrent_handle const& handle);
  void Forget(std::uint32_t id);

  TorrentEntry* Find(std::uint32_t id);
  /// Works for handles of torrents that are gone, too.
  std::optional<std::uint32_t> IdOf(lt::torrent_handle const& handle) const;

 private:
  std::uint32_t next_id_ = 1;
  std::map<std::uint32_t, TorrentEntry> entries_;
  // Ordered by the owner of the weak pointer: valid after the torrent's end, and the entry keeps
  // the control block from being reused.
  std::map<lt::torrent_handle, std::uint32_t> ids_;
};

/// How an id travels through libtorrent: as the torrent's `userdata`, which is never dereferenced.
struct IdTag;
lt::client_data_t ToUserData(std::uint32_t id);
std::uint32_t FromUserData(lt::client_data_t const& data);

}  // namespace llmpt
