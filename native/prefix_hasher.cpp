#include "prefix_hasher.h"

#include <algorithm>
#include <utility>

#include "convert.h"
#include "errors.h"

namespace llmpt {

namespace {

constexpr char kOperation[] = "fileDigest";
constexpr std::int64_t kReadBytes = 1 << 20;

}  // namespace

PrefixHasher::PrefixHasher(Request request) : request_(std::move(request)) {
  // git hashes "blob <size>", a NUL, and the content.
  std::string const header = "blob " + std::to_string(request_.size);
  git_sha1_.update({header.c_str(), static_cast<std::ptrdiff_t>(header.size() + 1)});
}

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
  std::vector<char> buffer(static_cast<std::size_t>(std::min(request_.size, kReadBytes)));
  for (std::int64_t offset = 0; offset < request_.size;) {
    auto const bytes =
        std::min(static_cast<std::int64_t>(buffer.size()), WaitBeyond(offset) - offset);
    lt::span<char> const part(buffer.data(), static_cast<std::ptrdiff_t>(bytes));
    file.ReadAt(offset, part);
    read_ += bytes;
    Update(part);
    offset += bytes;
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
  if (request_.sha256) sha256_.update(bytes);
  if (request_.git_sha1) git_sha1_.update(bytes);
  if (request_.torrent) UpdateTree(bytes);
}

void PrefixHasher::UpdateTree(lt::span<char const> bytes) {
  std::int64_t const piece_length = request_.torrent->piece_length;
  while (!bytes.empty()) {
    auto const part = bytes.first(static_cast<std::ptrdiff_t>(
        std::min<std::int64_t>(piece_length - tree_bytes_, bytes.size())));
    tree_.Update(part);
    tree_bytes_ += part.size();
    bytes = bytes.subspan(part.size());
    if (tree_bytes_ < piece_length) continue;
    hashes_.v2.push_back(tree_.TakeRoot(TreeWidth(piece_length)));
    tree_bytes_ = 0;
  }
}

PrefixDigests PrefixHasher::Finish() {
  PrefixDigests digests;
  digests.size = request_.size;
  if (request_.sha256) digests.sha256 = ToHex(sha256_.final());
  if (request_.git_sha1) digests.git_sha1 = ToHex(git_sha1_.final());
  if (!request_.torrent || request_.size == 0) return digests;
  std::int64_t const piece_length = request_.torrent->piece_length;
  if (tree_bytes_ > 0) {
    auto const width = TreeWidth(hashes_.v2.empty() ? tree_bytes_ : piece_length);
    hashes_.v2.push_back(tree_.TakeRoot(width));
  }
  digests.torrent = MakeTorrentFile(*request_.torrent, request_.size, hashes_);
  return digests;
}

}  // namespace llmpt
