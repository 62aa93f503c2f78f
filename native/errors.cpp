#include "errors.h"

#include <boost/system/error_code.hpp>
#include <cerrno>

#include "convert.h"

namespace llmpt {

namespace {

std::string Describe(std::string const& operation, lt::error_code const& error,
                     std::string const& subject) {
  std::string text = operation + ": " + error.message();
  if (!subject.empty()) text += " (" + subject + ")";
  return text;
}

}  // namespace

Failure::Failure(std::string operation, lt::error_code error, std::string const& subject)
    : std::runtime_error(Describe(operation, error, subject)),
      operation_(std::move(operation)),
      error_(error) {}

Failure SystemFailure(std::string operation, int number, std::string const& subject) {
  return Failure(std::move(operation), lt::error_code(number, boost::system::system_category()),
                 subject);
}

Failure LibraryFailure(std::string operation, std::system_error const& error) {
  // Its categories are not Boost's. The numbers of these two are errno's.
  auto const& category = error.code().category();
  bool const is_errno = category == std::generic_category() || category == std::system_category();
  lt::error_code const code(
      is_errno ? error.code().value() : EIO,
      category == std::system_category() ? lt::system_category() : lt::generic_category());
  return Failure(std::move(operation), code, is_errno ? "" : error.what());
}

Failure Cancelled(std::string operation) {
  return Failure(std::move(operation),
                 boost::system::errc::make_error_code(boost::system::errc::operation_canceled));
}

Napi::Error ToError(Napi::Env env, Failure const& failure) {
  Napi::Error error = Napi::Error::New(env, failure.what());
  Napi::Object object = error.Value();
  object.Set("code", "ERR_LLMPT_NATIVE");
  object.Set("operation", failure.operation());
  object.Set("category", failure.error().category().name());
  object.Set("value", failure.error().value());
  return error;
}

Napi::Object ToObject(Napi::Env env, lt::error_code const& error) {
  auto object = Napi::Object::New(env);
  object.Set("message", ToText(env, error.message()));
  object.Set("category", error.category().name());
  object.Set("value", error.value());
  return object;
}

}  // namespace llmpt
