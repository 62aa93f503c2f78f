#include "hash_file.h"

#include <optional>
#include <string>

#include "hash_pipeline.h"
#include "input_file.h"
#include "job.h"

namespace llmpt {

namespace {

struct Request {
  std::string path;
  WantedHashes wanted;
  int threads = 1;
};

struct Digests {
  std::int64_t size;
  std::int64_t read_bytes;
  FileHashes hashes;
};

Request ToRequest(Napi::Value path, Napi::Value value) {
  Napi::Object const digests = RequireObject(value, "digests");
  Request request;
  request.path = RequireString(path, "path");
  request.wanted.sha256 = RequireBoolean(digests.Get("sha256"), "sha256");
  request.wanted.git_sha1 = RequireBoolean(digests.Get("gitSha1"), "gitSha1");
  if (auto const threads = Optional(digests, "threads")) {
    request.threads = RequireInt(*threads, "threads", 1, kMaxThreadsAsked);
  }
  return request;
}

Digests Hash(Request const& request, JobControl& control, ThreadBudget& budget) {
  InputFile const file("hashFile", request.path);
  auto const report = [&](std::int64_t bytes) { control.Report(bytes, file.size()); };
  FileHashes hashes =
      HashFileOnce(file, request.wanted, {control, budget, request.threads, report});
  return {file.size(), file.read_bytes(), std::move(hashes)};
}

Napi::Value ToValue(Napi::Env env, Digests const& digests) {
  auto object = Napi::Object::New(env);
  object.Set("sizeBytes", static_cast<double>(digests.size));
  SetDigests(object, digests.hashes);
  object.Set("readBytes", static_cast<double>(digests.read_bytes));
  return object;
}

}  // namespace

Napi::Value HashFile(Napi::CallbackInfo const& info) {
  Request const request = ToRequest(info[0], info[1]);
  auto const budget = Environment::Of(info.Env())->hashing->budget();
  return StartJob<Digests>(
      info.Env(), "hashFile", info[2],
      [request, budget](JobControl& control) { return Hash(request, control, *budget); }, ToValue);
}

}  // namespace llmpt
