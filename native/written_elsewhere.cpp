#include "written_elsewhere.h"

#include <sys/mman.h>

#include <boost/asio/post.hpp>
#include <libtorrent/info_hash.hpp>
#include <new>

namespace llmpt {

NoBytes::~NoBytes() { Release(); }

void NoBytes::Release() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

char const* NoBytes::Get(std::size_t size) {
  if (size > size_) {
    Release();
    void* const data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    data_ = data;
    size_ = size;
  }
  return static_cast<char const*>(data_);
}

void WrittenElsewhere::Announce(lt::torrent_handle const& torrent, lt::piece_index_t piece,
                                int padded_bytes, Answer answer) {
  Try(std::make_shared<Announcement>(
      Announcement{torrent, piece, padded_bytes, std::move(answer), {}}));
}

void WrittenElsewhere::Try(std::shared_ptr<Announcement> const& announcement) try {
  auto const& [torrent, piece, padded_bytes, answer, error] = *announcement;
  auto const storage = StorageOf(torrent);
  // The torrent is ending: its removal answers whoever waits.
  if (!storage) return;
  if (under_way_.count({*storage, piece}) > 0) {
    return Later([self = shared_from_this(), announcement] { self->Try(announcement); });
  }
  if (torrent.have_piece(piece)) return answer({true, true, {}});
  announced_ = announcement;
  Give(torrent, piece, padded_bytes);
  // libtorrent passes over a piece in silence while it looks at what is on disk.
  if (std::exchange(announced_, nullptr) != nullptr) {
    answer({false, false, make_error_code(boost::system::errc::resource_unavailable_try_again)});
  }
} catch (lt::system_error const&) {
  // The torrent ended meanwhile; its removal answers whoever waits.
  announced_.reset();
} catch (std::bad_alloc const&) {
  announced_.reset();
  announcement->answer({false, false, make_error_code(boost::system::errc::not_enough_memory)});
}

void WrittenElsewhere::Give(lt::torrent_handle const& torrent, lt::piece_index_t piece,
                            int padded_bytes) {
  char const* const nothing = nothing_.Get(static_cast<std::size_t>(padded_bytes));
  given_ = piece;
  try {
    // On this thread the call is made at once: libtorrent writes each block, which is ignored,
    // and has the piece hashed when it lacked any.
    torrent.add_piece(piece, nothing, lt::torrent_handle::overwrite_existing);
  } catch (...) {
    given_.reset();
    throw;
  }
  given_.reset();
}

std::shared_ptr<WrittenElsewhere::Announcement> WrittenElsewhere::TakeHash(
    lt::piece_index_t piece) {
  return IsGiven(piece) ? std::exchange(announced_, nullptr) : nullptr;
}

// A piece that failed is cleared next, and may be announced anew only then.
void WrittenElsewhere::Conclude(Announcement const& announcement) try {
  bool const has_passed = announcement.torrent.have_piece(announcement.piece);
  PieceCheck const check{has_passed, false, has_passed ? lt::error_code() : announcement.error};
  Later([answer = announcement.answer, check] { answer(check); });
} catch (lt::system_error const&) {
  // The torrent ended meanwhile.
}

void WrittenElsewhere::Share(lt::torrent_handle const& torrent, lt::piece_index_t first,
                             lt::piece_index_t end) try {
  auto const storage = StorageOf(torrent);
  if (!storage) return;
  for (lt::piece_index_t piece = first; piece < end; ++piece) {
    shared_.emplace(Key{*storage, piece}, torrent);
  }
} catch (lt::system_error const&) {
  // The torrent ended meanwhile.
}

// As the last to bring each block counts nobody, and libtorrent takes a piece that nobody sent, and
// that is wrong, for one it found on disk. All blocks are there: it will not ask for a hash.
void WrittenElsewhere::Disown(Key key, int padded_bytes) try {
  auto const found = shared_.find(key);
  if (found != shared_.end()) Give(found->second, key.second, padded_bytes);
} catch (lt::system_error const&) {
  // The torrent ended meanwhile.
} catch (std::bad_alloc const&) {
  // Somebody may be blamed; nothing else is lost.
}

void WrittenElsewhere::Present(StorageId storage, lt::sha1_hash const& info_hash) {
  storages_[info_hash] = storage;
}

void WrittenElsewhere::Gone(StorageId storage) {
  for (auto at = storages_.begin(); at != storages_.end();) {
    at = at->second == storage ? storages_.erase(at) : std::next(at);
  }
  auto const first = Key{storage, lt::piece_index_t(0)};
  auto const end = Key{storage + 1, lt::piece_index_t(0)};
  shared_.erase(shared_.lower_bound(first), shared_.lower_bound(end));
}

void WrittenElsewhere::End(Key key) {
  auto const found = under_way_.find(key);
  if (found != under_way_.end() && --found->second == 0) under_way_.erase(found);
}

void WrittenElsewhere::Later(std::function<void()> act) {
  boost::asio::post(*context_, std::move(act));
}

std::optional<StorageId> WrittenElsewhere::StorageOf(lt::torrent_handle const& torrent) const {
  auto const found = storages_.find(torrent.info_hashes().get_best());
  if (found == storages_.end()) return std::nullopt;
  return found->second;
}

}  // namespace llmpt
