// Which files of a folder hold the weights.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/quote.h"
#include "weights/checkpoint_store.h"

namespace atelier::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 2> kStems{"diffusion_pytorch_model", "model"};
constexpr std::array<std::string_view, 5> kPickles{".bin", ".pt", ".pth", ".ckpt", ".pkl"};

[[noreturn]] void unusable(const fs::path& path, const std::string& what) {
  throw Error(Kind::kCheckpoint, str(path.string(), ": ", what));
}

bool is_pickle(const fs::path& path) {
  return std::find(kPickles.begin(), kPickles.end(), path.extension().string()) != kPickles.end();
}

[[noreturn]] void fail_pickle(const fs::path& path) {
  unusable(
      path,
      "it is a pickle, which could run code and is never read; get or convert the weights as safetensors");
}

std::unique_ptr<TensorFile> open_file(const fs::path& path) {
  return std::make_unique<TensorFile>(TensorFile::open(path));
}

// weight_map of an index: tensor -> file name.
std::map<std::string, std::string> read_index(const fs::path& index) {
  const Json json = read_json(index);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) unusable(index, "has no weight_map");
  std::map<std::string, std::string> out;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string()) unusable(index, str("weight_map gives no file name for ", in_quotes(name)));
    const auto shard = file.get<std::string>();
    const fs::path plain(shard);
    if (shard.empty() || shard == ".." || plain.filename() != plain ||
        shard.find('\0') != std::string::npos) {
      unusable(index, str("the shard name ", in_quotes(shard), " leaves the folder"));
    }
    if (is_pickle(plain)) fail_pickle(index.parent_path() / plain);
    out.emplace(name, shard);
  }
  if (out.empty()) unusable(index, "weight_map is empty");
  return out;
}

Shards open_index(const fs::path& index) {
  const auto map = read_index(index);
  std::set<std::string> shard_names;
  for (const auto& [_, shard] : map) shard_names.insert(shard);
  std::vector<std::string> absent;
  for (const auto& shard : shard_names) {
    if (!fs::exists(index.parent_path() / shard)) absent.push_back(shard);
  }
  if (!absent.empty()) {
    unusable(index, str(absent.size(), " of ", shard_names.size(),
                        " shards are missing: ", list_text(absent, 5), "; download them again"));
  }
  Shards out{index.parent_path(), {}};
  std::map<std::string, const TensorFile*> by_name;
  for (const auto& shard : shard_names) {
    by_name[shard] = out.files.emplace_back(open_file(index.parent_path() / shard)).get();
  }
  std::vector<std::string> lies;
  for (const auto& [name, shard] : map) {
    if (!by_name[shard]->entries().contains(unwrapped(name)))
      lies.push_back(in_quotes(name) + " in " + shard);
  }
  if (!lies.empty()) {
    unusable(index, str("names ", lies.size(), " tensors that its shards do not hold: ", list_text(lies, 5),
                        "; index and shards are of different versions, download them again"));
  }
  return out;
}

bool is_index(const fs::path& path) {
  const auto name = path.filename().string();
  return name.ends_with(".json") && name.find(".safetensors.index.") != std::string::npos;
}

// The preferred stem's file first, then plain names, then variants such as .fp16.
fs::path preferred(const std::vector<fs::path>& files, std::string_view ending) {
  for (const auto stem : kStems) {
    for (const auto& f : files) {
      if (f.filename() == str(stem, ending)) return f;
    }
  }
  return {};
}

// Everything in a folder that may be weights, by name.
struct Listing {
  std::vector<fs::path> indices, files, ggufs, pickles;
};

Listing list(const fs::path& folder) {
  Listing all;
  for (const auto& item : fs::directory_iterator(folder)) {
    const auto& path = item.path();
    if (is_index(path)) all.indices.push_back(path);
    if (path.extension() == ".safetensors") all.files.push_back(path);
    if (path.extension() == ".gguf") all.ggufs.push_back(path);
    if (is_pickle(path)) all.pickles.push_back(path);
  }
  for (auto* some : {&all.indices, &all.files, &all.ggufs, &all.pickles})
    std::sort(some->begin(), some->end());
  return all;
}

std::string names_of(std::span<const fs::path> files) {
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.filename().string());
  return list_text(names, 5);
}

// An index, or files.
struct Choice {
  fs::path index;
  std::vector<fs::path> files;
};

Choice choose(const fs::path& folder, const Listing& all) {
  if (auto index = preferred(all.indices, ".safetensors.index.json"); !index.empty())
    return {std::move(index), {}};
  if (auto file = preferred(all.files, ".safetensors"); !file.empty()) return {{}, {std::move(file)}};
  if (all.indices.size() == 1) return {all.indices[0], {}};
  if (!all.files.empty()) return {{}, all.files};
  if (all.ggufs.size() > 1) {
    unusable(folder, str("holds ", all.ggufs.size(),
                         " GGUF files, of which one is the component's: ", names_of(all.ggufs),
                         "; remove the others, or name a denoiser's file with --model_name and the whole "
                         "model's folder with --base_model"));
  }
  if (all.ggufs.empty() && !all.pickles.empty()) fail_pickle(all.pickles[0]);
  if (all.ggufs.empty())
    unusable(folder,
             "holds no *.safetensors and no *.gguf; is it the folder of one component, fully downloaded?");
  return {{}, all.ggufs};
}

Shards open_folder(const fs::path& folder) {
  const auto chosen = choose(folder, list(folder));
  if (!chosen.index.empty()) return open_index(chosen.index);
  Shards out{folder, {}};
  for (const auto& file : chosen.files) out.files.push_back(open_file(file));
  return out;
}

}  // namespace

Shards open_shards(const fs::path& path) {
  try {
    if (fs::is_directory(path)) return open_folder(path);
    if (!fs::exists(path)) unusable(path, "there is no such file or folder");
    if (is_pickle(path)) fail_pickle(path);
    if (path.extension() == ".json") return open_index(path);
    Shards out{path, {}};
    out.files.push_back(open_file(path));
    return out;
  } catch (const fs::filesystem_error& e) {
    unusable(path, e.code().message());
  }
}

FolderFiles files_of(const fs::path& folder) {
  try {
    const auto all = list(folder);
    const auto chosen = choose(folder, all);
    std::set<std::string> read;
    for (const auto& file : chosen.files) read.insert(file.filename().string());
    if (!chosen.index.empty()) {
      read.insert(chosen.index.filename().string());
      for (const auto& [_, shard] : read_index(chosen.index)) read.insert(shard);
    }
    FolderFiles out{{read.begin(), read.end()}, {}};
    if (!chosen.index.empty()) out.read = {chosen.index.filename().string()};
    for (const auto* some : {&all.indices, &all.files, &all.ggufs, &all.pickles}) {
      for (const auto& path : *some) {
        if (!read.contains(path.filename().string())) out.beside.push_back(path.filename().string());
      }
    }
    return out;
  } catch (const fs::filesystem_error& e) {
    unusable(folder, e.code().message());
  }
}

bool Section::holds(std::string_view name) const {
  const auto is_below = [&](const std::string& other) { return name.starts_with(other); };
  return name.starts_with(prefix) && std::none_of(others.begin(), others.end(), is_below);
}

std::unique_ptr<WeightStore> WeightStore::open(const fs::path& path, const Section& section) {
  return std::make_unique<CheckpointStore>(open_shards(path), section);
}

std::string WeightStore::title() const {
  return {};
}

}  // namespace atelier::weights
