// Precedence: default, file, environment, flag.
#include "app/settings/resolve.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/compat/scripts.h"
#include "app/settings/config.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/suggest.h"
#include "request/file_inputs.h"
#include "request/paths.h"

namespace atelier::app {
namespace {

struct Entry {
  std::string section;
  Field field;
  FieldRef slot;
};

std::string underscored(std::string key) {
  for (char& c : key) c = c == '-' ? '_' : c;
  return key;
}

// All fields of the settings, by every name.
class Entries {
 public:
  explicit Entries(Settings& settings) {
    settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
      all_.push_back({section, field, slot});
    });
    for (const auto& e : all_) {
      sections_.push_back(e.section);
      by_name_.emplace(e.field.name, &e);
      for (const auto& alias : words_of(e.field.aliases)) by_name_.emplace(alias, &e);
    }
  }
  const std::vector<Entry>& all() const { return all_; }
  const Entry* find(const std::string& name) const {
    const auto at = by_name_.find(underscored(name));
    return at == by_name_.end() ? nullptr : at->second;
  }
  bool is_section(const std::string& name) const {
    return std::find(sections_.begin(), sections_.end(), name) != sections_.end();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, entry] : by_name_) out.push_back(name);
    return out;
  }

 private:
  std::vector<Entry> all_;
  std::vector<std::string> sections_;
  std::map<std::string, const Entry*> by_name_;
};

// Values of a configuration file. Keys may stand in the sections that `config show --json` prints.
class FileReader {
 public:
  FileReader(const std::filesystem::path& file, const Entries& entries, Resolved& out)
      : file_(file), entries_(entries), out_(out), config_(read_config(file)) {}

  void read() { read(config_.values, config_.written, ""); }

 private:
  void read(const Json& values, const Json& written, const std::string& prefix) {
    for (const auto& [key, value] : values.items()) {
      if (prefix.empty() && key == "sources") continue;
      if (prefix.empty() && value.is_object() && entries_.is_section(key)) {
        read(value, written.at(key), key + ".");
        continue;
      }
      const std::string at = place(prefix + key);
      const Entry* entry = entries_.find(key);
      if (!entry) fail_unknown(key, at);
      if (value.is_null()) continue;
      const std::string name(entry->field.name);
      if (const auto [other, is_new] = seen_.emplace(name, key); !is_new) {
        throw Error(Kind::kUsage,
                    str(at, ": ", key, " and ", other->second, " are one setting; give it once"));
      }
      const bool takes_text =
          is_text(entry->slot) || std::holds_alternative<std::vector<std::string>*>(entry->slot);
      set_from_json(entry->field, entry->slot, takes_text ? written.at(key) : value, str(at, ": ", key));
      out_.origins[name] = {Precedence::kFile, str(key, " in ", at)};
    }
  }

  std::string place(const std::string& key) const {
    const auto line = config_.lines.find(key);
    return line == config_.lines.end() ? file_.string() : str(file_.string(), ":", line->second);
  }

  [[noreturn]] void fail_unknown(const std::string& key, const std::string& at) const {
    throw Error(Kind::kUsage, str(at, ": unknown key ", key,
                                  did_you_mean(key, entries_.names(), "; config show lists all")));
  }

  const std::filesystem::path& file_;
  const Entries& entries_;
  Resolved& out_;
  const Config config_;
  std::map<std::string, std::string> seen_;
};

void read_environment(const Environment& environment, const Entries& entries, Resolved& out) {
  std::vector<std::string> used;
  for (const auto& e : entries.all()) {
    const bool is_another = e.field.surfaces == kServe && out.surface != kServe;  // the server's alone
    if (e.field.variable.empty() || is_another) continue;
    const std::string variable(e.field.variable);
    used.push_back(variable);
    const auto at = environment.find(variable);
    if (at == environment.end() || at->second.empty()) continue;
    set_from_text(e.field, e.slot, {at->second}, str(variable, " in the environment"));
    out.origins[std::string(e.field.name)] = {Precedence::kEnvironment, variable};
  }
  auto unused = unused_variables(environment, used);
  std::string idle;
  for (const auto& name : unused.idle) idle += (idle.empty() ? "" : ", ") + name;
  if (!idle.empty()) out.notes.push_back("known, but without effect in this build: " + idle);
  out.warnings = std::move(unused.unknown);
}

void read_flags(const std::vector<Given>& flags, const Entries& entries, Resolved& out) {
  for (const auto& given : flags) {
    const Entry* entry = entries.find(given.name);
    if (!entry) throw Error(Kind::kUsage, str("unknown flag ", given.spelling));
    set_from_text(entry->field, entry->slot, given.words, given.spelling);
    out.origins[std::string(entry->field.name)] = {Precedence::kFlag, given.spelling};
  }
}

// A shell does so for words of their own only: not behind "=", and not in files.
void expand_homes(const Environment& environment, Settings& s) {
  for (std::string* path :
       {&s.model.model_name, &s.model.base_model, &s.model.transformer_2, &s.model.cache_dir,
        &s.model.save_dummy, &s.engine.gemm_cache, &s.input.prompts_file, &s.input.dataset_path,
        &s.output.output_dir, &s.output.log_dir, &s.serve.api_key_file, &s.serve.tls_cert, &s.serve.tls_key,
        &s.serve.data_dir, &s.serve.lora_dir})
    *path = expand_home(*path, environment);
  for (const auto& input : request::kFileInputs) {
    const auto texts = s.input.texts.find(std::string(input.name));
    if (texts == s.input.texts.end()) continue;
    for (auto& path : texts->second) path = expand_home(path, environment);
  }
  request::rewrite_paths(s.input.row.request,
                         [&](const std::string& path) { return expand_home(path, environment); });
}

}  // namespace

Origin Resolved::origin(const std::string& name) const {
  const auto at = origins.find(name);
  return at == origins.end() ? Origin() : at->second;
}

std::string with_origins(const std::string& message, const Resolved& resolved) {
  const auto is_inside = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
  };
  std::string list;
  for (const auto& [name, origin] : resolved.origins) {
    // names of one word are words of other meanings too
    if (name.find('_') == std::string::npos || message.find(origin.text) != std::string::npos) continue;
    const size_t at = message.find(name), end = at + name.size();
    if (at == std::string::npos || (at > 0 && is_inside(message[at - 1]))) continue;
    if (end < message.size() && is_inside(message[end])) continue;
    list += str(list.empty() ? " (" : ", ", name, ": ", origin.text);
  }
  return list.empty() ? message : message + list + ")";
}

Resolved resolve(Surface surface, const std::vector<Given>& flags, const Environment& environment,
                 const std::filesystem::path& config) {
  Resolved out;
  out.surface = surface;
  out.settings = defaults_for(surface);
  const Entries entries(out.settings);
  if (!config.empty()) FileReader(config, entries, out).read();
  read_environment(environment, entries, out);
  read_flags(flags, entries, out);
  settle_scripts(out);
  expand_homes(environment, out.settings);
  const auto& products = out.settings.engine.gemm_cache;
  if (products.empty()) out.gemm_cache = cache_folder(environment) / "atelier";
  if (!products.empty() && products != "none") out.gemm_cache = products;
  apply_optimize(out);
  validate(out);
  return out;
}

}  // namespace atelier::app
