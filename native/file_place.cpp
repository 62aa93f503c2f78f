#include "file_place.h"
#include <algorithm>

#include <fcntl.h>

#include <cstdio>
#include <utility>

#include "storage_failure.h"

namespace llmpt {

namespace {

// Passing through a folder must not need the right to list it.
#ifdef O_PATH
constexpr int kFolder = O_PATH | O_DIRECTORY | O_CLOEXEC;
#else
constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
#endif

constexpr mode_t kFolderMode = 0777;
constexpr mode_t kFileMode = 0666;

bool IsLink(int folder, char const* name) {
  struct stat status;
  return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
}

int TryOpenFolder(int parent, std::string const& name, int extra) {
  return openat(parent, name.c_str(), kFolder | extra);
}

/// One step down. `extra` is O_NOFOLLOW where links are not trusted.
Descriptor OpenFolder(int parent, std::string const& name, FilePlace::Folders folders, int extra) {
  int fd = TryOpenFolder(parent, name, extra);
  if (fd < 0 && errno == ENOENT && folders == FilePlace::Folders::kAreMade) {
    // Somebody else may make it at the same time.
    if (mkdirat(parent, name.c_str(), kFolderMode) != 0 && errno != EEXIST) {
      ThrowErrno(errno, lt::operation_t::mkdir);
    }
    fd = TryOpenFolder(parent, name, extra);
  }
  if (fd < 0) {
    int const number = errno;
    // The systems do not agree on the error of O_DIRECTORY for a link that is not followed.
    bool const is_link = extra == O_NOFOLLOW && IsLink(parent, name.c_str());
    ThrowErrno(is_link ? ELOOP : number, lt::operation_t::file_open);
  }
  return Descriptor(fd);
}

/// The names of a path, one at a time.
class Names {
 public:
  explicit Names(std::string const& path) : path_(path) {}

  /// False after the last.
  bool Next(std::string& name) {
    while (at_ < path_.size() && path_[at_] == '/') ++at_;
    if (at_ == path_.size()) return false;
    std::size_t const end = std::min(path_.find('/', at_), path_.size());
    name = path_.substr(at_, end - at_);
    at_ = end;
    return true;
  }

 private:
  std::string const& path_;
  std::size_t at_ = 0;
};

/// A folder our own caller named: links in it are followed.
Descriptor OpenTrustedFolder(std::string const& path, FilePlace::Folders folders) {
  int const fd = TryOpenFolder(AT_FDCWD, path, 0);
  if (fd >= 0) return Descriptor(fd);
  if (errno != ENOENT || folders == FilePlace::Folders::kMustExist) {
    ThrowErrno(errno, lt::operation_t::file_open);
  }
  Descriptor folder = OpenFolder(AT_FDCWD, "/", folders, 0);
  Names names(path);
  for (std::string name; names.Next(name);) folder = OpenFolder(folder.get(), name, folders, 0);
  return folder;
}

}  // namespace

FilePlace FilePlace::Find(std::string const& save_path, std::string const& path, Folders folders) {
  if (!path.empty() && path.front() == '/') {
    std::size_t const slash = path.rfind('/');
    std::string const parent = slash == 0 ? "/" : path.substr(0, slash);
    return {OpenTrustedFolder(parent, folders), path.substr(slash + 1)};
  }
  Descriptor folder = OpenTrustedFolder(save_path, folders);
  Names names(path);
  std::string name;
  if (!names.Next(name)) ThrowErrno(EINVAL, lt::operation_t::file_open);
  while (true) {
    if (name == "." || name == "..") ThrowErrno(EINVAL, lt::operation_t::file_open);
    std::string next;
    if (!names.Next(next)) return {std::move(folder), std::move(name)};
    folder = OpenFolder(folder.get(), name, folders, O_NOFOLLOW);
    name = std::move(next);
  }
}

Descriptor FilePlace::Open(int flags) const {
  // O_NONBLOCK: opening a FIFO must fail below, not wait for its other end.
  Descriptor file(
      openat(folder_.get(), name_.c_str(), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, kFileMode));
  if (file.get() < 0) ThrowErrno(errno, lt::operation_t::file_open);
  struct stat status;
  if (fstat(file.get(), &status) != 0) ThrowErrno(errno, lt::operation_t::file_stat);
  if (S_ISDIR(status.st_mode)) ThrowErrno(EISDIR, lt::operation_t::file_open);
  if (!S_ISREG(status.st_mode)) ThrowErrno(EINVAL, lt::operation_t::file_open);
  return file;
}

bool FilePlace::Stat(struct stat& status) const {
  if (fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return false;
    ThrowErrno(errno, lt::operation_t::file_stat);
  }
  if (S_ISLNK(status.st_mode)) ThrowErrno(ELOOP, lt::operation_t::file_stat);
  return true;
}

bool FilePlace::RemoveFile() const {
  if (unlinkat(folder_.get(), name_.c_str(), 0) == 0) return true;
  if (errno != ENOENT) ThrowErrno(errno, lt::operation_t::file_remove);
  return false;
}

void FilePlace::RemoveFolder() const {
  if (unlinkat(folder_.get(), name_.c_str(), AT_REMOVEDIR) == 0) return;
  if (errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST) return;
  ThrowErrno(errno, lt::operation_t::file_remove);
}

void FilePlace::RenameTo(FilePlace const& target) const {
  if (renameat(folder_.get(), name_.c_str(), target.folder_.get(), target.name_.c_str()) != 0) {
    ThrowErrno(errno, lt::operation_t::file_rename);
  }
}

}  // namespace llmpt
