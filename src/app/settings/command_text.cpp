#include "app/settings/command_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"

namespace atelier::app {

const char* command_of(Surface surface) {
  switch (surface) {
    case kScripts:
      return "sdxl";
    case kRun:
      return "run";
    case kVideo:
      return "video";
    case kServe:
      return "serve";
    case kT2i:
    case kBoth:
    case kXditFlags:
    case kEvery:
      break;
  }
  return "t2i";
}

namespace {

// As the surface's documents spell it: the SDXL scripts have dashes.
std::string spelled(Surface surface, std::string name) {
  if (surface == kScripts) std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

std::string with_words(std::string flag, const std::vector<std::string>& words) {
  for (const auto& word : words) flag += " " + shell_word(word);
  return flag;
}

std::vector<std::string> words_of_json(const Json& value) {
  if (!value.is_array()) return {value.is_string() ? value.get<std::string>() : value.dump()};
  std::vector<std::string> out;
  for (const auto& v : value) {
    for (auto& word : words_of_json(v)) out.push_back(std::move(word));
  }
  return out;
}

// Whether the flag is this field's own: settings that stand for those of other tools say whose flag set them.
bool is_own(const Field& field, std::string spelling) {
  spelling.erase(0, spelling.find_first_not_of('-'));
  std::replace(spelling.begin(), spelling.end(), '-', '_');
  if (spelling.starts_with("no_")) spelling.erase(0, 3);
  const auto aliases = words_of(field.aliases);
  return spelling == field.name || std::find(aliases.begin(), aliases.end(), spelling) != aliases.end();
}

// Whether what set a setting is a key of files that no flag has.
bool by_hidden_key(const Resolved& resolved, const Origin& origin) {
  bool is_hidden = false;
  Settings settings = resolved.settings;
  settings.fields([&](const std::string&, const Field& field, const FieldRef&) {
    if (field.surfaces == 0 && origin.text.starts_with(str(field.name, " in "))) is_hidden = true;
  });
  return is_hidden;
}

// A setting as a flag that gives it: as it was typed, or for one of a file under its own name. Empty: nobody
// set it, or the environment did, where it still is.
std::string as_flag(const Resolved& resolved, const Field& field, const FieldRef& slot) {
  const std::string name(field.name);
  if (!resolved.is_set(name)) return {};
  const Origin origin = resolved.origin(name);
  const bool is_mine = is_own(field, origin.text.substr(0, origin.text.find(' ')));  // "KEY in FILE"
  const bool is_typed = origin.level == Precedence::kFlag && is_mine;
  if (!is_typed && origin.level != Precedence::kFile) return {};
  if (field.surfaces == 0 || (!is_mine && !by_hidden_key(resolved, origin))) return {};
  std::string flag = is_typed ? origin.text : spelled(resolved.surface, name);
  const Json value = json_of(slot);
  if (!is_switch(slot)) return with_words(flag, words_of_json(value));
  if (value == true) return flag;
  return flag.starts_with("--no_") ? flag : spelled(resolved.surface, "no_" + name);
}

}  // namespace

const std::set<std::string>& layout_flags() {
  static const std::set<std::string> names{"num_gpus",
                                           "strategy",
                                           "data_parallel_degree",
                                           "ulysses_degree",
                                           "kv_gather_degree",
                                           "ring_degree",
                                           "pipefusion_degree",
                                           "pipeline_parallel_size",
                                           "use_cfg_parallel",
                                           "tensor_parallel_degree",
                                           "fully_shard_degree",
                                           "shard_dit",
                                           "use_parallel_vae",
                                           "num_pipeline_patch",
                                           "warmup_steps",
                                           "pipefusion_sync",
                                           "overlap_p2p_comm",
                                           "attn_layer_num_for_pp"};
  return names;
}

std::string flags_text(Surface surface, const std::vector<FlagChange>& changes) {
  std::string out;
  for (const auto& c : changes)
    out += (out.empty() ? "" : " ") + with_words(spelled(surface, c.name), c.words);
  return out;
}

std::string command_text(const Resolved& resolved, const std::vector<FlagChange>& changes,
                         const std::set<std::string>& without) {
  std::string out = std::string("atelier ") + command_of(resolved.surface);
  Settings settings = resolved.settings;
  settings.fields([&](const std::string&, const Field& field, const FieldRef& slot) {
    const std::string name(field.name);
    const bool is_changed =
        std::any_of(changes.begin(), changes.end(), [&](const FlagChange& c) { return c.name == name; });
    if (is_changed || without.contains(name)) return;
    const auto flag = as_flag(resolved, field, slot);
    if (!flag.empty()) out += " " + flag;
  });
  const auto tail = flags_text(resolved.surface, changes);
  return tail.empty() ? out : out + " " + tail;
}

}  // namespace atelier::app
