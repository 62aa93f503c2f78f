#include "disk_storage.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <libtorrent/torrent_flags.hpp>
#include <set>
#include <utility>

#include "disk_io.h"

namespace llmpt {

namespace {

std::size_t IndexOf(lt::file_index_t file) {
  return static_cast<std::size_t>(static_cast<int>(file));
}

/// Runs `act`, and says of which file it failed.
template <typename Act>
auto OnFile(lt::file_index_t file, Act act) -> decltype(act()) {
  try {
    return act();
  } catch (FileFailure const& failure) {
    throw lt::storage_error(failure.error, file, failure.operation);
  }
}

bool IsMissing(lt::storage_error const& error) {
  return error.ec == lt::error_code(ENOENT, lt::generic_category());
}

void ReadFully(int fd, std::int64_t offset, lt::span<char> bytes) {
  while (!bytes.empty()) {
    ssize_t const count = pread(fd, bytes.data(), static_cast<std::size_t>(bytes.size()), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) ThrowErrno(errno, lt::operation_t::file_read);
    if (count == 0) throw FileFailure{lt::errors::file_too_short, lt::operation_t::file_read};
    bytes = bytes.subspan(count);
    offset += count;
  }
}

void WriteFully(int fd, std::int64_t offset, lt::span<char const> bytes) {
  while (!bytes.empty()) {
    ssize_t const count = pwrite(fd, bytes.data(), static_cast<std::size_t>(bytes.size()), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) ThrowErrno(errno, lt::operation_t::file_write);
    // Some file systems in user space do that; trying again would never end.
    if (count == 0) ThrowErrno(EIO, lt::operation_t::file_write);
    bytes = bytes.subspan(count);
    offset += count;
  }
}

}  // namespace

DiskStorage::DiskStorage(lt::storage_params const& params, FilePool& pool, StorageId id)
    : original_(params.files),
      save_path_(params.path),
      priorities_(params.priorities.begin(), params.priorities.end()),
      pool_(pool),
      id_(id),
      has_been_(static_cast<std::size_t>(params.files.num_files())),
      is_read_only_(params.mode == kReadOnly) {
  if (params.mapped_files != nullptr) {
    renamed_ = std::make_unique<lt::file_storage>(*params.mapped_files);
  }
}

DiskStorage::~DiskStorage() { CloseFiles(); }

template <typename Visit>
void DiskStorage::ForEachSlice(lt::piece_index_t piece, int offset, std::int64_t length,
                               Visit visit) const {
  std::int64_t at =
      static_cast<std::int64_t>(static_cast<int>(piece)) * original_.piece_length() + offset;
  std::int64_t const end = at + length;
  for (lt::file_index_t file = original_.file_index_at_offset(at); at < end; ++file) {
    std::int64_t const within = at - original_.file_offset(file);
    std::int64_t const here = std::min(end - at, original_.file_size(file) - within);
    // Empty files have no bytes.
    if (here <= 0) continue;
    visit(file, within, here);
    at += here;
  }
}

void DiskStorage::Read(lt::piece_index_t piece, int offset, lt::span<char> bytes) {
  ForEachSlice(piece, offset, bytes.size(),
               [&](lt::file_index_t file, std::int64_t within, std::int64_t length) {
                 auto const slice = bytes.first(length);
                 bytes = bytes.subspan(length);
                 if (!IsStored(file)) {
                   std::fill(slice.begin(), slice.end(), '\0');
                   return;
                 }
                 OnFile(file, [&] { ReadFully(Open(file, Purpose::kRead), within, slice); });
               });
}

void DiskStorage::Write(lt::piece_index_t piece, int offset, lt::span<char const> bytes) {
  ForEachSlice(piece, offset, bytes.size(),
               [&](lt::file_index_t file, std::int64_t within, std::int64_t length) {
                 auto const slice = bytes.first(length);
                 bytes = bytes.subspan(length);
                 if (!IsStored(file)) return;
                 OnFile(file, [&] { WriteFully(Open(file, Purpose::kWrite), within, slice); });
               });
}

bool DiskStorage::HasPadding(lt::piece_index_t piece, int offset, int length) const {
  bool found = false;
  ForEachSlice(piece, offset, length, [&](lt::file_index_t file, std::int64_t, std::int64_t) {
    found = found || original_.pad_file_at(file);
  });
  return found;
}

int DiskStorage::Open(lt::file_index_t file, Purpose purpose) {
  bool const writes = purpose == Purpose::kWrite;
  if (writes && is_read_only_) ThrowErrno(EPERM, lt::operation_t::file_write);
  FilePool::Key const key{id_, file};
  int const open = pool_.Find(key, writes);
  if (open >= 0) return open;
  pool_.MakeRoom();
  return pool_.Keep(key, WithDescriptors([&] { return OpenAnew(file, purpose); }), writes);
}

/// Runs `act`, and once more when the process has no descriptors left: they are spent by others,
/// and the pool's are the ones that can be had again.
template <typename Act>
auto DiskStorage::WithDescriptors(Act act) const -> decltype(act()) {
  try {
    return act();
  } catch (FileFailure const& failure) {
    if (!failure.Is(EMFILE) && !failure.Is(ENFILE)) throw;
  }
  pool_.CloseAll();
  return act();
}

Descriptor DiskStorage::OpenAnew(lt::file_index_t file, Purpose purpose) {
  bool const makes = purpose == Purpose::kWrite && !has_been_[IndexOf(file)];
  FilePlace const place =
      Find(file, makes ? FilePlace::Folders::kAreMade : FilePlace::Folders::kMustExist);
  int const mode = purpose == Purpose::kWrite ? O_RDWR : O_RDONLY;
  Descriptor descriptor = place.Open(mode | (makes ? O_CREAT : 0));
  has_been_[IndexOf(file)] = true;
  return descriptor;
}

// An absolute name inside the torrent itself, as opposed to one that a file was renamed to, would
// be a stranger's: libtorrent makes none, and none is followed.
FilePlace DiskStorage::Find(lt::file_index_t file, FilePlace::Folders folders) const {
  if (!renamed_ && original_.file_absolute_path(file)) {
    ThrowErrno(EPERM, lt::operation_t::file_open);
  }
  return FilePlace::Find(save_path_, PathOf(file), folders);
}

std::string DiskStorage::PathOf(lt::file_index_t file) const { return files().file_path(file); }

std::optional<FilePlace> DiskStorage::FindExisting(lt::file_index_t file) const {
  struct stat status;
  return Status(file, status) ? std::optional(Find(file, FilePlace::Folders::kMustExist))
                              : std::nullopt;
}

bool DiskStorage::Status(lt::file_index_t file, struct stat& status) const {
  try {
    return WithDescriptors([&] { return Find(file, FilePlace::Folders::kMustExist).Stat(status); });
  } catch (FileFailure const& failure) {
    if (failure.Is(ENOENT)) return false;
    throw;
  }
}

std::int64_t DiskStorage::SizeOf(lt::file_index_t file) const {
  struct stat status;
  return Status(file, status) ? static_cast<std::int64_t>(status.st_size) : -1;
}

/// Pad files exist only in the list. Neither do we make the links a torrent asks for: they would
/// lead whoever follows them wherever a stranger wants.
bool DiskStorage::IsStored(lt::file_index_t file) const {
  return !original_.pad_file_at(file) &&
         !(original_.file_flags(file) & lt::file_storage::flag_symlink);
}

bool DiskStorage::IsUnwanted(lt::file_index_t file) const {
  return IndexOf(file) < priorities_.size() && priorities_[IndexOf(file)] == lt::dont_download;
}

DiskStorage::Findings DiskStorage::Check(lt::add_torrent_params const& resume,
                                         bool trusts_incomplete) {
  bool const seeds = bool(resume.flags & lt::torrent_flags::seed_mode);
  std::vector<std::int64_t> sizes(has_been_.size(), -1);
  bool is_any = false;
  bool is_oversized = false;
  for (lt::file_index_t const file : original_.file_range()) {
    if (!IsStored(file)) continue;
    OnFile(file, [&] {
      std::int64_t& size = sizes[IndexOf(file)] = SizeOf(file);
      has_been_[IndexOf(file)] = size >= 0;
      bool const is_to_be_made =
          size < 0 && original_.file_size(file) == 0 && !IsUnwanted(file) && !is_read_only_;
      if (is_to_be_made) {
        Open(file, Purpose::kWrite);
        size = 0;
      }
      is_any = is_any || size > 0;
      is_oversized = is_oversized || size > original_.file_size(file);
    });
  }
  auto const answer = [&](lt::status_t status, lt::storage_error error = {}) {
    return Findings{is_oversized ? status | lt::status_t::oversized_file : status, error};
  };
  if (trusts_incomplete) return answer(lt::status_t::no_error);
  if (!seeds && resume.have_pieces.empty()) {
    return answer(is_any ? lt::status_t::need_full_check : lt::status_t::no_error);
  }
  bool const claims_all =
      resume.have_pieces.size() >= original_.num_pieces() && resume.have_pieces.all_set();
  lt::storage_error const fault =
      seeds || claims_all ? VerifyComplete(sizes, seeds) : VerifyPieces(sizes, resume);
  return answer(fault ? lt::status_t::need_full_check : lt::status_t::no_error, fault);
}

/// `all`: unwanted files too.
lt::storage_error DiskStorage::VerifyComplete(std::vector<std::int64_t> const& sizes,
                                              bool all) const {
  for (lt::file_index_t const file : original_.file_range()) {
    if (!IsStored(file) || (!all && IsUnwanted(file)) || original_.file_size(file) == 0) continue;
    std::int64_t const size = sizes[IndexOf(file)];
    if (size >= original_.file_size(file)) continue;
    auto const operation = size < 0 ? lt::operation_t::file_stat : lt::operation_t::check_resume;
    return lt::storage_error(lt::errors::mismatching_file_size, file, operation);
  }
  return {};
}

/// A file of which a piece is claimed must be there.
lt::storage_error DiskStorage::VerifyPieces(std::vector<std::int64_t> const& sizes,
                                            lt::add_torrent_params const& resume) const {
  auto const end = std::min(resume.have_pieces.end_index(), original_.end_piece());
  for (lt::piece_index_t piece(0); piece < end;) {
    if (!resume.have_pieces.get_bit(piece)) {
      ++piece;
      continue;
    }
    auto const slices = original_.map_block(piece, 0, 1);
    lt::file_index_t const file = slices.front().file_index;
    bool const matters = IsStored(file) && !IsUnwanted(file);
    if (matters && sizes[IndexOf(file)] < 0) {
      return lt::storage_error(lt::errors::mismatching_file_size, file, lt::operation_t::file_stat);
    }
    // The rest of this file says nothing new.
    std::int64_t const after = original_.file_offset(file) + original_.file_size(file);
    lt::piece_index_t const next(static_cast<int>(after / original_.piece_length()));
    piece = std::max(lt::piece_index_t(static_cast<int>(piece) + 1), next);
  }
  return {};
}

void DiskStorage::Rename(lt::file_index_t file, std::string const& path) {
  if (file < lt::file_index_t(0) || file >= original_.end_file()) {
    throw lt::storage_error(lt::error_code(EINVAL, lt::generic_category()), file,
                            lt::operation_t::file_rename);
  }
  auto renamed = std::make_unique<lt::file_storage>(files());
  renamed->rename_file(file, path);
  OnFile(file, [&] {
    try {
      WithDescriptors([&] {
        // Nothing there yet: it will be made under its new name.
        auto const source = FindExisting(file);
        if (!source) {
          if (has_been_[IndexOf(file)]) ThrowErrno(ENOENT, lt::operation_t::file_rename);
          return;
        }
        source->RenameTo(
            FilePlace::Find(save_path_, renamed->file_path(file), FilePlace::Folders::kAreMade));
      });
    } catch (FileFailure const& failure) {
      throw FileFailure{failure.error, lt::operation_t::file_rename};
    }
  });
  renamed_ = std::move(renamed);
}

void DiskStorage::DeleteFiles() {
  CloseFiles();
  lt::storage_error first;
  for (lt::file_index_t const file : original_.file_range()) {
    if (!IsStored(file)) continue;
    try {
      OnFile(file, [&] {
        WithDescriptors([&] { Find(file, FilePlace::Folders::kMustExist).RemoveFile(); });
      });
    } catch (lt::storage_error const& error) {
      if (!first && !IsMissing(error)) first = error;
    }
  }
  std::fill(has_been_.begin(), has_been_.end(), false);
  lt::storage_error const of_folders = RemoveEmptyFolders();
  if (!first) first = of_folders;
  if (first) throw first;
}

lt::storage_error DiskStorage::RemoveEmptyFolders() const {
  std::set<std::string> folders;
  for (lt::file_index_t const file : original_.file_range()) {
    if (!IsStored(file) || files().file_absolute_path(file)) continue;
    std::string const path = PathOf(file);
    for (std::size_t end = path.rfind('/'); end != std::string::npos && end > 0;
         end = path.rfind('/', end - 1)) {
      if (!folders.insert(path.substr(0, end)).second) break;
    }
  }
  lt::storage_error first;
  // A folder comes before what is in it, so backwards.
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
    try {
      WithDescriptors([&] {
        FilePlace::Find(save_path_, *folder, FilePlace::Folders::kMustExist).RemoveFolder();
      });
    } catch (FileFailure const& failure) {
      if (first || failure.Is(ENOENT)) continue;
      first = lt::storage_error(failure.error, lt::file_index_t(-1), failure.operation);
    }
  }
  return first;
}

void DiskStorage::SetPriorities(std::vector<lt::download_priority_t> priorities) {
  priorities_ = std::move(priorities);
}

}  // namespace llmpt
