#include "prefix_hasher.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "convert.h"
#include "errors.h"
#include "git_blob.h"

namespace llmpt {

namespace {

constexpr char kOperation[] = "fileDigest";
WantedHashes ToWanted(PrefixHasher::Request const& request) {
  WantedHashes wanted;
  wanted.sha256 = request.sha256;
  wanted.git_sha1 = request.git_sha1;
  wanted.v2 = request.torrent.has_value();
  if (request.torrent) wanted.piece_bytes = request.torrent->piece_length;
  return wanted;
}

}  // namespace

PrefixHasher::PrefixHasher(Request request)
    : request_(std::move(request)),
      wanted_(ToWanted(request_)),
      pieces_(RoomForPieces(request_.size, wanted_)),
      git_sha1_(BeginGitBlob(request_.size)),
      roots_({request_.size, wanted_.piece_bytes}, pieces_.v2) {}

void PrefixHasher::Open() {
  if (!file_) file_ = std::make_unique<InputFile>(kOperation, request_.path, LastLink::kRefused);
}

// Under the lock, or the other thread could look just before and fall asleep just after.
void PrefixHasher::Advance(std::int64_t end) {
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    end_ = end;
  }
  moved_.notify_one();
}

void PrefixHasher::Cancel() {
  {
    std::lock_guard<std::mutex> const lock(mutex_);
    is_cancelled_ = true;
  }
  moved_.notify_one();
}

PrefixDigests PrefixHasher::Run() {
  auto const file = std::move(file_);
  if (request_.size > 0) HashAll(*file);
  return Finish();
}

void PrefixHasher::HashAll(InputFile const& file) {
  PortionBuffer buffer(std::min(request_.size, kPortionBytes));
  // Leaves are hashed in one go: the beginning of a block waits in the buffer for the rest of it.
  std::int64_t waiting = 0;
  for (std::int64_t offset = 0; offset < request_.size;) {
    auto const bytes = std::min(buffer.size() - waiting, WaitBeyond(offset) - offset);
    auto const filled = buffer.First(waiting + bytes);
    file.ReadAt(offset, filled.subspan(static_cast<std::ptrdiff_t>(waiting)));
    read_ += bytes;
    offset += bytes;
    bool const is_all = !wanted_.v2 || offset == request_.size;
    auto const ready = is_all ? filled : filled.first(filled.size() / kBlockBytes * kBlockBytes);
    Update(ready);
    waiting = filled.size() - ready.size();
    std::memmove(filled.data(), ready.end(), static_cast<std::size_t>(waiting));
    hashed_ = offset;
  }
  // The digests of a part are not those of the file, and what was cut off may come back different.
  file.RequireSize(request_.size);
}

std::int64_t PrefixHasher::WaitBeyond(std::int64_t offset) {
  std::unique_lock<std::mutex> lock(mutex_);
  moved_.wait(lock, [&] { return is_cancelled_ || end_ > offset; });
  if (is_cancelled_) throw Cancelled(kOperation);
  return end_;
}

void PrefixHasher::Update(lt::span<char const> bytes) {
  if (wanted_.v2) {
    auto const leaves = leaves_.For(bytes);
    if (wanted_.sha256) {
      sha256_with_leaves_.UpdateWithLeaves(bytes, leaves);
    } else {
      leaves_.Hash(bytes);
    }
    roots_.Add(leaves);
  } else if (wanted_.sha256) {
    sha256_.update(bytes);
  }
  if (wanted_.git_sha1) git_sha1_.update(bytes);
}

PrefixDigests PrefixHasher::Finish() {
  PrefixDigests digests;
  digests.size = request_.size;
  if (wanted_.sha256) {
    digests.sha256 = ToHex(wanted_.v2 ? sha256_with_leaves_.Final() : sha256_.final());
  }
  if (wanted_.git_sha1) digests.git_sha1 = ToHex(git_sha1_.final());
  if (wanted_.v2 && request_.size > 0) {
    digests.torrent = MakeTorrentFile(*request_.torrent, request_.size, pieces_);
  }
  return digests;
}

}  // namespace llmpt
