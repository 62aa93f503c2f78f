#include "file_pool.h"

#include <sys/stat.h>

#include <algorithm>

namespace llmpt {

namespace {

bool IsUnlinked(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 && status.st_nlink == 0;
}

}  // namespace

int FilePool::Find(Key key, bool writes) {
  auto const found = index_.find(key);
  if (found == index_.end()) return -1;
  auto const entry = found->second;
  if ((writes && !entry->writes) || IsUnlinked(entry->file.get())) {
    Close(key);
    return -1;
  }
  entry->last_use = lt::clock_type::now();
  entries_.splice(entries_.begin(), entries_, entry);
  return entry->file.get();
}

int FilePool::Keep(Key key, Descriptor file, bool writes) {
  Close(key);
  entries_.push_front({key, std::move(file), writes, lt::clock_type::now()});
  index_[key] = entries_.begin();
  return entries_.front().file.get();
}

void FilePool::Close(Key key) {
  auto const found = index_.find(key);
  if (found == index_.end()) return;
  entries_.erase(found->second);
  index_.erase(found);
}

void FilePool::CloseAll(StorageId storage) {
  auto at = index_.lower_bound({storage, lt::file_index_t(0)});
  while (at != index_.end() && at->first.first == storage) {
    entries_.erase(at->second);
    at = index_.erase(at);
  }
}

void FilePool::CloseAll() {
  index_.clear();
  entries_.clear();
}

void FilePool::SetLimit(int limit) {
  limit_ = std::max(1, limit);
  ShrinkTo(limit_);
}

void FilePool::ShrinkTo(int count) {
  while (static_cast<int>(entries_.size()) > count) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

std::vector<lt::open_file_state> FilePool::States(StorageId storage) const {
  std::vector<lt::open_file_state> states;
  auto at = index_.lower_bound({storage, lt::file_index_t(0)});
  for (; at != index_.end() && at->first.first == storage; ++at) {
    Entry const& entry = *at->second;
    states.push_back({at->first.second,
                      entry.writes ? lt::file_open_mode::read_write : lt::file_open_mode::read_only,
                      entry.last_use});
  }
  return states;
}

}  // namespace llmpt
