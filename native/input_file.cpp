#include "input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <libtorrent/error_code.hpp>

#include "errors.h"

namespace llmpt {

namespace {

// O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
int Open(std::string const& path, LastLink link) {
  int const flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  return open(path.c_str(), link == LastLink::kRefused ? flags | O_NOFOLLOW : flags);
}

lt::error_code SizeChanged() { return lt::errors::mismatching_file_size; }

}  // namespace

InputFile::InputFile(std::string operation, std::string path, LastLink link)
    : operation_(std::move(operation)), path_(std::move(path)), fd_(Open(path_, link)) {
  if (fd_ < 0) throw SystemFailure(operation_, errno, path_);
  try {
    begin_ = Status();
  } catch (...) {
    close(fd_);
    throw;
  }
  // Only a hint: a wrong or refused one costs speed.
  static_cast<void>(posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL));
}

InputFile::~InputFile() { close(fd_); }

struct stat InputFile::Status() const {
  struct stat status;
  if (fstat(fd_, &status) != 0) throw SystemFailure(operation_, errno, path_);
  if (S_ISDIR(status.st_mode)) throw SystemFailure(operation_, EISDIR, path_);
  if (!S_ISREG(status.st_mode)) throw SystemFailure(operation_, EINVAL, path_);
  return status;
}

void InputFile::ReadAt(std::int64_t offset, lt::span<char> buffer) const {
  while (!buffer.empty()) {
    ssize_t const count =
        pread(fd_, buffer.data(), static_cast<std::size_t>(buffer.size()), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw SystemFailure(operation_, errno, path_);
    if (count == 0) throw Failure(operation_, SizeChanged(), path_);
    read_bytes_ += count;
    buffer = buffer.subspan(count);
    offset += count;
  }
}

void InputFile::Prefetch(std::int64_t offset, std::int64_t bytes) const {
  if (offset >= size()) return;
  // Only a hint: a refused one costs speed.
  static_cast<void>(posix_fadvise(fd_, offset, bytes, POSIX_FADV_WILLNEED));
}

void InputFile::RequireUnchanged() const {
  struct stat const now = Status();
  if (now.st_size != begin_.st_size) throw Failure(operation_, SizeChanged(), path_);
  // What was read before a write and what was read after it may never have been one file.
  if (now.st_mtim.tv_sec != begin_.st_mtim.tv_sec ||
      now.st_mtim.tv_nsec != begin_.st_mtim.tv_nsec) {
    throw Failure(operation_, lt::errors::mismatching_file_timestamp, path_);
  }
}

void InputFile::RequireSize(std::int64_t size) const {
  if (Status().st_size != size) throw Failure(operation_, SizeChanged(), path_);
}

}  // namespace llmpt
