#include "hash_file.h"

#include <algorithm>
#include <libtorrent/hasher.hpp>
#include <optional>
#include <string>
#include <vector>

#include "input_file.h"
#include "job.h"

namespace llmpt {

namespace {

constexpr std::int64_t kReadBytes = 1 << 20;

struct Request {
  std::string path;
  bool sha256;
  bool git_sha1;
};

struct Digests {
  std::int64_t size = 0;
  std::string sha256;
  std::string git_sha1;
};

Digests Hash(Request const& request, JobControl& control) {
  InputFile const file("hashFile", request.path);
  std::int64_t const size = file.size();
  lt::hasher256 sha256;
  lt::hasher git_sha1;
  // git hashes "blob <size>", a NUL, and the content.
  std::string const header = "blob " + std::to_string(size);
  git_sha1.update({header.c_str(), static_cast<std::ptrdiff_t>(header.size() + 1)});

  std::vector<char> buffer(static_cast<std::size_t>(std::min(size, kReadBytes)));
  for (std::int64_t offset = 0; offset < size;) {
    control.ThrowIfCancelled();
    lt::span<char> const part(buffer.data(),
                              static_cast<std::ptrdiff_t>(std::min(kReadBytes, size - offset)));
    file.ReadAt(offset, part);
    if (request.sha256) sha256.update(part);
    if (request.git_sha1) git_sha1.update(part);
    offset += part.size();
    control.Report(offset, size);
  }
  control.ThrowIfCancelled();
  // A file that still grows has another digest than the one found here.
  file.RequireSameSize();

  Digests digests;
  digests.size = size;
  if (request.sha256) digests.sha256 = ToHex(sha256.final());
  if (request.git_sha1) digests.git_sha1 = ToHex(git_sha1.final());
  return digests;
}

Napi::Value ToValue(Napi::Env env, Digests const& digests) {
  auto object = Napi::Object::New(env);
  object.Set("sizeBytes", static_cast<double>(digests.size));
  if (!digests.sha256.empty()) object.Set("sha256", digests.sha256);
  if (!digests.git_sha1.empty()) object.Set("gitSha1", digests.git_sha1);
  return object;
}

}  // namespace

Napi::Value HashFile(Napi::CallbackInfo const& info) {
  Napi::Object const wanted = RequireObject(info[1], "digests");
  Request const request{
      RequireString(info[0], "path"),
      RequireBoolean(wanted.Get("sha256"), "sha256"),
      RequireBoolean(wanted.Get("gitSha1"), "gitSha1"),
  };
  return StartJob<Digests>(
      info.Env(), "hashFile", info[2],
      [request](JobControl& control) { return Hash(request, control); }, ToValue);
}

}  // namespace llmpt
