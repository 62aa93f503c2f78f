// SHA-256's compression function in the x86 SHA instructions, in three shapes.
//
// Source: FIPS 180-4, section 6.2.2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace llmpt {

constexpr std::size_t kSha256BlockBytes = 64;

/// The eight working variables as the instructions want them: two at a time from either half,
/// the later letter first in memory.
struct Sha256State {
  std::array<std::uint32_t, 4> feba;
  std::array<std::uint32_t, 4> hgdc;
};

namespace shani {

/// Whether this processor has the instructions; without them, nothing below may be called.
bool IsAvailable();

// `blocks` are whole blocks of 64 bytes, at any address; `count` says how many.

/// One state eats one message.
void Compress(Sha256State& state, char const* blocks, std::size_t count);

/// Two states eat a message each, in turns: one computes while the other waits for its result.
void CompressPair(Sha256State& first, char const* first_blocks, Sha256State& second,
                  char const* second_blocks, std::size_t count);

/// Two states eat the same message, whose schedule is computed once.
void CompressShared(Sha256State& first, Sha256State& second, char const* blocks, std::size_t count);

}  // namespace shani

}  // namespace llmpt
