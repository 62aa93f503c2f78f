// How the disk backend's inner parts report failure: by throwing, so that the way of the bytes
// stays readable. The backend catches everything at its border and hands libtorrent an
// lt::storage_error.
#pragma once

#include <cerrno>
#include <libtorrent/error_code.hpp>
#include <libtorrent/operations.hpp>

namespace llmpt {

/// What failed, before it is known which of the torrent's files it was about.
struct FileFailure {
  lt::error_code error;
  lt::operation_t operation;

  bool Is(int number) const { return error == lt::error_code(number, lt::generic_category()); }
};

[[noreturn]] inline void ThrowErrno(int number, lt::operation_t operation) {
  throw FileFailure{lt::error_code(number, lt::generic_category()), operation};
}

}  // namespace llmpt
