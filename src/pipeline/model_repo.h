// A model on disk, or a built-in configuration with random weights: configs of every component, and their
// weights.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "models/family.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "weights/store.h"

namespace atelier::pipeline {

// What a request takes when nobody says otherwise: the family's numbers, or the folder's own.
struct ModelDefaults : models::SamplingDefaults {
  double true_cfg = 1;  // scale of a second, negative branch; 1: off
};

// How many numbers the parts of a model hold.
struct ParameterCounts {
  int64_t denoiser = 0, encoders = 0, vae = 0;
};

class ModelRepo {
 public:
  // A diffusers folder. Throws Error(kUsage) for an unknown family, Error(kCheckpoint) for broken files.
  static ModelRepo open(const std::filesystem::path& folder);
  // A single-file checkpoint of a denoiser in its original naming; everything else comes from `rest`, a
  // diffusers folder.
  static ModelRepo open_single_file(const std::filesystem::path& file, const std::filesystem::path& rest);
  // Random weights with the configuration of a published model, such as "FLUX.1-schnell".
  static ModelRepo dummy(const std::string& preset, uint64_t seed);
  static std::vector<std::string> presets();

  const models::Family& family() const { return *family_; }
  const std::string& label() const { return label_; }
  bool is_dummy() const { return is_dummy_; }
  const std::filesystem::path& root() const { return root_; }
  const Json& denoiser() const { return *denoiser_; }
  const Json& scheduler() const { return *scheduler_; }
  const Json& vae() const { return *vae_; }
  const Json& encoder(size_t i) const { return *encoders_[i]; }
  const ModelDefaults& defaults() const { return defaults_; }
  // A saved dummy folder: there are no vocabularies, texts become ids by hashing.
  bool has_no_vocabulary() const { return has_no_vocabulary_; }
  int64_t encoder_vocabulary(size_t i) const;  // entries of the embedding table

  // Fresh stores with the names adopted.
  std::unique_ptr<weights::WeightStore> denoiser_weights() const;
  std::unique_ptr<weights::WeightStore> vae_weights() const;
  std::unique_ptr<weights::WeightStore> encoder_weights(size_t i) const;

  // Builds every part on no device and compares the files with it: missing, misshapen and extra tensors of
  // all parts in one Error(kCheckpoint), then a scheduler that this build lacks. Reads headers only.
  ParameterCounts check() const;

  // Writes the folder of a dummy model: configs and weights in the published names, without tokenizers.
  void save(const std::filesystem::path& folder, at::ScalarType dtype) const;

 private:
  std::unique_ptr<weights::WeightStore> store(const std::string& component) const;
  void read_configs(const Json& all);
  void settle_defaults(const Json& index);

  std::filesystem::path root_, single_file_;
  std::string label_;
  bool is_dummy_ = false, has_no_vocabulary_ = false;
  uint64_t seed_ = 0;
  const models::Family* family_ = nullptr;
  std::shared_ptr<const Json> denoiser_, scheduler_, vae_;
  std::vector<std::shared_ptr<const Json>> encoders_;
  ModelDefaults defaults_;
};

}  // namespace atelier::pipeline
