// A disk backend for libtorrent, inline in its network thread.
//
// libtorrent 2.0.8 comes with two. One maps files into memory, and for that takes the process's
// SIGSEGV and SIGBUS handlers, which WebAssembly in Node needs. The other opens and closes a file
// for every 16 KiB block and reads all it wrote again to hash it. This one keeps descriptors open,
// hashes bytes while they are in memory and reads ahead for peers; it installs nothing, has no
// thread, and its memory does not grow with the torrent. Figures: docs/notes/0008-disk-backend.md.
//
// What differs from libtorrent's own, on purpose: no symbolic link inside the save path is followed
// and none is made; a torrent that was added in seed mode is never written to; a file that was
// there and is gone is an error instead of being made anew; there are no part files (a file that is
// not wanted but shares a piece with one that is gets those bytes at its place); files are not
// linked from other torrents.
#pragma once

#include <libtorrent/session_params.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <libtorrent/units.hpp>
#include <memory>
#include <optional>

namespace llmpt {

/// Between a session's disk backend and whoever tells its torrents of pieces that somebody else has
/// written. Used on libtorrent's network thread alone.
class WrittenElsewhere {
 public:
  /// The backend asks this of each block and piece it is given.
  bool Is(lt::piece_index_t piece) const { return piece_ == piece; }

  /// Hands `piece` to libtorrent as if it had just come, without bytes: they are in the torrent's
  /// file. All of it happens within this call: libtorrent writes each block it lacks, which is
  /// ignored, and has the piece hashed, which reads the file.
  void Announce(lt::torrent_handle const& torrent, lt::piece_index_t piece, int padded_bytes);

 private:
  std::optional<lt::piece_index_t> piece_;
};

lt::disk_io_constructor_type DiskIoConstructor(std::shared_ptr<WrittenElsewhere> elsewhere);

}  // namespace llmpt
