// Everything the engine must know about a model beyond its mathematics, as data and pure functions.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/builder.h"
#include "nn/model.h"
#include "weights/names.h"

namespace atelier::weights {
class WeightStore;
}

namespace atelier::models {

// A text encoder of the pipeline folder and what the denoiser takes from it.
struct EncoderSpec {
  enum class Use { kPooled, kStates };
  std::string_view folder, tokenizer;  // sub-folders of the pipeline
  Use use;
  int64_t max_length;  // tokens; 0: the request's max_sequence_length
};

// One size of picture as the denoiser sees it.
struct Grid {
  int64_t rows = 0, cols = 0;                                     // tokens
  int64_t channels = 0;                                           // of a token
  int64_t latent_channels = 0, latent_rows = 0, latent_cols = 0;  // of the VAE's latents
};

struct SamplingDefaults {
  int steps = 28;
  double guidance = 3.5;
  int height = 1024, width = 1024;
  int64_t max_sequence_length = 512;
};

// How the schedule is called: the sigmas that the pipeline passes in, and whether the token count shifts
// them.
enum class Sigmas { kLinearToInverse, kFromScheduler };

// What planning needs, without building the model.
struct Facts {
  Dim heads;
  int blocks = 0;
  std::vector<double> cost;         // relative, per block
  bool distilled_guidance = false;  // guidance is an input of the one branch, not a second branch
  bool has_skips = false, has_convolution_mixer = false;
};

struct Family {
  std::string_view name;
  std::string_view pipeline;   // _class_name in model_index.json
  std::string_view component;  // folder of the denoiser
  std::string_view denoiser;   // _class_name in its config.json
  std::vector<EncoderSpec> encoders;
  int64_t most_text_tokens;  // that max_sequence_length may be, as the reference's pipeline has it
  Sigmas sigmas;
  double pipeline_time_scale =
      1;  // what the reference's pipeline multiplies timesteps by before it calls the model

  Facts (*facts)(const Json& config);
  SamplingDefaults (*defaults)(const Json& config);
  // Throws Error(kUsage) for a size the model cannot have. spatial: pixels per latent row of the VAE.
  Grid (*grid)(const Json& config, int64_t spatial, int64_t height, int64_t width);
  at::Tensor (*pack)(const at::Tensor& latents);                     // [B, C, H, W] -> [tokens, B, channels]
  at::Tensor (*unpack)(const at::Tensor& tokens, const Grid& grid);  // and back
  at::Tensor (*coordinates)(const Grid& grid);                       // [tokens, axes], int64
  at::Tensor (*text_coordinates)(int64_t tokens);                    // [tokens, axes], int64
  std::vector<weights::NameRule> (*names)(const Json& config);       // checkpoint names -> canonical names
  // Config of a single-file checkpoint in its original naming, sizes read from the tensors; the rest from
  // `like`.
  Json (*config_of_file)(const weights::WeightStore& file, const Json& like);
  // Builds the blocks of these ranges, and what belongs to the first and the last block.
  std::unique_ptr<nn::Model> (*build)(const Json& config, const nn::Builder&, std::span<const Range> blocks);
};

// models/registry.cpp: one line per model.
std::span<const Family* const> families();
// By the class name of a pipeline or of a denoiser; null if none is known.
const Family* find_family(std::string_view class_name);

}  // namespace atelier::models
