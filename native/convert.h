// Between JavaScript values and C++ ones. Whatever does not fit throws: TypeError for a wrong type,
// RangeError for a number that is no integer or lies outside its range.
#pragma once

#include <napi.h>

#include <cstdint>
#include <libtorrent/sha1_hash.hpp>
#include <libtorrent/span.hpp>
#include <limits>
#include <optional>
#include <string>

namespace llmpt {

inline constexpr std::int64_t kMaxSafeInteger = 9007199254740991;
inline constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

inline std::int64_t RequireInteger(Napi::Value value, std::string const& what, std::int64_t lowest,
                                   std::int64_t highest) {
  if (!value.IsNumber()) throw Napi::TypeError::New(value.Env(), what + " must be a number");
  double const number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN, which compares false with everything, is refused too.
  bool const fits = number >= static_cast<double>(lowest) && number <= static_cast<double>(highest);
  if (!fits || number != static_cast<double>(static_cast<std::int64_t>(number))) {
    throw Napi::RangeError::New(value.Env(), what + " must be an integer from " +
                                                 std::to_string(lowest) + " to " +
                                                 std::to_string(highest));
  }
  return static_cast<std::int64_t>(number);
}

inline int RequireInt(Napi::Value value, std::string const& what, std::int64_t lowest = 0,
                      std::int64_t highest = kMaxInt32) {
  return static_cast<int>(RequireInteger(value, what, lowest, highest));
}

inline bool RequireBoolean(Napi::Value value, std::string const& what) {
  if (!value.IsBoolean()) throw Napi::TypeError::New(value.Env(), what + " must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

inline std::string RequireString(Napi::Value value, std::string const& what) {
  if (!value.IsString()) throw Napi::TypeError::New(value.Env(), what + " must be a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  // Paths and URLs end up in C strings, where the rest behind a NUL would silently disappear.
  if (text.find('\0') != std::string::npos) {
    throw Napi::TypeError::New(value.Env(), what + " must not contain NUL");
  }
  return text;
}

inline Napi::Object RequireObject(Napi::Value value, std::string const& what) {
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), what + " must be an object");
  return value.As<Napi::Object>();
}

inline Napi::Array RequireArray(Napi::Value value, std::string const& what) {
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), what + " must be an array");
  return value.As<Napi::Array>();
}

inline Napi::Function RequireFunction(Napi::Value value, std::string const& what) {
  if (!value.IsFunction()) throw Napi::TypeError::New(value.Env(), what + " must be a function");
  return value.As<Napi::Function>();
}

/// The bytes of a Uint8Array (so of a Buffer). They belong to JavaScript: copy before returning.
inline lt::span<char const> RequireBytes(Napi::Value value, std::string const& what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Napi::TypeError::New(value.Env(), what + " must be a Uint8Array");
  }
  auto const array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<char const*>(array.Data()),
          static_cast<std::ptrdiff_t>(array.ByteLength())};
}

/// A property, or nothing when it is absent or undefined.
inline std::optional<Napi::Value> Optional(Napi::Object object, char const* name) {
  Napi::Value value = object.Get(name);
  if (value.IsUndefined()) return std::nullopt;
  return value;
}

inline Napi::Value ToBytes(Napi::Env env, char const* data, std::size_t size) {
  return Napi::Buffer<char>::Copy(env, data, size);
}

/// libtorrent texts are bytes from the network: what is not UTF-8 becomes U+FFFD in V8.
inline Napi::Value ToText(Napi::Env env, std::string const& text) {
  return Napi::String::New(env, text.data(), text.size());
}

template <typename Digest>
std::string ToHex(Digest const& digest) {
  constexpr char digits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(static_cast<std::size_t>(Digest::size()) * 2);
  for (std::uint8_t const byte : digest) {
    hex.push_back(digits[byte >> 4]);
    hex.push_back(digits[byte & 15]);
  }
  return hex;
}

/// The inverse, of lower-case digits only; nothing when `hex` is not exactly that.
template <typename Digest>
std::optional<Digest> FromHex(std::string const& hex) {
  if (hex.size() != static_cast<std::size_t>(Digest::size()) * 2) return std::nullopt;
  auto const nibble = [](char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
  };
  Digest digest;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    int const high = nibble(hex[i]);
    int const low = nibble(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest[static_cast<std::ptrdiff_t>(i / 2)] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return digest;
}

}  // namespace llmpt
