// Compares native/sha256_kernels.* with OpenSSL, and measures them.
//
//     sha256_kernels [--code sha-ni|openssl] [--cases N] [--seed N]
//     sha256_kernels --speed
//
// The first prints one line and ends with 0, or says on stderr which case failed and ends with 1.
// Without --code, the best for this processor computes. The second prints MB/s (10^6 bytes) as
// JSON: medians of five rounds, per second of the one thread's processor time, so that a busy
// machine shows less.

#include "../../../native/sha256_kernels.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <libtorrent/hex.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using llmpt::Sha256Code;
using llmpt::StreamSha256;
using Bytes = lt::span<char const>;
using Leaves = std::vector<lt::sha256_hash>;

constexpr std::ptrdiff_t kLeafBytes = 16 * 1024;
constexpr std::ptrdiff_t kMaxBytes = 70 * 1024;

char const* Name(Sha256Code code) { return code == Sha256Code::kShaNi ? "sha-ni" : "openssl"; }

void Expect(bool is_true, std::string const& claim) {
  if (!is_true) throw std::runtime_error("not so: " + claim);
}

std::size_t LeafCount(Bytes bytes) {
  return static_cast<std::size_t>((bytes.size() + kLeafBytes - 1) / kLeafBytes);
}

Leaves LeavesOf(Sha256Code code, Bytes bytes) {
  Leaves leaves(LeafCount(bytes));
  llmpt::HashLeaves(code, bytes, leaves);
  return leaves;
}

/// What OpenSSL says of each block alone.
Leaves ExpectedLeaves(Bytes bytes) {
  Leaves leaves;
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), kLeafBytes))) {
    leaves.push_back(lt::hasher256(bytes.first(std::min(bytes.size(), kLeafBytes))).final());
  }
  return leaves;
}

lt::sha256_hash ExpectedDigest(Bytes bytes) {
  lt::hasher256 hasher;
  if (!bytes.empty()) hasher.update(bytes);
  return hasher.final();
}

// --- Random cases --------------------------------------------------------------------------------

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  /// From 0 to `last`.
  std::ptrdiff_t UpTo(std::ptrdiff_t last) {
    return static_cast<std::ptrdiff_t>(engine_() % static_cast<std::uint64_t>(last + 1));
  }

  std::vector<char> Bytes(std::size_t count) {
    std::vector<char> bytes(count);
    for (char& byte : bytes) byte = static_cast<char>(engine_());
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

/// Mostly short, often at a boundary, sometimes several leaves.
std::ptrdiff_t SomeLength(Random& random) {
  constexpr std::array<std::ptrdiff_t, 13> kBoundaries = {0,  1,  54,  55,  56,  57, 63,
                                                          64, 65, 119, 120, 127, 128};
  switch (random.UpTo(15)) {
    case 0:
      return random.UpTo(kMaxBytes);
    case 1:
      return kLeafBytes * (1 + random.UpTo(3)) + random.UpTo(2) - 1;
    case 2:
      return kLeafBytes * random.UpTo(4) +
             kBoundaries[static_cast<std::size_t>(random.UpTo(kBoundaries.size() - 1))];
    default:
      return random.UpTo(300);
  }
}

/// A message at a chosen place within a line of 64 bytes, in memory that ends with it, so that
/// AddressSanitizer sees who reads beyond.
class Message {
 public:
  Message(Bytes content, std::ptrdiff_t offset)
      : memory_(static_cast<std::size_t>(content.size() + 2 * 64)) {
    auto const misaligned = reinterpret_cast<std::uintptr_t>(memory_.data()) % 64;
    begin_ = (64 - static_cast<std::ptrdiff_t>(misaligned)) % 64 + offset;
    memory_.resize(static_cast<std::size_t>(begin_ + content.size()));
    std::copy(content.begin(), content.end(), memory_.begin() + begin_);
  }

  Bytes bytes() const { return Bytes(memory_).subspan(begin_); }

 private:
  std::vector<char> memory_;
  std::ptrdiff_t begin_;
};

void TestLeaves(Sha256Code code, Bytes bytes) {
  Expect(LeavesOf(code, bytes) == ExpectedLeaves(bytes), "leaves are those of OpenSSL");
}

/// How many bytes `UpdateWithLeaves` may be given: whole leaves, or all that is left.
std::ptrdiff_t SomeLeaves(Random& random, std::ptrdiff_t left) {
  std::ptrdiff_t const whole = kLeafBytes * random.UpTo(left / kLeafBytes);
  return random.UpTo(1) == 0 ? left : whole;
}

void TestStream(Sha256Code code, Bytes bytes, Random& random) {
  StreamSha256 stream(code);
  std::ptrdiff_t at = 0;
  while (at < bytes.size()) {
    Bytes const portion = bytes.subspan(at, SomeLeaves(random, bytes.size() - at));
    Leaves leaves(LeafCount(portion));
    stream.UpdateWithLeaves(portion, leaves);
    Expect(leaves == ExpectedLeaves(portion), "leaves beside a digest are those of OpenSSL");
    at += portion.size();
  }
  Expect(stream.Final() == ExpectedDigest(bytes), "the digest of a stream is that of OpenSSL");
}

void TestRandomCases(Sha256Code code, std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  auto const pool = random.Bytes(kMaxBytes + 4096);
  for (std::int64_t i = 0; i < count; ++i) {
    std::ptrdiff_t const length = SomeLength(random);
    std::ptrdiff_t const offset = i % 64;
    Message const message(Bytes(pool).subspan(random.UpTo(4096), length), offset);
    try {
      TestLeaves(code, message.bytes());
      TestStream(code, message.bytes(), random);
    } catch (std::exception const& error) {
      throw std::runtime_error(std::string(error.what()) + " (case " + std::to_string(i) + ": " +
                               std::to_string(length) + " bytes at an address of 64n+" +
                               std::to_string(offset) + ")");
    }
  }
}

// --- Chosen cases --------------------------------------------------------------------------------

std::string HexDigest(Sha256Code code, std::string const& message) {
  StreamSha256 stream(code);
  Leaves leaves(LeafCount(message));
  stream.UpdateWithLeaves(message, leaves);
  return lt::aux::to_hex(stream.Final());
}

/// The examples that NIST publishes with FIPS 180-4.
void TestKnownAnswers(Sha256Code code) {
  Expect(HexDigest(code, "") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "the known answer for nothing");
  Expect(
      HexDigest(code, "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "the known answer for abc");
  Expect(HexDigest(code, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
         "the known answer for two blocks");
  Expect(HexDigest(code, std::string(1'000'000, 'a')) ==
             "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
         "the known answer for a million a");
}

/// Its length in bits does not fit in 32 of them.
void TestLongStream(Sha256Code code) {
  std::vector<char> const zeros(8 << 20);
  Leaves leaves(LeafCount(zeros));
  StreamSha256 stream(code);
  lt::hasher256 expected;
  for (int i = 0; i < 65; ++i) {
    stream.UpdateWithLeaves(zeros, leaves);
    expected.update(zeros);
  }
  Expect(stream.Final() == expected.final(), "the digest of 520 MiB is that of OpenSSL");
}

template <typename Call>
bool Refuses(Call call) {
  try {
    call();
  } catch (std::invalid_argument const&) {
    return true;
  }
  return false;
}

void TestMisuse(Sha256Code code) {
  std::vector<char> const bytes(kLeafBytes + 1);
  Leaves one(1);
  Leaves two(2);
  StreamSha256 stream(code);
  Expect(Refuses([&] { llmpt::HashLeaves(code, bytes, one); }), "too few leaves are refused");
  Expect(Refuses([&] { stream.UpdateWithLeaves(bytes, one); }), "also of a stream");
  stream.UpdateWithLeaves(bytes, two);
  Expect(Refuses([&] { stream.UpdateWithLeaves(bytes, two); }), "nothing follows a short leaf");
}

// --- Speed ---------------------------------------------------------------------------------------

constexpr std::size_t kSpeedBytes = 256 << 20;
constexpr std::size_t kSpeedRounds = 5;
/// What is hashed at a time, as by those who read files.
constexpr std::ptrdiff_t kReadBytes = 1 << 20;

double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

enum class Shape { kLeaves, kStream, kStreamWithLeaves };

void Hash(Sha256Code code, Shape shape, Bytes bytes) {
  lt::hasher256 digest;
  StreamSha256 stream(code);
  Leaves leaves(static_cast<std::size_t>(kReadBytes / kLeafBytes));
  for (; !bytes.empty(); bytes = bytes.subspan(kReadBytes)) {
    Bytes const portion = bytes.first(kReadBytes);
    if (shape == Shape::kLeaves) llmpt::HashLeaves(code, portion, leaves);
    if (shape == Shape::kStream) digest.update(portion);
    if (shape == Shape::kStreamWithLeaves) stream.UpdateWithLeaves(portion, leaves);
  }
}

struct Measure {
  char const* name;
  Shape shape;
  Sha256Code code;
  std::array<double, kSpeedRounds> megabytes_per_second;

  void Take(std::size_t round, Bytes bytes) {
    double const begin = ThreadSeconds();
    Hash(code, shape, bytes);
    megabytes_per_second[round] =
        static_cast<double>(bytes.size()) / 1e6 / (ThreadSeconds() - begin);
  }

  double Median() {
    std::sort(megabytes_per_second.begin(), megabytes_per_second.end());
    return megabytes_per_second[kSpeedRounds / 2];
  }
};

std::vector<Measure> AllMeasures() {
  std::vector<Sha256Code> codes = {Sha256Code::kOpenSsl};
  if (llmpt::shani::IsAvailable()) codes.push_back(Sha256Code::kShaNi);
  std::vector<Measure> measures;
  for (Sha256Code const code : codes) {
    measures.push_back({"leaves", Shape::kLeaves, code, {}});
    if (code == Sha256Code::kOpenSsl) measures.push_back({"stream", Shape::kStream, code, {}});
    measures.push_back({"streamWithLeaves", Shape::kStreamWithLeaves, code, {}});
  }
  return measures;
}

int PrintSpeed() {
  auto const bytes = Random(1).Bytes(kSpeedBytes);
  auto measures = AllMeasures();
  // In turns, so that a slow moment of the machine meets all.
  for (std::size_t round = 0; round < kSpeedRounds; ++round) {
    for (Measure& measure : measures) measure.Take(round, bytes);
  }
  std::printf("{\"bytes\":%zu,\"rounds\":%zu,\"megabytesPerSecond\":[", kSpeedBytes, kSpeedRounds);
  char const* separator = "";
  for (Measure& measure : measures) {
    std::printf("%s{\"code\":\"%s\",\"shape\":\"%s\",\"median\":%.0f}", separator,
                Name(measure.code), measure.name, measure.Median());
    separator = ",";
  }
  std::printf("]}\n");
  return 0;
}

// --- The command line ----------------------------------------------------------------------------

struct Options {
  Sha256Code code = llmpt::BestSha256Code();
  std::int64_t cases = 20'000;
  std::uint64_t seed = std::random_device{}();
  bool is_about_speed = false;
};

Sha256Code ToCode(std::string const& name) {
  for (Sha256Code const code : {Sha256Code::kShaNi, Sha256Code::kOpenSsl}) {
    bool const is_usable = code == Sha256Code::kOpenSsl || llmpt::shani::IsAvailable();
    if (name == Name(code) && is_usable) return code;
  }
  throw std::invalid_argument("no such code, or not on this processor: " + name);
}

Options Parse(std::vector<std::string> const& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string const& name = arguments[i];
    if (name == "--speed") {
      options.is_about_speed = true;
    } else if (name == "--code") {
      options.code = ToCode(arguments.at(++i));
    } else if (name == "--cases") {
      options.cases = std::stoll(arguments.at(++i));
    } else if (name == "--seed") {
      options.seed = std::stoull(arguments.at(++i));
    } else {
      throw std::invalid_argument("no such option: " + name);
    }
  }
  return options;
}

int RunTests(Options const& options) {
  try {
    TestKnownAnswers(options.code);
    TestMisuse(options.code);
    TestLongStream(options.code);
    TestRandomCases(options.code, options.cases, options.seed);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s; --seed %llu\n", Name(options.code), error.what(),
                 static_cast<unsigned long long>(options.seed));
    return 1;
  }
  std::printf("%s: %lld cases agree\n", Name(options.code), static_cast<long long>(options.cases));
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    Options const options = Parse({arguments + 1, arguments + count});
    return options.is_about_speed ? PrintSpeed() : RunTests(options);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
