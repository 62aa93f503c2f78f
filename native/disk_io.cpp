#include "disk_io.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <functional>
#include <libtorrent/disk_interface.hpp>
#include <libtorrent/hasher.hpp>
#include <libtorrent/peer_request.hpp>
#include <libtorrent/performance_counters.hpp>
#include <libtorrent/session_handle.hpp>
#include <libtorrent/settings_pack.hpp>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "disk_storage.h"
#include "piece_hashes.h"
#include "read_buffers.h"
#include "storage_failure.h"

namespace llmpt {

namespace {

/// One read while hashing what is on the disk. A multiple of the block.
constexpr int kHashReadBytes = 8 * kDiskBlockBytes;

/// Runs `act`; nothing may escape into libtorrent.
template <typename Act>
lt::storage_error Attempt(Act act) {
  try {
    act();
    return {};
  } catch (lt::storage_error const& error) {
    return error;
  } catch (FileFailure const& failure) {
    return {failure.error, failure.operation};
  } catch (std::bad_alloc const&) {
    return {lt::error_code(ENOMEM, lt::generic_category()), lt::operation_t::alloc_cache_piece};
  } catch (std::exception const&) {
    return {lt::error_code(EIO, lt::generic_category()), lt::operation_t::unknown};
  }
}

bool IsAbsent(lt::storage_error const& error) {
  return error.ec == lt::error_code(ENOENT, lt::generic_category()) ||
         error.ec == lt::error_code(lt::errors::file_too_short);
}

/// A call of one of libtorrent's handlers. Handlers may own what a copy would not share, so they
/// are only ever moved.
class Completion {
 public:
  virtual ~Completion() = default;
  virtual void Run() = 0;
};

template <typename Act>
class CompletionOf final : public Completion {
 public:
  explicit CompletionOf(Act act) : act_(std::move(act)) {}
  void Run() override { act_(); }

 private:
  Act act_;
};

/// libtorrent calls all of it in its network thread. Everything is done before a call returns, but
/// libtorrent must hear of it later: it notes that a block is being written after `async_write`.
class DiskIo final : public lt::disk_interface {
 public:
  DiskIo(lt::io_context& context, lt::settings_interface const& settings, lt::counters& counters,
         std::shared_ptr<WrittenElsewhere> elsewhere)
      : context_(context),
        settings_(settings),
        counters_(counters),
        elsewhere_(std::move(elsewhere)) {
    elsewhere_->Attach(context);
    settings_updated();
  }

  lt::storage_holder new_torrent(lt::storage_params const& params,
                                 std::shared_ptr<void> const&) override {
    auto storage = std::make_unique<Storage>(params, files_, next_id_++);
    elsewhere_->Present(storage->files.id(), params.info_hash);
    auto const free = std::find(storages_.begin(), storages_.end(), nullptr);
    auto const index = static_cast<std::uint32_t>(free - storages_.begin());
    if (free == storages_.end()) {
      storages_.push_back(std::move(storage));
    } else {
      *free = std::move(storage);
    }
    return {lt::storage_index_t(index), *this};
  }

  void remove_torrent(lt::storage_index_t index) override {
    StorageId const id = At(index).files.id();
    hashes_.Forget(id);
    buffers_.Forget(id);
    elsewhere_->Gone(id);
    storages_[static_cast<std::uint32_t>(index)].reset();
  }

  void async_read(lt::storage_index_t index, lt::peer_request const& request,
                  std::function<void(lt::disk_buffer_holder, lt::storage_error const&)> handler,
                  lt::disk_job_flags_t) override {
    Stopwatch const watch(counters_, lt::counters::disk_read_time);
    Storage& storage = At(index);
    lt::disk_buffer_holder buffer;
    lt::storage_error const error = Attempt([&] {
      int const piece_bytes = storage.files.files().piece_size(request.piece);
      buffer = buffers_.Read(
          {storage.files.id(), request.piece, piece_bytes, request.start, request.length},
          [&](int offset, lt::span<char> bytes) {
            storage.files.Read(request.piece, offset, bytes);
            counters_.inc_stats_counter(lt::counters::num_read_ops);
          });
      counters_.inc_stats_counter(lt::counters::num_blocks_read);
    });
    Complete([handler = std::move(handler), buffer = std::move(buffer), error]() mutable {
      handler(std::move(buffer), error);
    });
  }

  bool async_write(lt::storage_index_t index, lt::peer_request const& request, char const* bytes,
                   std::shared_ptr<lt::disk_observer>,
                   std::function<void(lt::storage_error const&)> handler,
                   lt::disk_job_flags_t) override {
    Stopwatch const watch(counters_, lt::counters::disk_write_time);
    Storage& storage = At(index);
    lt::storage_error error;
    if (!elsewhere_->IsGiven(request.piece)) {
      error = Attempt([&] { Write(storage, request, {bytes, request.length}); });
      if (error) Abandon(storage, request.piece);
    }
    CompleteFor({storage.files.id(), request.piece},
                [handler = std::move(handler), error] { handler(error); });
    // Nothing is ever queued.
    return false;
  }

  void async_hash(
      lt::storage_index_t index, lt::piece_index_t piece, lt::span<lt::sha256_hash> leaves,
      lt::disk_job_flags_t flags,
      std::function<void(lt::piece_index_t, lt::sha1_hash const&, lt::storage_error const&)>
          handler) override {
    Stopwatch const watch(counters_, lt::counters::disk_hash_time);
    bool const wants_v1 = bool(flags & lt::disk_interface::v1_hash);
    Storage& storage = At(index);
    PieceHashes::Key const key{storage.files.id(), piece};
    auto const announcement = elsewhere_->TakeHash(piece);
    lt::sha1_hash v1;
    bool is_foreign = false;
    // `leaves` lies in a vector that the handler owns: it is filled before the handler moves on.
    lt::storage_error error = Attempt([&] {
      if (announcement) Distrust(storage, piece);
      v1 = Hash(storage, piece, leaves, wants_v1, is_foreign);
    });
    if (announcement && error) {
      // libtorrent would keep the piece as one that is complete and never look at it again. Bytes
      // that nobody can read are wrong bytes to it, and whoever announced them hears why.
      if (!IsAbsent(error)) announcement->error = error.ec;
      std::fill(leaves.begin(), leaves.end(), lt::sha256_hash());
      v1.clear();
      error = {};
    }
    int const padded_bytes = storage.files.files().piece_size(piece);
    CompleteFor(key, [this, key, handler = std::move(handler), v1, error, announcement, is_foreign,
                      padded_bytes] {
      if (is_foreign) elsewhere_->Disown(key, padded_bytes);
      handler(key.second, v1, error);
      if (announcement) elsewhere_->Conclude(*announcement);
    });
  }

  void async_hash2(
      lt::storage_index_t index, lt::piece_index_t piece, int offset, lt::disk_job_flags_t,
      std::function<void(lt::piece_index_t, lt::sha256_hash const&, lt::storage_error const&)>
          handler) override {
    Stopwatch const watch(counters_, lt::counters::disk_hash_time);
    lt::sha256_hash leaf;
    lt::storage_error const error = Attempt([&] {
      Storage& storage = At(index);
      int const length =
          std::min(kDiskBlockBytes, storage.files.files().piece_size2(piece) - offset);
      lt::span<char> const bytes = Scratch().first(length);
      storage.files.Read(piece, offset, bytes);
      leaf = lt::hasher256(bytes).final();
    });
    Complete([handler = std::move(handler), piece, leaf, error] { handler(piece, leaf, error); });
  }

  void async_move_storage(
      lt::storage_index_t index, std::string, lt::move_flags_t,
      std::function<void(lt::status_t, std::string const&, lt::storage_error const&)> handler)
      override {
    // Nobody has a use for it, and files of which some were moved are a state of their own.
    lt::storage_error const error(lt::error_code(ENOTSUP, lt::generic_category()),
                                  lt::operation_t::file_rename);
    Complete([handler = std::move(handler), path = At(index).files.save_path(), error] {
      handler(lt::status_t::fatal_disk_error, path, error);
    });
  }

  void async_release_files(lt::storage_index_t index, std::function<void()> handler) override {
    At(index).files.CloseFiles();
    if (handler) Complete(std::move(handler));
  }

  void async_stop_torrent(lt::storage_index_t index, std::function<void()> handler) override {
    async_release_files(index, std::move(handler));
  }

  void async_check_files(
      lt::storage_index_t index, lt::add_torrent_params const* resume,
      lt::aux::vector<std::string, lt::file_index_t>,
      std::function<void(lt::status_t, lt::storage_error const&)> handler) override {
    Storage& storage = At(index);
    hashes_.Forget(storage.files.id());
    buffers_.Forget(storage.files.id());
    storage.failed.clear();
    bool const trusts_incomplete =
        settings_.get_bool(lt::settings_pack::no_recheck_incomplete_resume);
    DiskStorage::Findings findings{};
    lt::storage_error const error = Attempt([&] {
      lt::add_torrent_params const nothing;
      findings = storage.files.Check(resume == nullptr ? nothing : *resume, trusts_incomplete);
    });
    if (error) findings = {lt::status_t::fatal_disk_error, error};
    Complete(
        [handler = std::move(handler), findings] { handler(findings.status, findings.error); });
  }

  void async_rename_file(
      lt::storage_index_t index, lt::file_index_t file, std::string name,
      std::function<void(std::string const&, lt::file_index_t, lt::storage_error const&)> handler)
      override {
    lt::storage_error const error = Attempt([&] { At(index).files.Rename(file, name); });
    Complete([handler = std::move(handler), name = std::move(name), file, error] {
      handler(name, file, error);
    });
  }

  void async_delete_files(lt::storage_index_t index, lt::remove_flags_t options,
                          std::function<void(lt::storage_error const&)> handler) override {
    DiskStorage& files = At(index).files;
    files.CloseFiles();
    lt::storage_error error;
    if (options & lt::session_handle::delete_files) {
      error = Attempt([&] { files.DeleteFiles(); });
    }
    Complete([handler = std::move(handler), error] { handler(error); });
  }

  void async_set_file_priority(
      lt::storage_index_t index,
      lt::aux::vector<lt::download_priority_t, lt::file_index_t> priorities,
      std::function<void(lt::storage_error const&,
                         lt::aux::vector<lt::download_priority_t, lt::file_index_t>)>
          handler) override {
    At(index).files.SetPriorities({priorities.begin(), priorities.end()});
    Complete([handler = std::move(handler), priorities = std::move(priorities)]() mutable {
      handler(lt::storage_error(), std::move(priorities));
    });
  }

  void async_clear_piece(lt::storage_index_t index, lt::piece_index_t piece,
                         std::function<void(lt::piece_index_t)> handler) override {
    Storage& storage = At(index);
    Forget(storage, piece);
    storage.failed.erase(piece);
    CompleteFor({storage.files.id(), piece},
                [handler = std::move(handler), piece] { handler(piece); });
  }

  void update_stats_counters(lt::counters&) const override {}

  std::vector<lt::open_file_state> get_status(lt::storage_index_t index) const override {
    return files_.States(At(index).files.id());
  }

  // What was done is done; completions that were posted keep the context busy until they have run.
  void abort(bool) override { files_.CloseAll(); }

  void submit_jobs() override {}

  void settings_updated() override {
    files_.SetLimit(settings_.get_int(lt::settings_pack::file_pool_size));
  }

 private:
  struct Storage {
    Storage(lt::storage_params const& params, FilePool& pool, StorageId id)
        : files(params, pool, id) {}

    DiskStorage files;
    /// Pieces of which a block could not be written, until libtorrent has begun them anew.
    std::set<lt::piece_index_t> failed;
    /// The file list does not say whether a v2 torrent is a v1 torrent as well; the first request
    /// for a hash does.
    bool wants_v1 = false;
  };

  /// Adds the time of its scope to libtorrent's counters.
  class Stopwatch {
   public:
    Stopwatch(lt::counters& counters, int counter) : counters_(counters), counter_(counter) {}
    ~Stopwatch() {
      auto const spent = lt::total_microseconds(lt::clock_type::now() - begin_);
      counters_.inc_stats_counter(counter_, spent);
      counters_.inc_stats_counter(lt::counters::disk_job_time, spent);
    }
    Stopwatch(Stopwatch const&) = delete;
    Stopwatch& operator=(Stopwatch const&) = delete;

   private:
    lt::counters& counters_;
    int counter_;
    lt::time_point begin_ = lt::clock_type::now();
  };

  Storage& At(lt::storage_index_t index) const {
    return *storages_[static_cast<std::uint32_t>(index)];
  }

  static PieceShape ShapeOf(Storage const& storage, lt::piece_index_t piece) {
    lt::file_storage const& files = storage.files.files();
    bool const is_v2 = files.v2();
    return {!is_v2 || storage.wants_v1 ? files.piece_size(piece) : 0,
            is_v2 ? files.piece_size2(piece) : 0};
  }

  void Write(Storage& storage, lt::peer_request const& request, lt::span<char const> bytes) {
    storage.files.Write(request.piece, request.start, bytes);
    counters_.inc_stats_counter(lt::counters::num_blocks_written);
    counters_.inc_stats_counter(lt::counters::num_write_ops);
    buffers_.Forget(storage.files.id(), request.piece);
    PieceShape shape = ShapeOf(storage, request.piece);
    // Padding is zeros whatever a peer sends for it: such a block is hashed as it reads.
    bool const is_plain = shape.v2_bytes == 0 || request.start + request.length <= shape.v2_bytes;
    if (!is_plain || storage.files.HasPadding(request.piece, request.start, request.length)) {
      shape.v1_bytes = 0;
    }
    hashes_.Add({storage.files.id(), request.piece}, shape, request.start, bytes);
  }

  /// SHA-1 of a piece, when `wants_v1`, and its leaves, when there is room for them. `is_foreign`
  /// becomes whether somebody else may have written some of it.
  lt::sha1_hash Hash(Storage& storage, lt::piece_index_t piece, lt::span<lt::sha256_hash> leaves,
                     bool wants_v1, bool& is_foreign) {
    PieceHashes::Key const key{storage.files.id(), piece};
    if (storage.failed.erase(piece) > 0) {
      // libtorrent has been told of the write already, and asks for the hash because it had not yet
      // heard. This error it passes over in silence.
      throw lt::storage_error(boost::asio::error::operation_aborted, lt::operation_t::file_write);
    }
    storage.wants_v1 = wants_v1;
    lt::file_storage const& files = storage.files.files();
    PieceShape const shape{wants_v1 ? files.piece_size(piece) : 0,
                           leaves.empty() ? 0 : files.piece_size2(piece)};
    PieceHash hash = hashes_.Take(key, shape);
    if (elsewhere_->IsShared(key)) {
      buffers_.Forget(storage.files.id(), piece);
      PieceHash const written = std::exchange(hash, hashes_.Take(key, shape));
      ReadBack(storage, piece, shape, hash);
      is_foreign = !IsSame(written, hash, shape);
    } else {
      ReadBack(storage, piece, shape, hash);
    }
    for (std::size_t i = 0; i < hash.leaves.size(); ++i) {
      leaves[static_cast<std::ptrdiff_t>(i)] = *hash.leaves[i];
    }
    return wants_v1 ? hash.v1.final() : lt::sha1_hash();
  }

  /// Completes `hash` from the disk.
  void ReadBack(Storage& storage, lt::piece_index_t piece, PieceShape shape, PieceHash& hash) {
    int const end = std::max(shape.v1_bytes, shape.v2_bytes);
    auto const is_missing = [&](int offset) {
      auto const block = static_cast<std::size_t>(offset / kDiskBlockBytes);
      return (offset < shape.v1_bytes && offset + kDiskBlockBytes > hash.v1_bytes) ||
             (block < hash.leaves.size() && !hash.leaves[block]);
    };
    for (int begin = 0; begin < end;) {
      if (!is_missing(begin)) {
        begin += kDiskBlockBytes;
        continue;
      }
      int stop = begin + kDiskBlockBytes;
      while (stop < end && stop - begin < kHashReadBytes && is_missing(stop))
        stop += kDiskBlockBytes;
      stop = std::min(stop, end);
      lt::span<char> const bytes = Scratch().first(stop - begin);
      storage.files.Read(piece, begin, bytes);
      counters_.inc_stats_counter(lt::counters::num_read_back,
                                  (stop - begin + kDiskBlockBytes - 1) / kDiskBlockBytes);
      counters_.inc_stats_counter(lt::counters::num_read_ops);
      HashRun(bytes, begin, shape, hash);
      begin = stop;
    }
  }

  static void HashRun(lt::span<char const> bytes, int begin, PieceShape shape, PieceHash& hash) {
    int const end = begin + static_cast<int>(bytes.size());
    for (int offset = begin; offset < end; offset += kDiskBlockBytes) {
      auto const block = static_cast<std::size_t>(offset / kDiskBlockBytes);
      if (block >= hash.leaves.size() || hash.leaves[block]) continue;
      int const length = std::min(kDiskBlockBytes, shape.v2_bytes - offset);
      hash.leaves[block] = lt::hasher256(bytes.subspan(offset - begin, length)).final();
    }
    int const v1_end = std::min(end, shape.v1_bytes);
    if (hash.v1_bytes >= begin && hash.v1_bytes < v1_end) {
      hash.v1.update(bytes.subspan(hash.v1_bytes - begin, v1_end - hash.v1_bytes));
      hash.v1_bytes = v1_end;
    }
  }

  void Forget(Storage const& storage, lt::piece_index_t piece) {
    hashes_.Forget({storage.files.id(), piece});
    buffers_.Forget(storage.files.id(), piece);
  }

  /// What was seen of a piece on its way to the disk may have been replaced since.
  void Distrust(Storage& storage, lt::piece_index_t piece) {
    Forget(storage, piece);
    storage.failed.erase(piece);
  }

  void Abandon(Storage& storage, lt::piece_index_t piece) {
    Forget(storage, piece);
    storage.failed.insert(piece);
  }

  lt::span<char> Scratch() {
    scratch_.resize(kHashReadBytes);
    return {scratch_.data(), kHashReadBytes};
  }

  /// `act` tells libtorrent of a piece.
  template <typename Act>
  void CompleteFor(PieceHashes::Key key, Act act) {
    elsewhere_->Begin(key);
    Complete([this, key, act = std::move(act)]() mutable {
      act();
      elsewhere_->End(key);
    });
  }

  template <typename Act>
  void Complete(Act act) {
    completions_.push_back(std::make_unique<CompletionOf<Act>>(std::move(act)));
    if (completions_.size() == 1) boost::asio::post(context_, [this] { RunCompletions(); });
  }

  // Handlers ask for more, and may remove their torrent.
  void RunCompletions() {
    auto const batch = std::exchange(completions_, {});
    for (auto const& completion : batch) completion->Run();
  }

  lt::io_context& context_;
  lt::settings_interface const& settings_;
  lt::counters& counters_;
  std::shared_ptr<WrittenElsewhere> const elsewhere_;
  FilePool files_;
  PieceHashes hashes_;
  ReadBuffers buffers_;
  StorageId next_id_ = 0;
  std::vector<std::unique_ptr<Storage>> storages_;
  std::vector<char> scratch_;
  std::vector<std::unique_ptr<Completion>> completions_;
};

}  // namespace

lt::disk_io_constructor_type DiskIoConstructor(std::shared_ptr<WrittenElsewhere> elsewhere) {
  return
      [elsewhere = std::move(elsewhere)](
          lt::io_context& context, lt::settings_interface const& settings, lt::counters& counters) {
        return std::make_unique<DiskIo>(context, settings, counters, elsewhere);
      };
}

}  // namespace llmpt
