// The memory that blocks for peers are read into.
#pragma once

#include <algorithm>
#include <cstdint>
#include <libtorrent/disk_buffer_holder.hpp>
#include <libtorrent/error_code.hpp>
#include <libtorrent/span.hpp>
#include <libtorrent/units.hpp>
#include <list>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "file_pool.h"

namespace llmpt {

/// Owns the buffers. Peers ask for one block after the other, so one read brings several: a chunk,
/// which stays here for a while and is shared by everybody who sends from it. A chunk never reaches
/// beyond its piece: the bytes of another one may still change.
class ReadBuffers final : public lt::buffer_allocator_interface {
 public:
  /// What is read: `length` bytes from `offset` of a piece of `piece_bytes`.
  struct Wanted {
    StorageId storage;
    lt::piece_index_t piece;
    int piece_bytes;
    int offset;
    int length;
  };

  /// `fill(offset, bytes)` reads from the piece, and throws an lt::storage_error when it cannot.
  template <typename Fill>
  lt::disk_buffer_holder Read(Wanted const& wanted, Fill fill);

  /// Nobody will be given these bytes any more; who has them already keeps them.
  void Forget(StorageId storage, lt::piece_index_t piece);
  void Forget(StorageId storage);

  void free_disk_buffer(char* bytes) override;

 private:
  static constexpr int kChunkBytes = 128 * 1024;

  using Place = std::tuple<StorageId, lt::piece_index_t, int>;
  using Bytes = std::unique_ptr<char[]>;
  struct Chunk {
    Bytes bytes;
    int size;
    Place place;
    int holders = 0;
    bool is_cached = false;
  };
  /// By address, so that a pointer into a chunk finds it.
  using Chunks = std::map<char const*, Chunk>;

  /// The chunk that has all of it, or null.
  Chunk* Find(Wanted const& wanted);
  bool MayReadAhead(Wanted const& wanted) const;
  Bytes Allocate(int size);
  Chunk& Insert(Bytes bytes, int size);
  void Cache(Chunk& chunk, Place place);
  void Uncache(Place place);
  void Recycle(Bytes bytes, int size);
  lt::disk_buffer_holder Share(Chunk& chunk, int offset, int length);

  Chunks chunks_;
  std::map<Place, std::list<Chunk*>::iterator> cached_;
  std::list<Chunk*> recent_;  // of the cached ones, most recently used first
  std::vector<Bytes> spare_;
  std::int64_t held_bytes_ = 0;
};

template <typename Fill>
lt::disk_buffer_holder ReadBuffers::Read(Wanted const& wanted, Fill fill) {
  if (Chunk* const chunk = Find(wanted))
    return Share(*chunk, wanted.offset % kChunkBytes, wanted.length);
  if (MayReadAhead(wanted)) {
    int const begin = wanted.offset - wanted.offset % kChunkBytes;
    int const size = std::min(kChunkBytes, wanted.piece_bytes - begin);
    Bytes bytes = Allocate(size);
    try {
      fill(begin, lt::span<char>(bytes.get(), size));
      Chunk& chunk = Insert(std::move(bytes), size);
      Cache(chunk, {wanted.storage, wanted.piece, begin});
      return Share(chunk, wanted.offset - begin, wanted.length);
    } catch (lt::storage_error const&) {
      // What was asked for may be readable where the rest is not.
      Recycle(std::move(bytes), size);
    }
  }
  Bytes bytes = Allocate(wanted.length);
  fill(wanted.offset, lt::span<char>(bytes.get(), wanted.length));
  return Share(Insert(std::move(bytes), wanted.length), 0, wanted.length);
}

}  // namespace llmpt
