#include "pipeline/model_repo.h"

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "models/presets.h"
#include "nn/builder.h"
#include "nn/sdpa.h"
#include "sampling/sampler.h"
#include "text/tokenizer.h"
#include "weights/save.h"

namespace atelier::pipeline {
namespace fs = std::filesystem;
namespace {

std::shared_ptr<const Json> share(Json value) {
  return std::make_shared<const Json>(std::move(value));
}

std::string known_families() {
  std::string known;
  for (const auto* f : models::families()) known += (known.empty() ? "" : ", ") + std::string(f->pipeline);
  return known;
}

Json component_config(const fs::path& root, std::string_view component, const char* file) {
  const fs::path path = root / component / file;
  if (!fs::exists(path)) {
    throw Error(Kind::kCheckpoint, str(root.string(), " has no ", (fs::path(component) / file).string(),
                                       "; is it a complete diffusers folder?"));
  }
  return read_json(path);
}

// Objects that only shapes pass through.
struct Shapes {
  nn::LocalExchange exchange;
  nn::Sdpa attention;
  nn::PlainMemory memory;
  nn::Seams seams{.exchange = &exchange, .attention = &attention};
  nn::Builder builder(const weights::WeightStore& s) {
    return {s, seams, memory, at::TensorOptions(at::kBFloat16).device(at::kMeta)};
  }
};

// Of all tensors that were asked for.
int64_t elements_of(const weights::WeightStore& s) {
  int64_t sum = 0;
  for (const auto& asked : s.manifest()) {
    sum += std::accumulate(asked.shape.begin(), asked.shape.end(), int64_t{1}, std::multiplies<>());
  }
  return sum;
}

}  // namespace

ModelRepo ModelRepo::open(const fs::path& folder) {
  ModelRepo m;
  m.root_ = folder;
  m.label_ =
      folder.filename().empty() ? folder.parent_path().filename().string() : folder.filename().string();
  if (!fs::exists(folder / "model_index.json")) {
    throw Error(Kind::kUsage, str(folder.string(), " is no diffusers folder: it has no model_index.json"));
  }
  const Json index = read_json(folder / "model_index.json");
  const Json named = index.is_object() ? index.value("_class_name", Json("nothing")) : Json("nothing");
  const std::string pipeline = named.is_string() ? named.get<std::string>() : named.dump();
  m.family_ = models::find_family(pipeline);
  if (!m.family_) {
    throw Error(Kind::kUsage, str(folder.string(), ": model_index.json names ", pipeline, "; this build has ",
                                  known_families()));
  }
  Json all;
  all[std::string(m.family_->component)] = component_config(folder, m.family_->component, "config.json");
  all["scheduler"] = component_config(folder, "scheduler", "scheduler_config.json");
  all["vae"] = component_config(folder, "vae", "config.json");
  for (const auto& e : m.family_->encoders)
    all[std::string(e.folder)] = component_config(folder, e.folder, "config.json");
  m.read_configs(all);
  m.settle_defaults(index);
  m.has_no_vocabulary_ = index.contains("_atelier_dummy_seed");
  return m;
}

ModelRepo ModelRepo::open_single_file(const fs::path& file, const fs::path& rest) {
  ModelRepo m = open(rest);
  m.single_file_ = file;
  m.label_ = file.filename().string();
  if (m.family_->config_of_file)
    m.denoiser_ = share(m.family_->config_of_file(*weights::WeightStore::open(file), *m.denoiser_));
  m.settle_defaults(Json::object());
  return m;
}

ModelRepo ModelRepo::dummy(const std::string& preset, uint64_t seed) {
  ModelRepo m;
  const Json all = models::preset(preset);
  m.family_ = models::find_family(all.at("_class_name").get<std::string>());
  m.label_ = preset + " (dummy weights)";
  m.is_dummy_ = true;
  m.seed_ = seed;
  m.read_configs(all);
  m.settle_defaults(all);
  return m;
}

int64_t ModelRepo::encoder_vocabulary(size_t i) const {
  return encoder(i).value("vocab_size", int64_t{1});
}

std::vector<std::string> ModelRepo::presets() {
  return models::preset_names();
}

void ModelRepo::read_configs(const Json& all) {
  denoiser_ = share(all.at(std::string(family_->component)));
  scheduler_ = share(all.at("scheduler"));
  vae_ = share(all.at("vae"));
  encoders_.clear();
  for (const auto& e : family_->encoders) encoders_.push_back(share(all.at(std::string(e.folder))));
}

void ModelRepo::settle_defaults(const Json& index) {
  static_cast<models::SamplingDefaults&>(defaults_) = family_->defaults(*denoiser_);
  const auto own = index.find("_atelier");
  if (own == index.end() || !own->is_object()) return;
  try {
    defaults_.steps = own->value("num_inference_steps", defaults_.steps);
    defaults_.guidance = own->value("guidance_scale", defaults_.guidance);
    defaults_.true_cfg = own->value("true_cfg_scale", defaults_.true_cfg);
    defaults_.height = own->value("height", defaults_.height);
    defaults_.width = own->value("width", defaults_.width);
    defaults_.max_sequence_length = own->value("max_sequence_length", defaults_.max_sequence_length);
  } catch (const Json::exception& e) {
    throw Error(Kind::kCheckpoint, str("model_index.json, _atelier: ", e.what()));
  }
}

std::unique_ptr<weights::WeightStore> ModelRepo::store(const std::string& component) const {
  if (is_dummy_) return weights::WeightStore::dummy(seed_);
  return weights::WeightStore::open(root_ / component);
}

std::unique_ptr<weights::WeightStore> ModelRepo::denoiser_weights() const {
  auto s = single_file_.empty() ? store(std::string(family_->component))
                                : weights::WeightStore::open(single_file_);
  s->adopt(family_->names(*denoiser_));
  return s;
}

std::unique_ptr<weights::WeightStore> ModelRepo::vae_weights() const {
  auto s = store("vae");
  s->adopt(models::find_vae(*vae_).names());
  return s;
}

std::unique_ptr<weights::WeightStore> ModelRepo::encoder_weights(size_t i) const {
  auto s = store(std::string(family_->encoders[i].folder));
  s->adopt(models::find_encoder(*encoders_[i]).names());
  return s;
}

ParameterCounts ModelRepo::check() const {
  std::string problems;
  ParameterCounts elements;
  const auto collect = [&](std::string_view part, const weights::WeightStore& s,
                           std::span<const std::string_view> ignorable) {
    try {
      s.check(ignorable);
    } catch (const Error& e) {
      problems += str(problems.empty() ? "" : "\n", part, ": ", e.what());
    }
  };
  Shapes shapes;
  {
    const auto s = denoiser_weights();
    const Range all{0, family_->facts(*denoiser_).blocks};
    family_->build(*denoiser_, shapes.builder(*s), std::span(&all, 1));
    collect(family_->component, *s, {});
    elements.denoiser = elements_of(*s);
  }
  {
    const auto s = vae_weights();
    const auto& family = models::find_vae(*vae_);
    family.build(*vae_, shapes.builder(*s));
    collect("vae", *s, family.ignorable);
    elements.vae = elements_of(*s);
  }
  for (size_t i = 0; i < encoders_.size(); ++i) {
    const auto s = encoder_weights(i);
    const auto& family = models::find_encoder(*encoders_[i]);
    family.build(*encoders_[i], shapes.builder(*s));
    collect(family_->encoders[i].folder, *s, family.ignorable);
    elements.encoders += elements_of(*s);
    if (!is_dummy_ && !has_no_vocabulary_) text::open_tokenizer(root_ / family_->encoders[i].tokenizer);
  }
  if (!problems.empty()) throw Error(Kind::kCheckpoint, problems);
  // Any call will do: what the configuration asks for must be there.
  sampling::make_sampler(*scheduler_, {.steps = 1, .linear_sigmas = true, .mu = 1.0});
  return elements;
}

void ModelRepo::save(const fs::path& folder, at::ScalarType dtype) const {
  if (!is_dummy_) throw Error(Kind::kUsage, "only dummy weights can be saved as a dummy folder");
  Shapes shapes;
  const auto write = [&](const std::string& component, const char* file, const Json& config) {
    fs::create_directories(folder / component);
    write_json(folder / component / file, config);
  };
  Json index{{"_class_name", std::string(family_->pipeline)}, {"_atelier_dummy_seed", seed_}};
  const Range all{0, family_->facts(*denoiser_).blocks};
  const auto s = denoiser_weights();
  family_->build(*denoiser_, shapes.builder(*s), std::span(&all, 1));
  const std::string component(family_->component);
  write(component, "config.json", *denoiser_);
  weights::save_checkpoint(*s, family_->names(*denoiser_), {.folder = folder / component, .dtype = dtype});
  const auto v = vae_weights();
  models::find_vae(*vae_).build(*vae_, shapes.builder(*v));
  write("vae", "config.json", *vae_);
  weights::save_checkpoint(*v, models::find_vae(*vae_).names(), {.folder = folder / "vae", .dtype = dtype});
  for (size_t i = 0; i < encoders_.size(); ++i) {
    const std::string name(family_->encoders[i].folder);
    const auto e = encoder_weights(i);
    const auto& family = models::find_encoder(*encoders_[i]);
    family.build(*encoders_[i], shapes.builder(*e));
    write(name, "config.json", *encoders_[i]);
    weights::save_checkpoint(*e, family.names(), {.folder = folder / name, .stem = "model", .dtype = dtype});
  }
  write("scheduler", "scheduler_config.json", *scheduler_);
  write_json(folder / "model_index.json", index);
}

}  // namespace atelier::pipeline
