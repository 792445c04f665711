#include "pipeline/single_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "weights/prefix.h"

namespace atelier::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMostPlaces = 8;  // that are looked at closely

std::vector<weights::Place> places_of(const models::Family& family, const Component& c,
                                      const std::vector<std::string>& names,
                                      const std::vector<weights::ManifestEntry>& tensors) {
  std::vector<std::string> asked;
  for (const auto& tensor : tensors) asked.push_back(tensor.name);
  return weights::find_places(names, names_of(family, c), asked);
}

// Behind which prefix a denoiser lies. Its sizes and the number of its blocks may differ from the config's,
// so that only names count, and a quarter of those that stand there must be its own.
std::optional<weights::Place> find_denoiser(const models::Family& family, const Component& c,
                                            const std::vector<std::string>& names) {
  const auto places = places_of(family, c, names, tensors_of(family, c));
  if (places.empty()) return std::nullopt;
  const auto& best = places.front();
  const auto below =
      std::count_if(names.begin(), names.end(), [&](auto& name) { return name.starts_with(best.prefix); });
  if (4 * best.found < std::min<int64_t>(below, 64)) return std::nullopt;
  return best;
}

// Behind which prefix a part lies whose sizes are known: where the most tensors have the right shape. None:
// less than half of them are there, or the place is taken.
std::optional<weights::Section> find_part(const models::Family& family, const Component& c,
                                          const fs::path& file, const std::vector<std::string>& names,
                                          const std::vector<std::string>& taken) {
  const auto tensors = tensors_of(family, c);
  auto places = places_of(family, c, names, tensors);
  std::erase_if(places, [&](const auto& place) {
    return std::find(taken.begin(), taken.end(), place.prefix) != taken.end();
  });
  places.resize(std::min(places.size(), kMostPlaces));
  std::optional<weights::Section> best;
  int64_t most = 0;
  for (const auto& place : places) {
    if (2 * place.found < std::ssize(tensors)) continue;
    const auto store = weights::WeightStore::open(file, {place.prefix, {}});
    store->adopt(names_of(family, c));
    const auto fit = std::count_if(tensors.begin(), tensors.end(), [&](const auto& tensor) {
      const auto shape = store->shape(tensor.name);
      return !shape.empty() && c10::multiply_integers(shape) == c10::multiply_integers(tensor.shape);
    });
    if (fit > most) most = fit, best = weights::Section{place.prefix, {}};
  }
  return 2 * most < std::ssize(tensors) ? std::nullopt : best;
}

// What may not be read as part of `section`: the other parts, with what stands beside them.
void keep_apart(weights::Section& section, const std::vector<std::string>& prefixes) {
  for (const auto& prefix : prefixes) {
    if (prefix.size() <= section.prefix.size() || !prefix.starts_with(section.prefix)) continue;
    const size_t dot = prefix.find('.', section.prefix.size());
    section.others.push_back(dot == std::string::npos ? prefix : prefix.substr(0, dot + 1));
  }
}

// The parts of the base model that the file could stand for: "a vae".
std::string parts_in(const models::Family& family, const fs::path& file,
                     const std::vector<std::string>& names, std::span<const Component> parts) {
  std::string found;
  for (const auto& c : parts) {
    if (find_part(family, c, file, names, {})) found += str(found.empty() ? "a " : " and a ", c.name);
  }
  return found;
}

// The file's config in the words of the family, whose errors get the file's name.
Json config_of(const models::Family& family, const fs::path& file, const weights::Section& section,
               const Json& like) {
  try {
    return family.config_of_file(*weights::WeightStore::open(file, section), like);
  } catch (const Error& e) {
    throw Error(e.kind(), std::string_view(e.what()).starts_with(file.string())
                              ? e.what()
                              : str(file.string(), ": ", e.what()));
  }
}

// "247 tensors: "a.weight", "b.weight" and 245 more".
std::string names_text(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const auto& name : names) quoted.push_back(in_quotes(name));
  return str(names.size(), names.size() == 1 ? " tensor: " : " tensors: ", list_text(quoted, 3));
}

[[noreturn]] void fail_without_denoiser(const models::Family& family, const fs::path& file,
                                        const std::vector<std::string>& names, const std::string& parts,
                                        const Json& like) {
  const std::string other = parts.empty() ? contents_of(file) : "";
  const std::string unknown = str("; no family of this build knows the names of its ", names_text(names));
  if (parts.empty() && other.empty() && family.config_of_file) {
    try {
      config_of(family, file, {}, like);  // says what it is
    } catch (const Error& e) {
      throw Error(e.kind(), e.what() + unknown);
    }
  }
  std::string what = unknown;
  if (!parts.empty())
    what = str(", but ", parts, ": put it into the folder of that name of a diffusers folder");
  if (!other.empty()) what = str(", but ", other, "; name a base model of that family");
  throw Error(Kind::kCheckpoint, str(file.string(), ": holds no denoiser of the family ", family.name,
                                     ", which the base model is of", what));
}

}  // namespace

namespace {

// Throws Error(kUsage) unless there is a file for each denoiser.
void check_count(std::span<const fs::path> files, const std::vector<Component>& components) {
  const auto denoisers = std::count_if(components.begin(), components.end(), [](const Component& c) {
    return c.kind == Component::ComponentKind::kDenoiser;
  });
  if (std::ssize(files) == denoisers) return;
  if (files.size() == 1)
    throw Error(Kind::kUsage, str(files.front().string(), ": the base model has ", denoisers,
                                  " denoisers, so one file is not enough; name the file of ",
                                  components[1].name, " too, or a diffusers folder"));
  throw Error(Kind::kUsage,
              str(files.back().string(), ": the base model has one denoiser, which is read from ",
                  files.front().string(), "; a second file is for models of two experts"));
}

// Experts are two trainings of one network. Throws Error(kUsage) with what tells the second file from the
// first.
void check_kinds(std::span<const fs::path> files, const Json& first, const Json& second) {
  std::string unlike;
  for (const auto& [key, value] : first.items()) {
    const Json other = second.value(key, Json());
    if (value == other || key.starts_with('_')) continue;
    unlike += str(unlike.empty() ? "" : ", ", key, " ", value.dump(), " and ", other.dump());
  }
  if (unlike.empty()) return;
  throw Error(Kind::kUsage, str(files.front().string(), " and ", files.back().string(),
                                " are not the two experts of one model: ", unlike));
}

void take_denoiser(const models::Family& family, const fs::path& file, const std::vector<std::string>& names,
                   std::span<const Component> parts, Component& denoiser) {
  const auto place = find_denoiser(family, denoiser, names);
  if (!place)
    fail_without_denoiser(family, file, names, parts_in(family, file, names, parts), *denoiser.config);
  denoiser.file = file;
  denoiser.section = {place->prefix, {}};
}

// The components that a file holds beside its denoiser.
void take_parts(const models::Family& family, const std::vector<std::string>& names,
                std::span<Component> parts, Component& denoiser) {
  std::vector<std::string> prefixes{denoiser.section.prefix};
  for (auto& c : parts) {
    if (!c.file.empty()) continue;  // of the first file that holds it
    auto found = find_part(family, c, denoiser.file, names, prefixes);
    if (!found) continue;
    prefixes.push_back(found->prefix);
    c.file = denoiser.file;
    c.section = std::move(*found);
  }
  keep_apart(denoiser.section, prefixes);
}

}  // namespace

void take_from_files(const models::Family& family, std::span<const fs::path> files,
                     std::vector<Component>& components) {
  check_count(files, components);
  const auto parts = std::span(components).subspan(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    auto& denoiser = components[i];
    const auto names = weights::WeightStore::open(files[i])->names();
    take_denoiser(family, files[i], names, parts, denoiser);
    take_parts(family, names, parts, denoiser);
    if (!family.config_of_file) continue;
    denoiser.config =
        std::make_shared<const Json>(config_of(family, files[i], denoiser.section, *denoiser.config));
    if (i > 0) check_kinds(files, *components.front().config, *denoiser.config);
  }
}

namespace {

bool has_weights(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".safetensors" || entry.path().extension() == ".gguf") return true;
  }
  return false;
}

// Where a part lies in a file; the config of a denoiser may differ from what its folder says.
std::optional<weights::Section> place_of(const models::Family& family, const Component& c,
                                         const fs::path& file, const std::vector<std::string>& names) {
  if (c.kind != Component::ComponentKind::kDenoiser) return find_part(family, c, file, names, {});
  const auto place = find_denoiser(family, c, names);
  return place ? std::optional(weights::Section{place->prefix, {}}) : std::nullopt;
}

}  // namespace

void take_missing(const models::Family& family, const fs::path& root, std::span<const fs::path> files,
                  std::vector<Component>& components) {
  std::vector<fs::path> denoisers;
  for (auto& c : components) {
    if (has_weights(root / c.name)) continue;
    const bool is_denoiser = c.kind == Component::ComponentKind::kDenoiser;
    for (const auto& file : files) {
      if (is_denoiser && std::find(denoisers.begin(), denoisers.end(), file) != denoisers.end()) continue;
      const auto names = weights::WeightStore::open(file)->names();
      auto place = place_of(family, c, file, names);
      if (!place) continue;
      c.file = file;
      c.section = std::move(*place);
      if (is_denoiser) denoisers.push_back(file);
      if (is_denoiser && family.config_of_file)
        c.config = std::make_shared<const Json>(config_of(family, file, c.section, *c.config));
      break;
    }
  }
}

namespace {

// What all names begin with; names of marks, which have no dot, aside.
std::string common_prefix(const std::vector<std::string>& names) {
  std::optional<std::string> common;
  for (const auto& name : names) {
    if (name.find('.') == std::string::npos) continue;
    if (!common) common = name;
    const auto end = std::mismatch(common->begin(), common->end(), name.begin(), name.end()).first;
    common->erase(end, common->end());
  }
  return common.value_or("");
}

// Where the most of a component's tensors stand, if more do than under their own names.
std::string prefix_of(const models::Family& family, const Component& c,
                      const std::vector<std::string>& names) {
  const auto places = places_of(family, c, names, tensors_of(family, c));
  if (places.empty()) return {};
  const auto own =
      std::find_if(places.begin(), places.end(), [](auto& place) { return place.prefix.empty(); });
  return own != places.end() && own->found >= places.front().found ? "" : places.front().prefix;
}

}  // namespace

void take_prefixed(const models::Family& family, const fs::path& root, std::vector<Component>& components) {
  for (auto& c : components) {
    if (!c.file.empty() || !has_weights(root / c.name)) continue;
    try {
      const auto names = weights::WeightStore::open(root / c.name)->names();
      if (!common_prefix(names).empty()) c.section.prefix = prefix_of(family, c, names);
    } catch (const Error&) {
      continue;
    }
  }
}

const models::Family* family_of(const fs::path& file) {
  const auto names = weights::WeightStore::open(file)->names();
  const models::Family* best = nullptr;
  int64_t most = 0;
  const auto try_with = [&](const models::Family& family, Json config) {
    const Component denoiser{Component::ComponentKind::kDenoiser,
                             std::string(family.experts.front()),
                             std::make_shared<const Json>(std::move(config)),
                             {},
                             {}};
    try {
      const auto place = find_denoiser(family, denoiser, names);
      if (place && place->found > most) most = place->found, best = &family;
    } catch (const Error&) {
      return;  // cannot be built without a config
    }
  };
  // Generations of a family may have tensors that others lack, and another family too.
  for (const auto* family : models::families()) {
    for (const auto& preset : family->presets)
      try_with(*family, preset.make().at(std::string(family->experts.front())));
    if (family->presets.empty()) try_with(*family, Json::object());
  }
  return best;
}

std::string contents_of(const fs::path& file) {
  const auto* const family = family_of(file);
  return family ? str("a denoiser of the family ", family->name) : "";
}

}  // namespace atelier::pipeline
