#include "pipeline/model_repo.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "models/config.h"
#include "models/presets.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "pipeline/part_widths.h"
#include "pipeline/single_file.h"
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

// Throws Error(kCheckpoint) for a pipe or a device, whose end may never come.
void check_plain(const fs::path& file) {
  if (!fs::is_regular_file(file))
    throw Error(Kind::kCheckpoint,
                str(file.string(), " is no plain file; is it a complete diffusers folder?"));
}

Json read_config(const fs::path& root, const std::string& component, const char* file) {
  const fs::path path = root / component / file;
  if (!fs::exists(path)) {
    throw Error(Kind::kCheckpoint, str(root.string(), " has no ", (fs::path(component) / file).string(),
                                       "; is it a complete diffusers folder?"));
  }
  check_plain(path);
  return read_json(path);
}

// What the reference's pipeline makes of an encoder's config.json: the class is the one that model_index.json
// names, whatever was saved, and of a model of several towers the config of the one that is read counts.
Json encoder_config(Json config, const char* config_key, const Json& index, const std::string& name) {
  if (!config.is_object()) return config;
  if (const auto tower = config.find(config_key); tower != config.end() && tower->is_object()) {
    Json inner = *tower;
    if (config.contains("architectures")) inner["architectures"] = config["architectures"];
    config = std::move(inner);
  }
  const auto named = index.find(name);
  if (named != index.end() && named->is_array() && named->size() == 2 && named->back().is_string()) {
    config["architectures"] = Json::array({named->back()});
  }
  return config;
}

// Sub-folders of a family's parts, and what they are.
std::vector<std::pair<std::string, Component::ComponentKind>> parts_of(const models::Family& family) {
  std::vector<std::pair<std::string, Component::ComponentKind>> all;
  for (const auto name : family.experts) all.emplace_back(name, Component::ComponentKind::kDenoiser);
  all.emplace_back("vae", Component::ComponentKind::kVae);
  for (const auto& e : family.encoders) all.emplace_back(e.folder, Component::ComponentKind::kEncoder);
  if (!family.image_encoder.empty())
    all.emplace_back(family.image_encoder, Component::ComponentKind::kImageEncoder);
  return all;
}

// Encoders that the family says so of, that of pictures, and all denoisers but the first.
bool is_optional(const models::Family& family, std::string_view name) {
  if (name == family.image_encoder) return true;
  if (std::find(family.experts.begin() + 1, family.experts.end(), name) != family.experts.end()) return true;
  return std::any_of(family.encoders.begin(), family.encoders.end(),
                     [&](const auto& e) { return e.folder == name && e.is_optional; });
}

// Whether a folder does without a part: null in its index, or neither named nor there.
bool is_left_out(const Json& index, const fs::path& root, const std::string& name) {
  const auto named = index.find(name);
  if (named == index.end()) return !fs::exists(root / name);
  return named->is_null() || (named->is_array() && !named->empty() && named->front().is_null());
}

// Throws Error(kCheckpoint) where a folder's index says another thing of a part than the family or
// the part itself.
void check_index(const models::Family& family, const Json& index, const std::string& name,
                 Component::ComponentKind kind, const Json& config) {
  const auto named = index.find(name);
  if (named == index.end()) return;
  if (is_left_out(index, {}, name)) {
    throw Error(Kind::kCheckpoint, str("model_index.json leaves ", name, " out, which ", family.pipeline,
                                       " does not draw without"));
  }
  const bool is_pair = named->is_array() && named->size() == 2 && named->back().is_string();
  if (!is_pair) {
    throw Error(Kind::kCheckpoint,
                str("model_index.json: ", name, " must be a library and a class, found ", named->dump()));
  }
  const std::string found = named->back();
  std::string own;
  if (kind == Component::ComponentKind::kDenoiser) {
    const auto* other =
        models::find_family(found);  // published folders also have older names of a family's class
    if (other && other->denoiser != family.denoiser) own = family.denoiser;
  } else if (kind == Component::ComponentKind::kVae && config.is_object()) {
    const Json written = config.value("_class_name", Json());
    if (written.is_string() && written != found) own = written;
  }
  if (!own.empty()) {
    throw Error(Kind::kCheckpoint, str("model_index.json names the class ", found, " for ", name,
                                       ", which here is ", own, ": the folder holds parts of two models"));
  }
}

}  // namespace

ModelRepo ModelRepo::open(const fs::path& folder, const std::vector<fs::path>& files) {
  ModelRepo m;
  m.root_ = folder;
  m.label_ =
      folder.filename().empty() ? folder.parent_path().filename().string() : folder.filename().string();
  if (!fs::exists(folder / "model_index.json")) {
    throw Error(Kind::kUsage, str(folder.string(), " is no diffusers folder: it has no model_index.json"));
  }
  check_plain(folder / "model_index.json");
  m.index_ = share(read_json(folder / "model_index.json"));
  const Json& index = *m.index_;
  const Json named = index.is_object() ? index.value("_class_name", Json("nothing")) : Json("nothing");
  const std::string pipeline = named.is_string() ? named.get<std::string>() : named.dump();
  m.family_ = models::find_family(pipeline);
  if (!m.family_) {
    throw Error(Kind::kUsage, str(folder.string(), ": model_index.json names ", pipeline, "; this build has ",
                                  known_families()));
  }
  for (const auto& [name, kind] : parts_of(*m.family_)) {
    if (is_optional(*m.family_, name) && is_left_out(index, folder, name)) continue;
    Json config = read_config(folder, name, "config.json");
    check_index(*m.family_, index, name, kind, config);
    if (kind != Component::ComponentKind::kDenoiser && kind != Component::ComponentKind::kVae) {
      const bool is_text = kind == Component::ComponentKind::kEncoder;
      config = encoder_config(std::move(config), is_text ? "text_config" : "vision_config", index, name);
    }
    m.components_.push_back({kind, name, share(std::move(config)), {}, {}});
  }
  if (!files.empty()) take_missing(*m.family_, folder, files, m.components_);
  take_prefixed(*m.family_, folder, m.components_);
  m.scheduler_ = share(read_config(folder, "scheduler", "scheduler_config.json"));
  m.settle_defaults();
  m.has_vocabulary_ = !index.contains("_atelier_dummy_seed");
  return m;
}

ModelRepo ModelRepo::open_single_files(std::span<const fs::path> files, const fs::path& rest) {
  ModelRepo m = open(rest);
  m.label_ = files.front().filename().string();
  take_from_files(*m.family_, files, m.components_);
  Json index = *m.index_;
  index.erase("_atelier");  // says how the other denoiser draws
  m.index_ = share(std::move(index));
  m.settle_defaults();
  return m;
}

namespace {

// Families may share one network: a file with layers for a control stream is of the one that has such a
// stream. A control video alone proves nothing, as adapters take one too; a mask for it does.
const models::Family* sibling_of(const models::Family& family, const Json& config) {
  if (!family.video) return &family;
  const bool is_steered = family.video(Json::object(), config).mask_video != models::Shown::kNever;
  for (const auto* other : models::families()) {
    const bool has_control =
        std::any_of(other->streams.begin(), other->streams.end(),
                    [](const auto& stream) { return stream.kind == models::StreamSpec::kControl; });
    if (other->config_of_file == family.config_of_file && has_control == is_steered) return other;
  }
  return &family;
}

}  // namespace

ModelRepo ModelRepo::open_denoiser(const fs::path& file) {
  ModelRepo m;
  m.family_ = family_of(file);
  if (!m.family_ || m.family_->presets.empty()) {
    throw Error(
        Kind::kCheckpoint,
        str(file.string(), ": holds no denoiser of a family of this build, which has ", known_families()));
  }
  m.label_ = file.filename().string();
  const Json like = m.family_->presets.front().make();
  const auto name = m.family_->experts.front();
  m.components_.push_back(
      {Component::ComponentKind::kDenoiser, std::string(name), share(like.at(std::string(name))), {}, {}});
  take_from_files(*m.family_, std::span(&file, 1), m.components_);
  m.family_ = sibling_of(*m.family_, *m.components_.front().config);
  m.scheduler_ = share(like.at("scheduler"));
  m.index_ = share(Json::object());
  m.settle_defaults();
  m.parts_ = Parts::kDenoiser;
  return m;
}

void ModelRepo::keep(Parts parts) {
  using enum Component::ComponentKind;
  parts_ = parts;
  if (is_whole()) return;
  std::erase_if(components_,
                [&](const Component& c) { return c.kind != (parts == Parts::kVae ? kVae : kDenoiser); });
}

bool ModelRepo::has(std::string_view component) const {
  return std::any_of(components_.begin(), components_.end(),
                     [&](const Component& c) { return c.name == component; });
}

std::vector<std::string_view> ModelRepo::experts() const {
  auto here = family_->experts;
  std::erase_if(here, [&](std::string_view name) { return !has(name); });
  return here;
}

ModelRepo ModelRepo::random(const models::Family& family, const Json& configs, std::string label,
                            uint64_t seed) {
  ModelRepo m;
  m.family_ = &family;
  m.label_ = std::move(label);
  m.dummy_seed_ = seed;
  for (const auto& [name, kind] : parts_of(family)) {
    if (is_optional(family, name) && !configs.contains(name)) continue;
    m.components_.push_back({kind, name, share(configs.at(name)), {}, {}});
  }
  m.scheduler_ = share(configs.at("scheduler"));
  m.index_ = share(configs);
  m.settle_defaults();
  return m;
}

ModelRepo ModelRepo::dummy(const std::string& preset, uint64_t seed) {
  const Json configs = models::preset(preset);
  const auto* family = models::find_family(configs.at("_class_name").get<std::string>());
  return random(*family, configs, preset + " (dummy weights)", seed);
}

const Component& ModelRepo::component(std::string_view name) const {
  const auto found = std::find_if(components_.begin(), components_.end(),
                                  [&](const Component& c) { return c.name == name; });
  ENSURE(found != components_.end());
  return *found;
}

std::vector<models::EncoderSpec> ModelRepo::encoders() const {
  std::vector<models::EncoderSpec> here;
  std::copy_if(family_->encoders.begin(), family_->encoders.end(), std::back_inserter(here),
               [&](const auto& spec) { return has(spec.folder); });
  return here;
}

void ModelRepo::settle_defaults() {
  denoiser_ = components_.front().config;
  static_cast<models::SamplingDefaults&>(defaults_) = family_->defaults(denoiser());
  const auto own = index_->find("_atelier");
  if (own == index_->end() || !own->is_object()) return;
  const models::ConfigReader read(*own, "model_index.json, _atelier");
  const auto whole = [&](const char* key, auto& value) {
    if (own->contains(key))
      value = static_cast<std::remove_reference_t<decltype(value)>>(read.positive(key, value));
  };
  whole("num_inference_steps", defaults_.steps);
  defaults_.guidance = read.number("guidance_scale", defaults_.guidance);
  defaults_.true_cfg = read.number("true_cfg_scale", defaults_.true_cfg);
  whole("height", defaults_.height);
  whole("width", defaults_.width);
  whole("num_frames", defaults_.frames);
  defaults_.fps = read.number("fps", defaults_.fps);
  whole("max_sequence_length", defaults_.max_sequence_length);
}

Json ModelRepo::image_processor() const {
  const fs::path file = root_ / family_->image_processor / "preprocessor_config.json";
  return fs::exists(file) ? read_json(file) : Json::object();
}

int64_t ModelRepo::vocabulary(std::string_view encoder) const {
  return component(encoder).config->value("vocab_size", int64_t{1});
}

std::unique_ptr<text::Tokenizer> ModelRepo::tokenizer(const models::EncoderSpec& encoder) const {
  const auto named = index_->find(encoder.tokenizer);  // ["transformers", "T5Tokenizer"]
  const bool has_class =
      named != index_->end() && named->is_array() && named->size() == 2 && named->back().is_string();
  return text::open_tokenizer(root_ / encoder.tokenizer, has_class ? named->back().get<std::string>() : "");
}

std::vector<std::string> ModelRepo::presets() {
  return models::preset_names();
}

std::unique_ptr<weights::WeightStore> ModelRepo::weights(const Component& c) const {
  auto store = dummy_seed_ ? weights::WeightStore::dummy(*dummy_seed_)
                           : weights::WeightStore::open(c.file.empty() ? root_ / c.name : c.file, c.section);
  store->adopt(names_of(*family_, c));
  return store;
}

ModelFacts ModelRepo::facts() const {
  auto facts = family_->facts(denoiser());
  facts.name = label_;
  return facts;
}

models::VideoTraits ModelRepo::video() const {
  return family_->video ? family_->video(index(), denoiser()) : models::VideoTraits{};
}

models::Grid ModelRepo::grid(int64_t height, int64_t width, int64_t frames, int64_t references) const {
  const auto facts = has("vae") ? models::find_vae(vae()).facts(vae()) : models::VaeFacts();
  if (frames != 1 && !draws_videos())
    throw Error(Kind::kUsage, str(frames, " frames were asked for; ", family_->name, " draws pictures"));
  if (frames < 1 || (frames - 1) % facts.temporal != 0) {
    const int64_t below = std::max<int64_t>(0, frames - 1) / facts.temporal * facts.temporal + 1;
    throw Error(Kind::kUsage,
                str(frames, " frames were asked for; ", family_->name, " draws ", facts.temporal,
                    "k + 1 of them: take ", below, " or ", below + facts.temporal));
  }
  auto grid =
      family_->grid(denoiser(), facts.spatial, height, width, (frames - 1) / facts.temporal + 1 + references);
  grid.left_out = references;
  return grid;
}

int64_t ModelRepo::image_tokens(int64_t height, int64_t width, int64_t frames) const {
  const auto grid = this->grid(height, width, frames);
  return (grid.tokens() + grid.together - 1) / grid.together;
}

ModelFacts ModelRepo::check() const {
  std::string problems = is_whole() ? misfits(*family_, components_) : "";
  if (!problems.empty()) throw Error(Kind::kCheckpoint, str(label_, ": ", problems));
  ModelFacts facts = this->facts();
  for (const auto& c : components_) {
    const auto store = weights(c);
    build_shapes(*family_, c, *store);
    try {
      store->check(ignorable_of(*family_, c));
    } catch (const Error& e) {
      problems += str(problems.empty() ? "" : "\n", c.name, ": ", e.what());
    }
    facts.parameters[c.name] = numbers_in(*store);
  }
  for (const auto& e : encoders()) {
    if (has_vocabulary()) tokenizer(e);
  }
  if (!problems.empty()) throw Error(Kind::kCheckpoint, problems);
  // Any call will do: what the configuration asks for must be there.
  const bool is_linear = family_->sigmas == models::Sigmas::kLinearToInverse;
  sampling::make_sampler(*scheduler_, {.steps = 2, .linear_sigmas = is_linear, .mu = 1.0});
  return facts;
}

Json ModelRepo::saved_index() const {
  Json index = Json::object();
  for (const auto& [key, value] : index_->items()) {
    if (!value.is_object()) index[key] = value;
  }
  for (const auto& c : components_) index[c.name] = class_of(c);
  index["scheduler"] = {"diffusers", (*scheduler_)["_class_name"]};
  index["_class_name"] = std::string(family_->pipeline);
  index["_atelier_dummy_seed"] = *dummy_seed_;
  return index;
}

void ModelRepo::save(const fs::path& folder, at::ScalarType dtype) const {
  if (!is_dummy()) throw Error(Kind::kUsage, "only dummy weights can be saved as a dummy folder");
  for (const auto& c : components_) {
    const auto store = weights(c);
    build_shapes(*family_, c, *store);
    fs::create_directories(folder / c.name);
    write_json(folder / c.name / "config.json", *c.config);
    const char* stem = c.kind == Component::ComponentKind::kEncoder ? "model" : "diffusion_pytorch_model";
    weights::save_checkpoint(*store, names_of(*family_, c),
                             {.folder = folder / c.name, .stem = stem, .dtype = dtype});
  }
  fs::create_directories(folder / "scheduler");
  write_json(folder / "scheduler/scheduler_config.json", *scheduler_);
  write_json(folder / "model_index.json", saved_index());
}

}  // namespace atelier::pipeline
