#include "add_torrent.h"

#include <libtorrent/bdecode.hpp>
#include <libtorrent/load_torrent.hpp>
#include <libtorrent/magnet_uri.hpp>
#include <libtorrent/read_resume_data.hpp>
#include <libtorrent/torrent_info.hpp>

#include "block_hash_guard.h"
#include "convert.h"
#include "errors.h"
#include "torrent_table.h"

namespace llmpt {

namespace {

lt::load_torrent_limits ToLimits(Napi::Value value) {
  Napi::Object const object = RequireObject(value, "limits");
  lt::load_torrent_limits limits;
  limits.max_buffer_size = RequireInt(object.Get("maxBufferBytes"), "maxBufferBytes", 1);
  limits.max_pieces = RequireInt(object.Get("maxPieces"), "maxPieces", 1);
  limits.max_decode_depth = RequireInt(object.Get("maxDepth"), "maxDepth", 1);
  limits.max_decode_tokens = RequireInt(object.Get("maxTokens"), "maxTokens", 1);
  return limits;
}

/// Web seeds, DHT nodes, "similar" torrents, certificates and whatever else stands beside the info
/// dictionary: a copy without them is simpler to be sure of than clearing each. Raw bytes are kept,
/// so the info hash is the same.
std::string WithoutExtras(lt::span<char const> torrent, lt::load_torrent_limits const& limits) {
  if (torrent.size() > limits.max_buffer_size) {
    throw Failure("addTorrent", lt::errors::metadata_too_large);
  }
  lt::error_code error;
  lt::bdecode_node const root =
      lt::bdecode(torrent, error, nullptr, limits.max_decode_depth, limits.max_decode_tokens);
  if (error) throw Failure("addTorrent", error);
  if (root.type() != lt::bdecode_node::dict_t) {
    throw Failure("addTorrent", lt::errors::torrent_is_no_dict);
  }
  std::string bytes = "d";
  for (char const* key : {"announce", "announce-list", "info", "piece layers"}) {
    lt::bdecode_node const node = root.dict_find(key);
    if (!node) continue;
    std::string const name(key);
    auto const section = node.data_section();
    bytes += std::to_string(name.size()) + ":" + name;
    bytes.append(section.data(), static_cast<std::size_t>(section.size()));
  }
  return bytes + "e";
}

lt::add_torrent_params FromTorrentFile(lt::span<char const> bytes,
                                       lt::load_torrent_limits const& limits) {
  std::string const clean = WithoutExtras(bytes, limits);
  return lt::load_torrent_buffer({clean.data(), static_cast<std::ptrdiff_t>(clean.size())}, limits);
}

lt::add_torrent_params FromMagnet(std::string const& uri) {
  lt::error_code error;
  lt::add_torrent_params params = lt::parse_magnet_uri(uri, error);
  if (error) throw Failure("addTorrent", error);
  return params;
}

lt::add_torrent_params Load(Napi::Object object, lt::load_torrent_limits const& limits) {
  auto const file = Optional(object, "torrentFile");
  auto const magnet = Optional(object, "magnet");
  auto const resume = Optional(object, "resumeData");
  if (file.has_value() + magnet.has_value() + resume.has_value() != 1) {
    throw Napi::TypeError::New(object.Env(),
                               "exactly one of torrentFile, magnet and resumeData must be given");
  }
  if (file) return FromTorrentFile(RequireBytes(*file, "torrentFile"), limits);
  if (magnet) return FromMagnet(RequireString(*magnet, "magnet"));
  return lt::read_resume_data(RequireBytes(*resume, "resumeData"), limits);
}

void SetRenamedFiles(lt::add_torrent_params& params, Napi::Value value) {
  Napi::Object const object = RequireObject(value, "renamedFiles");
  Napi::Array const names = object.GetPropertyNames();
  params.renamed_files.clear();
  for (std::uint32_t i = 0; i < names.Length(); ++i) {
    Napi::Value const key = names[i];
    int const index = RequireInt(key.ToNumber(), "a key of renamedFiles");
    if (params.ti && index >= params.ti->num_files()) {
      throw Napi::RangeError::New(object.Env(), "renamedFiles: the torrent has no such file");
    }
    params.renamed_files[lt::file_index_t(index)] =
        RequireString(object.Get(key), "a path of renamedFiles");
  }
}

void SetTrackers(lt::add_torrent_params& params, Napi::Value value) {
  Napi::Array const urls = RequireArray(value, "trackers");
  params.trackers.clear();
  params.tracker_tiers.clear();
  for (std::uint32_t i = 0; i < urls.Length(); ++i) {
    params.trackers.push_back(RequireString(urls[i], "a tracker"));
    params.tracker_tiers.push_back(static_cast<int>(i));
  }
}

void SetPeers(lt::add_torrent_params& params, Napi::Value value) {
  Napi::Array const peers = RequireArray(value, "peers");
  for (std::uint32_t i = 0; i < peers.Length(); ++i) {
    Napi::Object const peer = RequireObject(peers[i], "a peer");
    params.peers.push_back(ToEndpoint(peer.Get("host"), peer.Get("port")));
  }
}

template <typename Priorities>
void SetPriorities(Priorities& priorities, Napi::Value value, std::string const& what) {
  Napi::Array const array = RequireArray(value, what);
  priorities.clear();
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    priorities.push_back(lt::download_priority_t(
        static_cast<std::uint8_t>(RequireInt(array[i], "an entry of " + what, 0, 7))));
  }
}

// Its presence alone, even all zeros, keeps libtorrent from hashing what is on disk.
void SetHavePieces(lt::add_torrent_params& params, Napi::Value value) {
  auto const bits = RequireBytes(value, "havePieces");
  if (!params.ti) throw Failure("addTorrent", lt::errors::no_metadata);
  int const pieces = params.ti->num_pieces();
  if (bits.size() != (pieces + 7) / 8) {
    throw Napi::RangeError::New(value.Env(), "havePieces must have one bit per piece");
  }
  params.have_pieces.assign(bits.data(), pieces);
}

/// Whether any bit is set in the last byte behind the first `count` bits.
bool HasBitsFrom(lt::span<char const> bits, int count) {
  if (count % 8 == 0) return false;
  return (static_cast<unsigned char>(bits[bits.size() - 1]) & (0xff >> (count % 8))) != 0;
}

void SetUnfinishedPieces(lt::add_torrent_params& params, Napi::Value value) {
  Napi::Array const entries = RequireArray(value, "unfinishedPieces");
  if (!params.ti) throw Failure("addTorrent", lt::errors::no_metadata);
  PieceLayout const layout(*params.ti);
  for (std::uint32_t i = 0; i < entries.Length(); ++i) {
    Napi::Object const entry = RequireObject(entries[i], "an unfinished piece");
    int const piece = RequireInt(entry.Get("piece"), "piece", 0, layout.num_pieces - 1);
    auto const bits = RequireBytes(entry.Get("blocks"), "blocks");
    int const blocks = layout.Blocks(piece);
    if (bits.size() != (blocks + 7) / 8) {
      throw Napi::RangeError::New(value.Env(), "blocks must have one bit per block of the piece");
    }
    if (HasBitsFrom(bits, blocks)) {
      throw Napi::RangeError::New(value.Env(), "blocks must not name blocks past the piece's end");
    }
    params.unfinished_pieces[lt::piece_index_t(piece)].assign(bits.data(), blocks);
  }
}

SliceId ToSliceId(Napi::Value value) {
  auto const id = FromHex<SliceId>(RequireString(value, "sliceId"));
  if (!id) throw Napi::TypeError::New(value.Env(), "sliceId must be 16 lower-case hex digits");
  return *id;
}

struct NamedFlag {
  char const* name;
  lt::torrent_flags_t flag;
};
constexpr NamedFlag kFlags[] = {
    {"seed_mode", lt::torrent_flags::seed_mode},
    {"upload_mode", lt::torrent_flags::upload_mode},
    {"share_mode", lt::torrent_flags::share_mode},
    {"apply_ip_filter", lt::torrent_flags::apply_ip_filter},
    {"paused", lt::torrent_flags::paused},
    {"auto_managed", lt::torrent_flags::auto_managed},
    {"super_seeding", lt::torrent_flags::super_seeding},
    {"sequential_download", lt::torrent_flags::sequential_download},
    {"stop_when_ready", lt::torrent_flags::stop_when_ready},
    {"disable_dht", lt::torrent_flags::disable_dht},
    {"disable_lsd", lt::torrent_flags::disable_lsd},
    {"disable_pex", lt::torrent_flags::disable_pex},
    {"no_verify_files", lt::torrent_flags::no_verify_files},
    {"default_dont_download", lt::torrent_flags::default_dont_download},
};

lt::torrent_flags_t FlagByName(Napi::Env env, std::string const& name) {
  for (NamedFlag const& known : kFlags) {
    if (name == known.name) return known.flag;
  }
  throw Napi::TypeError::New(env, "unknown torrent flag \"" + name + "\"");
}

}  // namespace

NewTorrent ToNewTorrent(Napi::Value value, Napi::Value limits) {
  Napi::Object const object = RequireObject(value, "params");
  lt::add_torrent_params params = Load(object, ToLimits(limits));
  params.url_seeds.clear();
  params.http_seeds.clear();
  params.dht_nodes.clear();
  params.save_path = RequireString(object.Get("savePath"), "savePath");
  if (params.save_path.empty() || params.save_path.front() != '/') {
    throw Napi::TypeError::New(object.Env(), "savePath must be absolute");
  }
  if (auto const given = Optional(object, "renamedFiles")) SetRenamedFiles(params, *given);
  if (auto const given = Optional(object, "trackers")) SetTrackers(params, *given);
  if (auto const given = Optional(object, "peers")) SetPeers(params, *given);
  if (auto const given = Optional(object, "filePriorities")) {
    SetPriorities(params.file_priorities, *given, "filePriorities");
  }
  if (auto const given = Optional(object, "piecePriorities")) {
    SetPriorities(params.piece_priorities, *given, "piecePriorities");
  }
  if (auto const given = Optional(object, "havePieces")) SetHavePieces(params, *given);
  if (auto const given = Optional(object, "unfinishedPieces")) {
    SetUnfinishedPieces(params, *given);
  }
  if (auto const given = Optional(object, "uploadLimit")) {
    params.upload_limit = RequireInt(*given, "uploadLimit");
  }
  if (auto const given = Optional(object, "downloadLimit")) {
    params.download_limit = RequireInt(*given, "downloadLimit");
  }
  if (auto const given = Optional(object, "flags")) {
    auto const [flags, mask] = ToFlags(*given);
    params.flags = (params.flags & ~mask) | flags;
  }
  // A second handle to a torrent that someone else added would let one owner remove it under the
  // other.
  params.flags |= lt::torrent_flags::duplicate_is_error;
  params.extensions.push_back([](lt::torrent_handle const&, lt::client_data_t) {
    return std::shared_ptr<lt::torrent_plugin>(std::make_shared<BlockHashGuard>());
  });
  std::optional<SliceId> own;
  if (auto const given = Optional(object, "sliceId")) own = ToSliceId(*given);
  auto const slices = std::make_shared<SliceIdPlugin>(own);
  params.extensions.push_back([slices](lt::torrent_handle const&, lt::client_data_t) {
    return std::shared_ptr<lt::torrent_plugin>(slices);
  });
  return {std::move(params), slices};
}

std::pair<lt::torrent_flags_t, lt::torrent_flags_t> ToFlags(Napi::Value value) {
  Napi::Object const object = RequireObject(value, "flags");
  lt::torrent_flags_t flags{};
  lt::torrent_flags_t mask{};
  Napi::Array const names = object.GetPropertyNames();
  for (std::uint32_t i = 0; i < names.Length(); ++i) {
    Napi::Value const key = names[i];
    std::string const name = key.As<Napi::String>();
    lt::torrent_flags_t const flag = FlagByName(object.Env(), name);
    mask |= flag;
    if (RequireBoolean(object.Get(key), "flag \"" + name + "\"")) flags |= flag;
  }
  return {flags, mask};
}

lt::address ToAddress(Napi::Value host) {
  std::string const text = RequireString(host, "host");
  lt::error_code error;
  lt::address const address = lt::make_address(text, error);
  if (error) {
    throw Napi::TypeError::New(host.Env(), "host must be an IP address, not \"" + text + "\"");
  }
  return address;
}

lt::tcp::endpoint ToEndpoint(Napi::Value host, Napi::Value port) {
  lt::address const address = ToAddress(host);
  return {address, static_cast<std::uint16_t>(RequireInt(port, "port", 1, 65535))};
}

}  // namespace llmpt
