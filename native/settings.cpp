#include "settings.h"

#include "convert.h"

namespace llmpt {

namespace {

void SetOne(lt::settings_pack& pack, std::string const& name, Napi::Value value) {
  int const id = lt::setting_by_name(name);
  if (id < 0) throw Napi::TypeError::New(value.Env(), "unknown setting \"" + name + "\"");
  std::string const what = "setting \"" + name + "\"";
  switch (id & lt::settings_pack::type_mask) {
    case lt::settings_pack::string_type_base:
      return pack.set_str(id, RequireString(value, what));
    case lt::settings_pack::int_type_base:
      return pack.set_int(id, RequireInt(value, what, std::numeric_limits<std::int32_t>::min()));
    default:
      return pack.set_bool(id, RequireBoolean(value, what));
  }
}

}  // namespace

lt::settings_pack ToSettings(Napi::Value value) {
  Napi::Object const object = RequireObject(value, "settings");
  lt::settings_pack pack;
  Napi::Array const names = object.GetPropertyNames();
  for (std::uint32_t i = 0; i < names.Length(); ++i) {
    Napi::Value const name = names[i];
    SetOne(pack, name.As<Napi::String>(), object.Get(name));
  }
  return pack;
}

}  // namespace llmpt
