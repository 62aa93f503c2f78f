// Methods of wrapped classes that survive being called on the wrong object.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "errors.h"

namespace llmpt {

/// A method of `Class`, which has a static `kTag`. node-addon-api unwraps `this` without asking
/// what was wrapped, so `a.method.call(b)` could read a `Session` as a `Torrent`. V8 checks the
/// receiver too, but Node-API does not promise that; the type tag is its own way to be sure.
template <typename Class, Napi::Value (Class::*Method)(Napi::CallbackInfo const&)>
napi_value CallMethod(napi_env env, napi_callback_info raw) {
  return Napi::details::WrapCallback(env, [&]() -> napi_value {
    Napi::CallbackInfo const info(env, raw);
    auto const* name = static_cast<char const*>(info.Data());
    Napi::Value const self = info.This();
    if (!self.IsObject() || !self.As<Napi::Object>().CheckTypeTag(&Class::kTag)) {
      throw Napi::TypeError::New(env, std::string(name) + " called on a wrong object");
    }
    auto* object = Class::Unwrap(self.As<Napi::Object>());
    return Guarded(env, name, [&] { return (object->*Method)(info); });
  });
}

/// `name` must be a literal: V8 keeps the pointer as the method's data.
template <typename Class, Napi::Value (Class::*Method)(Napi::CallbackInfo const&)>
napi_property_descriptor DescribeMethod(char const* name) {
  napi_property_descriptor descriptor = {};
  descriptor.utf8name = name;
  descriptor.method = &CallMethod<Class, Method>;
  descriptor.attributes = napi_default_method;
  descriptor.data = const_cast<char*>(name);
  return descriptor;
}

/// A property that `Method` reads anew each time; `name` as above.
template <typename Class, Napi::Value (Class::*Method)(Napi::CallbackInfo const&)>
napi_property_descriptor DescribeGetter(char const* name) {
  napi_property_descriptor descriptor = {};
  descriptor.utf8name = name;
  descriptor.getter = &CallMethod<Class, Method>;
  descriptor.attributes = napi_enumerable;
  descriptor.data = const_cast<char*>(name);
  return descriptor;
}

}  // namespace llmpt
