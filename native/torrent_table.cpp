#include "torrent_table.h"

#include <algorithm>
#include <libtorrent/client_data.hpp>
#include <libtorrent/disk_interface.hpp>
#include <libtorrent/file_storage.hpp>
#include <libtorrent/torrent_info.hpp>

namespace llmpt {

struct IdTag {};

lt::client_data_t ToUserData(std::uint32_t id) {
  return lt::client_data_t(reinterpret_cast<IdTag*>(static_cast<std::uintptr_t>(id)));
}

std::uint32_t FromUserData(lt::client_data_t const& data) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(data.get<IdTag>()));
}

PieceLayout::PieceLayout(lt::torrent_info const& info)
    : num_pieces(info.num_pieces()),
      files_(std::make_shared<lt::file_storage const>(info.orig_files())) {}

int PieceLayout::FileBytes(int piece) const {
  lt::piece_index_t const index(piece);
  return files_->v2() ? files_->piece_size2(index) : files_->piece_size(index);
}

int PieceLayout::PaddedBytes(int piece) const {
  return files_->piece_size(lt::piece_index_t(piece));
}

int PieceLayout::Blocks(int piece) const {
  return (FileBytes(piece) + lt::default_block_size - 1) / lt::default_block_size;
}

std::uint32_t TorrentTable::Announce(std::uint32_t request,
                                     std::shared_ptr<PieceLayout const> layout,
                                     std::shared_ptr<SliceIdPlugin const> slices) {
  std::uint32_t const id = next_id_++;
  TorrentEntry& entry = entries_[id];
  entry.request = request;
  entry.layout = std::move(layout);
  entry.slices = std::move(slices);
  return id;
}

void TorrentTable::Present(std::uint32_t id, lt::torrent_handle const& handle) {
  TorrentEntry* entry = Find(id);
  if (entry == nullptr) return;
  entry->handle = handle;
  entry->life = TorrentEntry::Life::kPresent;
  ids_[handle] = id;
}

void TorrentTable::Forget(std::uint32_t id) {
  TorrentEntry* entry = Find(id);
  if (entry == nullptr) return;
  ids_.erase(entry->handle);
  entries_.erase(id);
}

TorrentEntry* TorrentTable::Find(std::uint32_t id) {
  auto const found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second;
}

std::optional<std::uint32_t> TorrentTable::IdOf(lt::torrent_handle const& handle) const {
  auto const found = ids_.find(handle);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace llmpt
