#include "hub/sources.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/quote.h"
#include "base/text.h"
#include "hub/hub_names.h"

namespace atelier::hub {
namespace fs = std::filesystem;
namespace {

// Spellings that mean the same.
std::string plain(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_id(std::string_view name) {
  const auto ok = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  const auto part = [&](std::string_view p) {
    return !p.empty() && p != "." && p != ".." && std::all_of(p.begin(), p.end(), ok);
  };
  const auto slash = name.find('/');
  return slash != std::string_view::npos && part(name.substr(0, slash)) && part(name.substr(slash + 1));
}

bool is_model_folder(const fs::path& path) {
  return fs::exists(path / "model_index.json");
}

std::optional<ModelSource> find_local(std::string_view name, bool is_known_name) {
  std::error_code ignored;
  const fs::path path(name);
  const auto status = fs::status(path, ignored);
  // A folder that happens to be called like a known model, but holds none, does not hide the model.
  if (fs::is_directory(status) && (!is_known_name || is_model_folder(path))) {
    return ModelSource{path, std::string(name), "", Provenance::kLocalFolder};
  }
  if (fs::is_regular_file(status)) return ModelSource{path, std::string(name), "", Provenance::kLocalFile};
  return std::nullopt;
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

// The snapshot folder of a revision; empty if there is none.
fs::path find_snapshot(const fs::path& repository, const std::string& revision) {
  const fs::path snapshots = repository / "snapshots",
                 ref = repository / "refs" / (revision.empty() ? "main" : revision);
  if (fs::is_regular_file(ref)) {
    const std::string commit = trimmed(read_file(ref));
    const bool is_plain =
        !commit.empty() && commit.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (is_plain && fs::is_directory(snapshots / commit)) return snapshots / commit;
  }
  if (!revision.empty()) return fs::is_directory(snapshots / revision) ? snapshots / revision : fs::path();
  // A cache that was copied may lack refs; a single snapshot is what was meant.
  std::vector<fs::path> all;
  if (fs::is_directory(snapshots)) {
    for (const auto& item : fs::directory_iterator(snapshots)) all.push_back(item.path());
  }
  return all.size() == 1 ? all[0] : fs::path();
}

std::string folder_name(std::string_view id) {
  std::string out = "models--" + std::string(id);
  out.replace(out.find('/'), 1, "--");
  return out;
}

std::string how_to_get(std::string_view id, const std::string& revision) {
  const std::string flag = revision.empty() ? "" : " --revision " + revision;
  return str("; get it with: hf download ", id, flag,
             " (gated models: accept the licence on the model's page and set ", "HF_TOKEN first)");
}

ModelSource find_cached(std::string_view name, const std::string& id, const SourceOptions& options) {
  const fs::path repository = options.cache / folder_name(id);
  const fs::path snapshot = find_snapshot(repository, options.revision);
  if (snapshot.empty()) {
    const std::string which = options.revision.empty() ? "" : " at revision " + in_quotes(options.revision);
    std::error_code ignored;
    const char* local = fs::is_directory(fs::path(name), ignored)
                            ? "the folder of that name holds no model_index.json"
                            : "no folder of that name";
    throw NotHere(str("model ", id, which, " is not on this machine (", local, ", and not in ",
                      options.cache.string(), ")", how_to_get(id, options.revision)));
  }
  if (!is_model_folder(snapshot)) {
    throw NotHere(str("model ", id, " in ", snapshot.string(),
                      " has no model_index.json: it is incomplete or no diffusers folder",
                      how_to_get(id, options.revision)));
  }
  const auto missing = missing_components(snapshot);
  if (!missing.empty()) {
    throw NotHere(str("model ", id, " in ", snapshot.string(), " is incomplete: ", list_text(missing, 6),
                      " missing", how_to_get(id, options.revision)));
  }
  return {snapshot, id, snapshot.filename().string(), Provenance::kCache};
}

[[noreturn]] void fail_unknown(std::string_view name) {
  const bool is_path = name.starts_with('/') || name.starts_with('.') || name.starts_with('~') ||
                       name.find('/') != std::string_view::npos || name.ends_with(".safetensors") ||
                       name.ends_with(".gguf");
  if (is_path) throw Error(Kind::kUsage, str("model ", in_quotes(name), ": there is no such file or folder"));
  const auto models = built_in_models();
  std::vector<std::string> known(models.begin(), models.end());
  for (const auto& a : aliases()) known.emplace_back(a.name);
  const auto near = nearest(plain(name), known, 3);
  throw Error(Kind::kUsage, str("model ", in_quotes(name),
                                " is unknown: give a folder, a .safetensors or .gguf file, an id such as ",
                                "org/name, or mini", near.empty() ? "" : "; nearest: " + list_text(near, 3)));
}

// Files of weights, also those that are refused later with a word about them.
bool is_weights(const fs::path& file) {
  const std::string end = file.extension().string();
  return end == ".safetensors" || end == ".gguf" || end == ".bin" || end == ".pt" || end == ".pth" ||
         end == ".ckpt";
}

// Every file that an index of shards names is there.
bool has_shards(const fs::path& index) {
  const Json json = read_json(index);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) return true;  // refused when it is opened
  std::error_code ignored;
  return std::all_of(map->begin(), map->end(), [&](const Json& file) {
    return !file.is_string() || fs::is_regular_file(index.parent_path() / file.get<std::string>(), ignored);
  });
}

// What an interrupted download leaves is not: links to nowhere, a config without weights, some of the shards.
bool is_complete(const fs::path& component, const std::string& class_name) {
  bool has_file = false, has_weights = false;
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator(component, ignored)) {
    if (!item.is_regular_file(ignored)) continue;
    has_file = true;
    has_weights = has_weights || is_weights(item.path());
    if (item.path().string().ends_with(".safetensors.index.json") && !has_shards(item.path())) return false;
  }
  const bool has_no_weights = class_name.find("Tokenizer") != std::string::npos ||
                              class_name.find("Scheduler") != std::string::npos ||
                              class_name.find("Processor") != std::string::npos ||
                              class_name.find("Extractor") != std::string::npos;
  return has_file && (has_weights || has_no_weights);
}

}  // namespace

std::string_view to_string(Provenance how) {
  constexpr std::string_view kNames[] = {"local folder", "local file", "built-in", "Hugging Face cache",
                                         "download"};
  return kNames[static_cast<size_t>(how)];
}

fs::path hub_cache(const HubEnvironment& environment) {
  if (!environment.hf_hub_cache.empty()) return environment.hf_hub_cache;
  if (!environment.hf_home.empty()) return fs::path(environment.hf_home) / "hub";
  const fs::path base = environment.xdg_cache_home.empty() ? fs::path(environment.home) / ".cache"
                                                           : fs::path(environment.xdg_cache_home);
  return base / "huggingface" / "hub";
}

std::span<const std::string_view> built_in_models() {
  static constexpr std::string_view kNames[] = {"mini", "mini-video"};
  return kNames;
}

std::string hub_id(std::string_view name) {
  const std::string wanted = plain(name);
  for (const auto& a : aliases()) {
    if (plain(a.name) == wanted || plain(a.id) == wanted) return std::string(a.id);
  }
  return is_id(name) ? std::string(name) : std::string();
}

ModelSource resolve(std::string_view name, const SourceOptions& options) {
  if (options.revision.find("..") != std::string::npos || options.revision.starts_with('/')) {
    throw Error(Kind::kUsage, str("revision ", in_quotes(options.revision), " is no branch, tag or commit"));
  }
  if (name.empty()) throw Error(Kind::kUsage, "no model is named: give a model_name");
  const std::string id = hub_id(name);
  const auto models = built_in_models();
  const bool is_built_in = std::find(models.begin(), models.end(), name) != models.end();
  if (auto local = find_local(name, is_built_in || !id.empty())) return *local;
  if (is_built_in) {
    const fs::path folder = options.built_in / name;
    if (is_model_folder(folder)) return {folder, std::string(name), "", Provenance::kBuiltIn};
    throw Error(Kind::kUsage, str("the built-in model ", name, " is not at ", folder.string(),
                                  ": the installation is incomplete"));
  }
  if (id.empty()) fail_unknown(name);
  return find_cached(name, id, options);
}

std::vector<std::string> missing_components(const fs::path& folder) {
  const Json index = read_json(folder / "model_index.json");
  if (!index.is_object()) {
    throw Error(Kind::kCheckpoint, str((folder / "model_index.json").string(), ": not an object"));
  }
  std::vector<std::string> missing;
  for (const auto& [name, value] : index.items()) {
    const bool is_component =
        value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
    if (!is_component || name == "safety_checker") continue;
    if (!is_complete(folder / name, value[1].get<std::string>())) missing.push_back(name);
  }
  return missing;
}

}  // namespace atelier::hub
