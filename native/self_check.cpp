#include "self_check.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/read_resume_data.hpp>
#include <libtorrent/torrent_status.hpp>
#include <libtorrent/version.hpp>
#include <libtorrent/write_resume_data.hpp>
#include <new>
#include <string>

#include "build_facts.h"
#include "convert.h"

namespace llmpt {

namespace {

// libtorrent's structures change with its build flags, and the linker does not notice.
// build_facts.h has the sizes under exactly the flags that pkg-config gives; these are the sizes
// this addon compiles with.
static_assert(sizeof(lt::add_torrent_params) == kSizeOfAddTorrentParams,
              "the addon is compiled with other flags than libtorrent's pkg-config file gives");
static_assert(sizeof(lt::torrent_status) == kSizeOfTorrentStatus,
              "the addon is compiled with other flags than libtorrent's pkg-config file gives");
static_assert(TORRENT_ABI_VERSION == kAbiVersion,
              "the addon is compiled with other flags than libtorrent's pkg-config file gives");

std::string HeaderVersion() {
  return std::to_string(LIBTORRENT_VERSION_MAJOR) + "." + std::to_string(LIBTORRENT_VERSION_MINOR) +
         "." + std::to_string(LIBTORRENT_VERSION_TINY);
}

/// The first three numbers of "2.0.8.0".
std::string LibraryVersion() {
  std::string const full = lt::version();
  std::size_t end = 0;
  for (int dots = 0; end < full.size(); ++end) {
    if (full[end] == '.' && ++dots == 3) break;
  }
  return full.substr(0, end);
}

lt::add_torrent_params Sample() {
  lt::add_torrent_params params;
  params.name = "self-check";
  params.save_path = "/self-check";
  params.info_hashes.v2 = lt::sha256_hash("0123456789abcdef0123456789abcdef");
  params.upload_limit = 12345;
  params.renamed_files[lt::file_index_t(3)] = "/self-check/renamed";
  params.have_pieces.resize(9, true);
  params.last_upload = 1234567890;
  return params;
}

bool Equals(lt::add_torrent_params const& one, lt::add_torrent_params const& other) {
  return one.name == other.name && one.save_path == other.save_path &&
         one.info_hashes == other.info_hashes && one.upload_limit == other.upload_limit &&
         one.renamed_files == other.renamed_files &&
         one.have_pieces.size() == other.have_pieces.size() && one.have_pieces.all_set() &&
         one.last_upload == other.last_upload;
}

/// Lets the library write a structure and a reader of ours read it, with a guard behind it: a
/// library with a larger structure writes over the guard, one with another layout gives other
/// values.
bool RoundTripHolds() {
  constexpr std::size_t kGuardBytes = 512;
  constexpr char kGuard = 0x5a;
  lt::add_torrent_params const sample = Sample();
  std::vector<char> const bytes = lt::write_resume_data_buf(sample);

  struct alignas(lt::add_torrent_params) Place {
    std::array<char, sizeof(lt::add_torrent_params) + kGuardBytes> bytes;
  };
  auto const place = std::make_unique<Place>();
  place->bytes.fill(kGuard);
  auto* read = ::new (place->bytes.data()) lt::add_torrent_params(lt::read_resume_data(bytes));
  bool const is_intact = std::all_of(place->bytes.end() - kGuardBytes, place->bytes.end(),
                                     [](char byte) { return byte == kGuard; });
  // What did not fit cannot be trusted to be destroyed either.
  if (!is_intact) return false;
  bool const is_equal = Equals(*read, sample);
  read->~add_torrent_params();
  return is_equal;
}

std::string FindFault(std::string const& expected) {
  std::string const loaded = LibraryVersion();
  if (loaded != expected) {
    return "compiled for libtorrent " + expected + ", but " + loaded + " was loaded";
  }
  if (!RoundTripHolds()) {
    return "libtorrent " + loaded + " was built with other options than this addon";
  }
  return {};
}

}  // namespace

Napi::Value SelfCheck(Napi::CallbackInfo const& info) {
  std::string expected = HeaderVersion();
  if (!info[0].IsUndefined()) {
    Napi::Object const options = RequireObject(info[0], "options");
    if (auto const given = Optional(options, "expectVersion")) {
      expected = RequireString(*given, "expectVersion");
    }
  }
  std::string const fault = FindFault(expected);
  auto result = Napi::Object::New(info.Env());
  result.Set("ok", fault.empty());
  if (!fault.empty()) result.Set("reason", fault);
  return result;
}

Napi::Object Versions(Napi::Env env) {
  auto versions = Napi::Object::New(env);
  versions.Set("libtorrent", LibraryVersion());
  versions.Set("libtorrentHeaders", HeaderVersion());
  versions.Set("openssl", OpenSSL_version(OPENSSL_VERSION));
  versions.Set("napi", Napi::VersionManagement::GetNapiVersion(env));
  return versions;
}

}  // namespace llmpt
