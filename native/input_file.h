// A regular file that is read once, from front to back.
#pragma once

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
  std::int64_t size() const { return size_; }
  /// Fills `buffer`. @throws Failure when the file ends before.
  void ReadAt(std::int64_t offset, lt::span<char> buffer) const;
  /// @throws Failure when the file has another size than when it was opened.
  void RequireSameSize() const { RequireSize(size_); }
  /// @throws Failure when the file has another size now.
  void RequireSize(std::int64_t size) const;

 private:
  std::int64_t CurrentSize() const;

  std::string const operation_;
  std::string const path_;
  int const fd_;
  std::int64_t size_ = 0;
};

}  // namespace llmpt
