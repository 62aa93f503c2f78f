#include "sha256_shani.h"

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>
#include <immintrin.h>

#include <utility>

// Per function, not per file: code from headers must not be compiled for a processor that we may
// not have.
#define LLMPT_SHANI_TARGET __attribute__((target("sha,ssse3,sse4.1")))
#define LLMPT_SHANI_INLINE LLMPT_SHANI_TARGET __attribute__((always_inline)) inline

namespace llmpt::shani {

namespace {

/// FIPS 180-4, section 4.2.2.
alignas(16) constexpr std::uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/// A state in registers: variables A, B, E, F and C, D, G, H, the first letter in the highest lane.
struct Lanes {
  __m128i abef;
  __m128i cdgh;
};

/// The last sixteen words of a message schedule, four to a register, as a ring: group g of four
/// rounds finds its words in `words[g % 4]`.
struct Schedule {
  __m128i words[4];
};

LLMPT_SHANI_INLINE __m128i LoadUnaligned(void const* from) {
  return _mm_loadu_si128(static_cast<__m128i const*>(from));
}

LLMPT_SHANI_INLINE void StoreUnaligned(void* to, __m128i value) {
  _mm_storeu_si128(static_cast<__m128i*>(to), value);
}

LLMPT_SHANI_INLINE Lanes Load(Sha256State const& state) {
  return {LoadUnaligned(state.feba.data()), LoadUnaligned(state.hgdc.data())};
}

LLMPT_SHANI_INLINE void Store(Sha256State& state, Lanes const& lanes) {
  StoreUnaligned(state.feba.data(), lanes.abef);
  StoreUnaligned(state.hgdc.data(), lanes.cdgh);
}

/// Four words of the message, which is big-endian.
LLMPT_SHANI_INLINE __m128i LoadWords(char const* from) {
  __m128i const swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  return _mm_shuffle_epi8(LoadUnaligned(from), swap);
}

/// The words of group `kGroup`: from the message, or from the sixteen before.
template <std::size_t kGroup>
LLMPT_SHANI_INLINE void Extend(Schedule& schedule, char const* block) {
  auto& words = schedule.words;
  __m128i& next = words[kGroup % 4];
  if constexpr (kGroup < 4) {
    next = LoadWords(block + 16 * kGroup);
  } else {
    __m128i const& last = words[(kGroup + 3) % 4];
    __m128i const seven_back = _mm_alignr_epi8(last, words[(kGroup + 2) % 4], 4);
    __m128i const partial = _mm_sha256msg1_epu32(next, words[(kGroup + 1) % 4]);
    next = _mm_sha256msg2_epu32(_mm_add_epi32(partial, seven_back), last);
  }
}

template <std::size_t kGroup>
LLMPT_SHANI_INLINE __m128i AddConstants(Schedule const& schedule) {
  return _mm_add_epi32(schedule.words[kGroup % 4], LoadUnaligned(kRoundConstants + 4 * kGroup));
}

/// Four rounds. `sums` are words plus constants. The instruction takes two rounds and returns the
/// new ABEF; the old ABEF is the new CDGH.
LLMPT_SHANI_INLINE void QuadRound(Lanes& lanes, __m128i sums) {
  lanes.cdgh = _mm_sha256rnds2_epu32(lanes.cdgh, lanes.abef, sums);
  __m128i const upper_sums = _mm_shuffle_epi32(sums, 0x0e);
  lanes.abef = _mm_sha256rnds2_epu32(lanes.abef, lanes.cdgh, upper_sums);
}

LLMPT_SHANI_INLINE void Add(Lanes& lanes, Lanes const& other) {
  lanes.abef = _mm_add_epi32(lanes.abef, other.abef);
  lanes.cdgh = _mm_add_epi32(lanes.cdgh, other.cdgh);
}

template <std::size_t kGroup>
LLMPT_SHANI_INLINE void Group(Lanes& lanes, Schedule& schedule, char const* block) {
  Extend<kGroup>(schedule, block);
  QuadRound(lanes, AddConstants<kGroup>(schedule));
}

template <std::size_t kGroup>
LLMPT_SHANI_INLINE void GroupShared(Lanes& first, Lanes& second, Schedule& schedule,
                                    char const* block) {
  Extend<kGroup>(schedule, block);
  __m128i const sums = AddConstants<kGroup>(schedule);
  QuadRound(first, sums);
  QuadRound(second, sums);
}

template <std::size_t... kGroups>
LLMPT_SHANI_INLINE void Rounds(Lanes& lanes, char const* block, std::index_sequence<kGroups...>) {
  Schedule schedule;
  (Group<kGroups>(lanes, schedule, block), ...);
}

template <std::size_t... kGroups>
LLMPT_SHANI_INLINE void RoundsPair(Lanes& first, char const* first_block, Lanes& second,
                                   char const* second_block, std::index_sequence<kGroups...>) {
  Schedule first_schedule;
  Schedule second_schedule;
  ((Group<kGroups>(first, first_schedule, first_block),
    Group<kGroups>(second, second_schedule, second_block)),
   ...);
}

template <std::size_t... kGroups>
LLMPT_SHANI_INLINE void RoundsShared(Lanes& first, Lanes& second, char const* block,
                                     std::index_sequence<kGroups...>) {
  Schedule schedule;
  (GroupShared<kGroups>(first, second, schedule, block), ...);
}

using AllGroups = std::make_index_sequence<16>;

}  // namespace

bool IsAvailable() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  // Not every compiler's __builtin_cpu_supports knows "sha".
  bool const has_sha = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx >> 29 & 1) != 0;
  return has_sha && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
}

LLMPT_SHANI_TARGET void Compress(Sha256State& state, char const* blocks, std::size_t count) {
  Lanes lanes = Load(state);
  for (; count > 0; --count, blocks += kSha256BlockBytes) {
    Lanes const before = lanes;
    Rounds(lanes, blocks, AllGroups{});
    Add(lanes, before);
  }
  Store(state, lanes);
}

LLMPT_SHANI_TARGET void CompressPair(Sha256State& first, char const* first_blocks,
                                     Sha256State& second, char const* second_blocks,
                                     std::size_t count) {
  Lanes a = Load(first);
  Lanes b = Load(second);
  for (; count > 0; --count) {
    Lanes const a_before = a;
    Lanes const b_before = b;
    RoundsPair(a, first_blocks, b, second_blocks, AllGroups{});
    Add(a, a_before);
    Add(b, b_before);
    first_blocks += kSha256BlockBytes;
    second_blocks += kSha256BlockBytes;
  }
  Store(first, a);
  Store(second, b);
}

LLMPT_SHANI_TARGET void CompressShared(Sha256State& first, Sha256State& second, char const* blocks,
                                       std::size_t count) {
  Lanes a = Load(first);
  Lanes b = Load(second);
  for (; count > 0; --count, blocks += kSha256BlockBytes) {
    Lanes const a_before = a;
    Lanes const b_before = b;
    RoundsShared(a, b, blocks, AllGroups{});
    Add(a, a_before);
    Add(b, b_before);
  }
  Store(first, a);
  Store(second, b);
}

}  // namespace llmpt::shani

#else

#include <cstdlib>

// ARMv8 has SHA-256 instructions of its own, and OpenSSL uses them.
namespace llmpt::shani {

bool IsAvailable() { return false; }

void Compress(Sha256State&, char const*, std::size_t) { std::abort(); }

void CompressPair(Sha256State&, char const*, Sha256State&, char const*, std::size_t) {
  std::abort();
}

void CompressShared(Sha256State&, Sha256State&, char const*, std::size_t) { std::abort(); }

}  // namespace llmpt::shani

#endif
