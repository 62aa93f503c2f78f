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
// linked from other torrents, and not moved.
#pragma once

#include <libtorrent/session_params.hpp>
#include <libtorrent/storage_defs.hpp>
#include <memory>

#include "written_elsewhere.h"

namespace llmpt {

/// The storage mode of a torrent that is never to be written to. libtorrent hands the backend
/// nothing else that says so: it does not even have the files checked of one that is added with
/// `no_verify_files`.
inline constexpr lt::storage_mode_t kReadOnly = lt::storage_mode_allocate;

lt::disk_io_constructor_type DiskIoConstructor(std::shared_ptr<WrittenElsewhere> elsewhere);

}  // namespace llmpt
