// Which files of a repository a model needs.
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "hub/download.h"

namespace atelier::hub {
namespace {

bool has_extension(std::string_view file, std::string_view extension) {
  return file.ends_with(extension);
}

// "" for plain weights, "fp16" and the like for a variant; other files: nothing.
std::optional<std::string> variant_of(std::string_view name) {
  const bool is_index =
      name.find(".safetensors.index.") != std::string_view::npos && has_extension(name, ".json");
  if (!is_index && !has_extension(name, ".safetensors")) return std::nullopt;
  const auto end = name.find(".safetensors");
  const auto dot = name.find('.');
  if (dot < end) {
    auto inner = name.substr(dot + 1, end - dot - 1);
    return std::string(inner.substr(0, inner.find("-0")));
  }
  if (!is_index) return "";
  auto rest = name.substr(end + std::string_view(".safetensors.index.").size());
  rest.remove_suffix(std::string_view("json").size());
  return std::string(rest.substr(0, rest.find('.')));
}

// The weight files of one folder: plain ones, else the first variant; with an index not the whole file beside
// it.
std::set<std::string> chosen_weights(const std::vector<std::string>& names) {
  std::map<std::string, std::set<std::string>> by_variant;
  for (const auto& name : names) {
    if (const auto variant = variant_of(name)) by_variant[*variant].insert(name);
  }
  if (by_variant.empty()) return {};
  auto chosen = by_variant.begin()->second;
  for (const std::string stem : {"diffusion_pytorch_model", "model"}) {
    if (chosen.contains(stem + ".safetensors.index.json")) chosen.erase(stem + ".safetensors");
  }
  return chosen;
}

bool is_small_file_of_use(std::string_view name) {
  const bool is_foreign = name.starts_with("flax") || name.starts_with("tf_") ||
                          name.starts_with("openvino") || name.find(".bin.index") != std::string_view::npos;
  const bool is_known =
      has_extension(name, ".json") || has_extension(name, ".txt") || has_extension(name, ".model");
  return is_known && !is_foreign && !variant_of(name);
}

}  // namespace

std::vector<std::string> needed_files(const std::vector<std::string>& files,
                                      const std::vector<std::string>& components) {
  std::vector<std::string> needed;
  for (const auto& component : components) {
    std::vector<std::string> names;
    for (const auto& file : files) {
      const bool is_inside =
          file.starts_with(component + "/") && file.find('/', component.size() + 1) == std::string::npos;
      if (is_inside) names.push_back(file.substr(component.size() + 1));
    }
    const auto weights = chosen_weights(names);
    for (const auto& name : names) {
      if (weights.contains(name) || is_small_file_of_use(name)) needed.push_back(str(component, "/", name));
    }
  }
  return needed;
}

}  // namespace atelier::hub
