// The digest by which git names a file's content.
#pragma once

#include <cstdint>
#include <libtorrent/hasher.hpp>
#include <string>

namespace llmpt {

/// SHA-1 that already has what git hashes before the content: "blob <size>" and a NUL.
/// https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
inline lt::hasher BeginGitBlob(std::int64_t size) {
  std::string const header = "blob " + std::to_string(size);
  return lt::hasher(header.c_str(), static_cast<int>(header.size() + 1));
}

}  // namespace llmpt
