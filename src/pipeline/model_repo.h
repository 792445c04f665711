// A model on disk, or a built-in configuration with random weights: configs of every component, and their
// weights.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "models/family.h"
#include "pipeline/component.h"
#include "text/tokenizer.h"
#include "weights/store.h"

namespace atelier::pipeline {

// What a request takes when nobody says otherwise: the family's numbers, or the folder's own.
struct ModelDefaults : models::SamplingDefaults {
  double true_cfg = 1;  // scale of a second, negative branch; 1: off
};

class ModelRepo {
 public:
  // A diffusers folder. Throws Error(kUsage) for an unknown family, Error(kCheckpoint) for broken files.
  // files: where parts are looked for whose sub-folders have no weights.
  static ModelRepo open(const std::filesystem::path& folder,
                        const std::vector<std::filesystem::path>& files = {});
  // Single-file checkpoints, one for each of the experts: a denoiser in any naming that its family knows,
  // behind any prefix, and perhaps autoencoder and encoders with it. Everything else comes from `rest`, a
  // diffusers folder of the family.
  static ModelRepo open_single_files(std::span<const std::filesystem::path> files,
                                     const std::filesystem::path& rest);
  // A single-file checkpoint's denoiser and nothing else, of whichever family its tensors are. Throws
  // Error(kCheckpoint) where no family knows them.
  static ModelRepo open_denoiser(const std::filesystem::path& file);
  // Random weights for the configurations of all components, each under its folder's name.
  static ModelRepo random(const models::Family& family, const Json& configs, std::string label,
                          uint64_t seed);
  // The same with those of a published model, such as "FLUX.1-schnell".
  static ModelRepo dummy(const std::string& preset, uint64_t seed);
  static std::vector<std::string> presets();

  enum class Parts { kAll, kDenoiser, kVae };
  // Forgets the other parts: they are neither checked nor loaded.
  void keep(Parts parts);
  bool is_whole() const { return parts_ == Parts::kAll; }
  bool has(std::string_view component) const;

  const models::Family& family() const { return *family_; }
  const std::string& label() const { return label_; }
  bool is_dummy() const { return dummy_seed_.has_value(); }
  const std::filesystem::path& root() const { return root_; }
  const ModelDefaults& defaults() const { return defaults_; }
  const Json& index() const { return *index_; }  // model_index.json; of a dummy as much as is known
  const Component& component(std::string_view name) const;
  // Of the family, without those this model does without.
  std::vector<std::string_view> experts() const;
  std::vector<models::EncoderSpec> encoders() const;
  const Json& denoiser() const { return *denoiser_; }  // of the first expert, also where it is not kept
  const Json& vae() const { return *component("vae").config; }
  const Json& scheduler() const { return *scheduler_; }
  // Dummies, also saved ones, have none: texts become ids by hashing.
  bool has_vocabulary() const { return has_vocabulary_; }
  int64_t vocabulary(std::string_view encoder) const;  // entries of the embedding table
  bool names(std::string_view component) const { return has(component); }
  bool has_image_encoder() const { return has(family_->image_encoder); }
  Json image_processor() const;  // its preprocessor_config.json; an empty object where there is none
  // Of the class that model_index.json names. Throws Error(kCheckpoint).
  std::unique_ptr<text::Tokenizer> tokenizer(const models::EncoderSpec& encoder) const;

  // A fresh store with the names adopted.
  std::unique_ptr<weights::WeightStore> weights(const Component& component) const;

  // A sentence for each part whose folder holds more weights than are read: which are, how to take others.
  std::vector<std::string> unread_files() const;

  // Builds every part on no device and compares the files with it: missing, misshapen and extra tensors of
  // all parts in one Error(kCheckpoint), then a scheduler that this build lacks. Reads headers only. Gives
  // what planning needs, parameters counted.
  ModelFacts check() const;
  // The same without counts, from the configuration alone.
  ModelFacts facts() const;
  bool draws_videos() const { return family_->video != nullptr; }
  models::VideoTraits video() const;  // of models of pictures: nothing is taken
  // Throws Error(kUsage) for a size, or a number of frames, that the model cannot draw.
  // references: latent frames in front, one for each reference picture.
  models::Grid grid(int64_t height, int64_t width, int64_t frames, int64_t references = 0) const;
  // Of a picture or video, in the denoiser; those that are never split count as one. Throws as grid() does.
  int64_t image_tokens(int64_t height, int64_t width, int64_t frames = 1) const;

  // Its model_index.json as save() writes it: [library, class] of each part, as diffusers reads them.
  Json saved_index() const;
  // Writes the folder of a dummy model: configs and weights in the published names, without tokenizers.
  void save(const std::filesystem::path& folder, at::ScalarType dtype) const;

 private:
  void settle_defaults();

  std::filesystem::path root_;
  std::string label_;
  std::optional<uint64_t> dummy_seed_;
  bool has_vocabulary_ = false;
  const models::Family* family_ = nullptr;
  std::vector<Component> components_;  // experts, autoencoder, encoders
  std::shared_ptr<const Json> denoiser_, scheduler_, index_;
  Parts parts_ = Parts::kAll;
  ModelDefaults defaults_;
};

}  // namespace atelier::pipeline
