// The files of one torrent on disk.
#pragma once

#include <cstdint>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/error_code.hpp>
#include <libtorrent/file_storage.hpp>
#include <libtorrent/session_types.hpp>
#include <libtorrent/span.hpp>
#include <libtorrent/storage_defs.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "file_place.h"
#include "file_pool.h"
#include "storage_failure.h"

namespace llmpt {

/// One torrent's files. Owns their names; the descriptors are the pool's.
///
/// Files come into being in two places, `Write()` and, for empty ones, `Check()`; and each at most
/// once: a file that was there and is gone is an error, not a reason to begin anew. A torrent that
/// was added in seed mode is never written to.
///
/// Everything that throws throws an lt::storage_error that names the file and the operation.
class DiskStorage {
 public:
  DiskStorage(lt::storage_params const& params, FilePool& pool, StorageId id);
  ~DiskStorage();
  DiskStorage(DiskStorage const&) = delete;
  DiskStorage& operator=(DiskStorage const&) = delete;

  StorageId id() const { return id_; }
  lt::file_storage const& files() const { return renamed_ ? *renamed_ : original_; }

  /// Padding reads as zeros.
  void Read(lt::piece_index_t piece, int offset, lt::span<char> bytes);
  void Write(lt::piece_index_t piece, int offset, lt::span<char const> bytes);
  /// Whether there is padding in these bytes.
  bool HasPadding(lt::piece_index_t piece, int offset, int length) const;

  struct Findings {
    lt::status_t status;
    /// Why the resume data does not hold, if so.
    lt::storage_error error;
  };
  /// What is there, against what `resume` claims.
  Findings Check(lt::add_torrent_params const& resume, bool trusts_incomplete);
  void Rename(lt::file_index_t file, std::string const& path);
  std::string const& save_path() const { return save_path_; }
  /// Goes on after a failure; throws the first.
  void DeleteFiles();
  void SetPriorities(std::vector<lt::download_priority_t> priorities);
  void CloseFiles() { pool_.CloseAll(id_); }

 private:
  enum class Purpose { kRead, kWrite };

  template <typename Visit>
  void ForEachSlice(lt::piece_index_t piece, int offset, std::int64_t length, Visit visit) const;
  template <typename Act>
  auto WithDescriptors(Act act) const -> decltype(act());
  int Open(lt::file_index_t file, Purpose purpose);
  Descriptor OpenAnew(lt::file_index_t file, Purpose purpose);
  FilePlace Find(lt::file_index_t file, FilePlace::Folders folders) const;
  /// Relative to the save path, or absolute.
  std::string PathOf(lt::file_index_t file) const;
  std::optional<FilePlace> FindExisting(lt::file_index_t file) const;
  /// False when it is missing, or its folder is.
  bool Status(lt::file_index_t file, struct stat& status) const;
  /// -1 when it is missing.
  std::int64_t SizeOf(lt::file_index_t file) const;
  bool IsStored(lt::file_index_t file) const;
  bool IsUnwanted(lt::file_index_t file) const;
  lt::storage_error VerifyComplete(std::vector<std::int64_t> const& sizes, bool all) const;
  lt::storage_error VerifyPieces(std::vector<std::int64_t> const& sizes,
                                 lt::add_torrent_params const& resume) const;
  /// Those of the torrent's own below the save path. Returns the first failure.
  lt::storage_error RemoveEmptyFolders() const;

  lt::file_storage const& original_;
  std::unique_ptr<lt::file_storage> renamed_;
  std::string save_path_;
  std::vector<lt::download_priority_t> priorities_;
  FilePool& pool_;
  StorageId id_;
  /// Files that have been seen; they are not made again.
  std::vector<bool> has_been_;
  bool const is_read_only_;
};

}  // namespace llmpt
