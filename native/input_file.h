// A regular file whose bytes are read once each.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <libtorrent/span.hpp>
#include <string>

namespace llmpt {

/// Whether a symbolic link at the end of the path leads to the file, or is a failure.
enum class LastLink { kFollowed, kRefused };

/// Owns the descriptor. Reading is safe from several threads at once. Every failure names
/// `operation` and the path.
class InputFile {
 public:
  InputFile(std::string operation, std::string path, LastLink link = LastLink::kFollowed);
  ~InputFile();
  InputFile(InputFile const&) = delete;
  InputFile& operator=(InputFile const&) = delete;

  /// Size when it was opened.
  std::int64_t size() const { return begin_.st_size; }
  /// All that was read so far.
  std::int64_t read_bytes() const { return read_bytes_; }
  /// Fills `buffer`. @throws Failure when the file ends before.
  void ReadAt(std::int64_t offset, lt::span<char> buffer) const;
  /// Has the system read `bytes` from `offset` on ahead, without waiting for it.
  void Prefetch(std::int64_t offset, std::int64_t bytes) const;
  /// @throws Failure when the file has another size than when it was opened, or was written since.
  void RequireUnchanged() const;
  /// @throws Failure when the file has another size now.
  void RequireSize(std::int64_t size) const;

 private:
  struct stat Status() const;

  std::string const operation_;
  std::string const path_;
  int const fd_;
  struct stat begin_ = {};
  mutable std::atomic<std::int64_t> read_bytes_{0};
};

}  // namespace llmpt
