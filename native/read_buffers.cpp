#include "read_buffers.h"

#include <utility>

namespace llmpt {

namespace {

constexpr std::size_t kCachedChunks = 32;
constexpr std::size_t kSpareChunks = 8;
/// A block that a slow peer has not taken yet keeps a whole chunk: beyond this, blocks are read
/// alone.
constexpr std::int64_t kMaxChunkedBytes = 32 * 1024 * 1024;

}  // namespace

void ReadBuffers::Forget(StorageId storage, lt::piece_index_t piece) {
  auto at = cached_.lower_bound({storage, piece, 0});
  while (at != cached_.end() && std::get<0>(at->first) == storage &&
         std::get<1>(at->first) == piece) {
    Uncache((at++)->first);
  }
}

void ReadBuffers::Forget(StorageId storage) {
  auto at = cached_.lower_bound({storage, lt::piece_index_t(0), 0});
  while (at != cached_.end() && std::get<0>(at->first) == storage) Uncache((at++)->first);
}

void ReadBuffers::free_disk_buffer(char* bytes) {
  auto const found = std::prev(chunks_.upper_bound(bytes));
  Chunk& chunk = found->second;
  if (--chunk.holders > 0 || chunk.is_cached) return;
  Recycle(std::move(chunk.bytes), chunk.size);
  held_bytes_ -= chunk.size;
  chunks_.erase(found);
}

ReadBuffers::Chunk* ReadBuffers::Find(Wanted const& wanted) {
  int const within = wanted.offset % kChunkBytes;
  auto const found = cached_.find({wanted.storage, wanted.piece, wanted.offset - within});
  if (found == cached_.end()) return nullptr;
  Chunk* const chunk = *found->second;
  if (within + wanted.length > chunk->size) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return chunk;
}

bool ReadBuffers::MayReadAhead(Wanted const& wanted) const {
  return wanted.offset % kChunkBytes + wanted.length <= kChunkBytes &&
         held_bytes_ < kMaxChunkedBytes;
}

ReadBuffers::Bytes ReadBuffers::Allocate(int size) {
  if (size != kChunkBytes || spare_.empty()) return Bytes(new char[static_cast<std::size_t>(size)]);
  Bytes bytes = std::move(spare_.back());
  spare_.pop_back();
  return bytes;
}

ReadBuffers::Chunk& ReadBuffers::Insert(Bytes bytes, int size) {
  char const* const address = bytes.get();
  Chunk& chunk = chunks_[address];
  chunk.bytes = std::move(bytes);
  chunk.size = size;
  held_bytes_ += size;
  return chunk;
}

void ReadBuffers::Cache(Chunk& chunk, Place place) {
  Uncache(place);
  chunk.place = place;
  chunk.is_cached = true;
  recent_.push_front(&chunk);
  cached_[place] = recent_.begin();
  if (recent_.size() > kCachedChunks) Uncache(recent_.back()->place);
}

void ReadBuffers::Uncache(Place place) {
  auto const found = cached_.find(place);
  if (found == cached_.end()) return;
  Chunk& chunk = **found->second;
  recent_.erase(found->second);
  cached_.erase(found);
  chunk.is_cached = false;
  if (chunk.holders > 0) return;
  char const* const address = chunk.bytes.get();
  Recycle(std::move(chunk.bytes), chunk.size);
  held_bytes_ -= chunk.size;
  chunks_.erase(address);
}

void ReadBuffers::Recycle(Bytes bytes, int size) {
  if (size == kChunkBytes && spare_.size() < kSpareChunks) spare_.push_back(std::move(bytes));
}

lt::disk_buffer_holder ReadBuffers::Share(Chunk& chunk, int offset, int length) {
  ++chunk.holders;
  return lt::disk_buffer_holder(*this, chunk.bytes.get() + offset, length);
}

}  // namespace llmpt
