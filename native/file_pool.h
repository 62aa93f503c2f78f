// The descriptors the disk backend keeps open, oldest first out.
#pragma once

#include <cstdint>
#include <libtorrent/disk_interface.hpp>
#include <libtorrent/time.hpp>
#include <list>
#include <map>
#include <utility>
#include <vector>

#include "descriptor.h"

namespace llmpt {

/// Numbers of storages are never reused, unlike libtorrent's `storage_index_t`.
using StorageId = std::uint64_t;

/// Owns the descriptors of all torrents of a session. A descriptor it gives is good until its next
/// call.
class FilePool {
 public:
  using Key = std::pair<StorageId, lt::file_index_t>;

  /// -1 when the file is not open, or not for writing when that is asked. A file that was deleted
  /// or replaced meanwhile counts as not open: its bytes would otherwise live on, and be served,
  /// until the pool forgets it.
  int Find(Key key, bool writes);
  /// Closes what has to be closed before one more file may be open.
  void MakeRoom() { ShrinkTo(limit_ - 1); }
  /// Takes the place of what was kept under the same key.
  int Keep(Key key, Descriptor file, bool writes);
  void Close(Key key);
  void CloseAll(StorageId storage);
  void CloseAll();
  /// At least 1.
  void SetLimit(int limit);

  std::vector<lt::open_file_state> States(StorageId storage) const;

 private:
  struct Entry {
    Key key;
    Descriptor file;
    bool writes;
    lt::time_point last_use;
  };
  using Entries = std::list<Entry>;

  void ShrinkTo(int count);

  int limit_ = 1;
  Entries entries_;  // most recently used first
  std::map<Key, Entries::iterator> index_;
};

}  // namespace llmpt
