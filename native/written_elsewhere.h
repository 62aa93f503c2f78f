// What somebody else than libtorrent writes into the files of its torrents.
//
// A piece that is announced goes through libtorrent as if it had just come, without bytes, and each
// announce gets one answer of its own. Nothing of the piece may be under way in the disk backend
// when that begins: a hash that was asked for before would answer in its place, and a block that
// is still being written would have its peer pay for bytes it did not send. An announce therefore
// waits until the backend has told libtorrent all it has to tell of the piece.
#pragma once

#include <sys/types.h>

#include <functional>
#include <libtorrent/error_code.hpp>
#include <libtorrent/io_context.hpp>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <libtorrent/units.hpp>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "file_pool.h"

namespace llmpt {

/// An address range that reads as zeros and takes no memory. Grows, and is kept.
class NoBytes {
 public:
  NoBytes() = default;
  ~NoBytes();
  NoBytes(NoBytes const&) = delete;
  NoBytes& operator=(NoBytes const&) = delete;

  /// At least `size` of them, until the next call. @throws std::bad_alloc
  char const* Get(std::size_t size);

 private:
  void Release();

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// What libtorrent found about a piece that was announced.
struct PieceCheck {
  bool has_passed = false;
  /// It had the piece before, and did not look at it.
  bool was_there = false;
  /// Why the piece could not be checked, if so.
  lt::error_code error;
};

/// Between a session's disk backend and whoever speaks for the other writers. Shared by both, used
/// on libtorrent's network thread alone.
class WrittenElsewhere : public std::enable_shared_from_this<WrittenElsewhere> {
 public:
  using Key = std::pair<StorageId, lt::piece_index_t>;
  using Answer = std::function<void(PieceCheck const&)>;

  /// One announce, from when libtorrent is given the piece until it has said what it thinks of it.
  struct Announcement {
    lt::torrent_handle torrent;
    lt::piece_index_t piece;
    int padded_bytes;
    Answer answer;
    /// Why the file could not be read.
    lt::error_code error;
  };

  /// Has the piece checked where it lies. `answer` is called once, later, unless the torrent ends
  /// first.
  void Announce(lt::torrent_handle const& torrent, lt::piece_index_t piece, int padded_bytes,
                Answer answer);
  /// From now on somebody else may write into these pieces: what the backend has seen of them on
  /// the way to the disk is not what is there.
  void Share(lt::torrent_handle const& torrent, lt::piece_index_t first, lt::piece_index_t end);

  // For the backend.

  void Attach(lt::io_context& context) { context_ = &context; }
  void Present(StorageId storage, lt::sha1_hash const& info_hash);
  void Gone(StorageId storage);
  /// The backend has something to tell libtorrent of a piece; and has told it.
  void Begin(Key key) { ++under_way_[key]; }
  void End(Key key);
  /// Whether libtorrent writes what is there already: it is to be left as it is.
  bool IsGiven(lt::piece_index_t piece) const { return given_ == piece; }
  /// What a hash that libtorrent asks for at this moment is to settle, if anything.
  std::shared_ptr<Announcement> TakeHash(lt::piece_index_t piece);
  /// libtorrent has heard the hash.
  void Conclude(Announcement const& announcement);
  bool IsShared(Key key) const { return shared_.count(key) > 0; }
  /// Makes nobody answerable for a shared piece of which libtorrent is about to hear the hash.
  void Disown(Key key, int padded_bytes);

 private:
  void Try(std::shared_ptr<Announcement> const& announcement);
  void Give(lt::torrent_handle const& torrent, lt::piece_index_t piece, int padded_bytes);
  /// Behind everything that the backend has to tell now.
  void Later(std::function<void()> act);
  std::optional<StorageId> StorageOf(lt::torrent_handle const& torrent) const;

  lt::io_context* context_ = nullptr;
  NoBytes nothing_;
  std::map<lt::sha1_hash, StorageId> storages_;
  std::map<Key, int> under_way_;
  std::map<Key, lt::torrent_handle> shared_;
  std::optional<lt::piece_index_t> given_;
  /// Until libtorrent asks for the hash, within the call that gives the piece.
  std::shared_ptr<Announcement> announced_;
};

}  // namespace llmpt
