#include "app/run/identity.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "base/text.h"
#include "request/settings.h"

namespace atelier::app {
namespace {
namespace fs = std::filesystem;

// What parts of a model are read from; whatever else lies beside them is nobody's business.
bool is_read(const fs::path& file) {
  const std::string end = lower(file.extension().string());
  return end == ".json" || end == ".safetensors" || end == ".gguf" || end == ".txt" || end == ".model";
}

// The file that a denoiser's own one is read in place of.
bool is_replaced(const fs::path& file) {
  return lower(file.extension().string()) != ".json" ||
         file.filename().string().find(".index.") != std::string::npos;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (is_read(entry.path()) && fs::is_regular_file(entry.path(), ignored)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string hash_of(const std::vector<fs::path>& files, Depth depth) {
  std::string all;
  bool is_fast = false;
  std::error_code ignored;
  for (const auto& file : files) {
    all += str(file.filename().string(), "\n", fingerprint(file, depth), "\n");
    is_fast =
        is_fast || (depth == Depth::kFast && static_cast<int64_t>(fs::file_size(file, ignored)) > kSmallFile);
  }
  return (is_fast ? "fast:" : "") + sha256(all).substr(0, 16);
}

// Sub-folders that the index names.
std::vector<std::string> parts_of(const fs::path& folder) {
  std::vector<std::string> parts;
  const Json index = read_json(folder / "model_index.json");
  for (const auto& [name, value] : index.items()) {
    if (value.is_array() && fs::is_directory(folder / name)) parts.push_back(name);
  }
  return parts;
}

}  // namespace

Json hashes_of(const pipeline::ModelSpec& spec, std::span<const std::string_view> denoisers, Depth depth) {
  Json out = Json::object();
  const auto add = [&](const std::string& part, const std::vector<fs::path>& files) {
    if (!files.empty()) out[part + std::string(request::kHashSuffix)] = hash_of(files, depth);
  };
  if (!spec.single_file.empty()) add("checkpoint", {spec.single_file});
  if (!spec.second_file.empty()) add("checkpoint_2", {spec.second_file});
  const fs::path index = spec.folder / "model_index.json";
  if (spec.folder.empty() || !fs::exists(index)) return out;
  add("model_index", {index});
  for (const auto& part : parts_of(spec.folder)) {
    auto files = files_in(spec.folder / part);
    const bool is_denoiser = std::find(denoisers.begin(), denoisers.end(), part) != denoisers.end();
    if (!spec.single_file.empty() && is_denoiser) std::erase_if(files, is_replaced);
    add(part, files);
  }
  return out;
}

}  // namespace atelier::app
