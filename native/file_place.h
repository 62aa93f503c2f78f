// Where a torrent's file is. A torrent comes from elsewhere, and so do the names in it: they are
// followed one by one from the save path, never through a symbolic link and never upwards. The save
// path itself, and an absolute path that a file was renamed to, were given by our own caller: their
// folders are taken as they are.
#pragma once

#include <sys/stat.h>

#include <string>

#include "descriptor.h"

namespace llmpt {

/// A folder that is held open, and a name in it: what happens to the folder's path meanwhile does
/// not matter.
class FilePlace {
 public:
  enum class Folders { kMustExist, kAreMade };

  /// `path` is absolute, or relative to `save_path`.
  /// @throws FileFailure: ENOENT for a missing folder, ELOOP for a symbolic link in its place.
  static FilePlace Find(std::string const& save_path, std::string const& path, Folders folders);

  /// The final name is never followed as a link, the descriptor never inherited, and what is not a
  /// regular file is refused.
  /// @throws FileFailure
  Descriptor Open(int flags) const;
  /// Of the file itself. False when there is none. @throws FileFailure
  bool Stat(struct stat& status) const;
  /// True when there was one. @throws FileFailure
  bool RemoveFile() const;
  /// A folder that is not empty, or not there, is left as it is. @throws FileFailure
  void RemoveFolder() const;
  /// Replaces what is at `target`. @throws FileFailure
  void RenameTo(FilePlace const& target) const;

 private:
  FilePlace(Descriptor folder, std::string name)
      : folder_(std::move(folder)), name_(std::move(name)) {}

  Descriptor folder_;
  std::string name_;
};

}  // namespace llmpt
