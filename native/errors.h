// The one place where libtorrent's errors become JavaScript's. Each carries
// `code` 'ERR_LLMPT_NATIVE', `operation`, and the error code's `category` and `value`.
#pragma once

#include <napi.h>

#include <libtorrent/error_code.hpp>
#include <stdexcept>
#include <string>
#include <system_error>

namespace llmpt {

/// A failure that names what was tried. Thrown on any thread; becomes a JavaScript error on its
/// own.
class Failure : public std::runtime_error {
 public:
  /// `subject` is what the operation was about, such as a path; empty for none.
  Failure(std::string operation, lt::error_code error, std::string const& subject = {});

  std::string const& operation() const { return operation_; }
  lt::error_code const& error() const { return error_; }

 private:
  std::string operation_;
  lt::error_code error_;
};

/// The failure that `errno` describes.
Failure SystemFailure(std::string operation, int number, std::string const& subject = {});
/// What the C++ library reports, such as a thread that could not be started.
Failure LibraryFailure(std::string operation, std::system_error const& error);
Failure Cancelled(std::string operation);

Napi::Error ToError(Napi::Env env, Failure const& failure);

/// `{ message, category, value }`, as alerts carry it.
Napi::Object ToObject(Napi::Env env, lt::error_code const& error);

/// Runs `call` and turns whatever C++ throws into a JavaScript error that names `operation`.
template <typename Call>
auto Guarded(Napi::Env env, char const* operation, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (Napi::Error const&) {
    throw;
  } catch (Failure const& failure) {
    throw ToError(env, failure);
  } catch (lt::system_error const& error) {
    throw ToError(env, Failure(operation, error.code()));
  } catch (std::system_error const& error) {
    throw ToError(env, LibraryFailure(operation, error));
  } catch (std::exception const& error) {
    throw Napi::Error::New(env, std::string(operation) + ": " + error.what());
  }
}

}  // namespace llmpt
