// SDXL: Podell et al. (arXiv 2307.01952). Upstream: diffusers pipelines/stable_diffusion_xl.
#include "models/family.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/network_inputs.h"
#include "models/patches.h"
#include "models/sdxl/file.h"
#include "models/sdxl/names.h"
#include "models/sdxl/presets.h"
#include "models/sdxl/unet.h"
#include "nn/patchify.h"
#include "nn/pyramid.h"

namespace atelier::models {
namespace {

constexpr int64_t kTextTokens = 77;
constexpr int64_t kPixelsPerLatent = 8;

ModelFacts facts(const Json& config) {
  const UNetConfig c(config);
  return {.heads = static_cast<int>(c.fewest_heads()),
          .blocks = static_cast<int>(blocks_of(c).size()),
          .has_convolution_mixer = true};
}

SamplingDefaults defaults(const Json& config) {
  const int side = static_cast<int>(UNetConfig(config).sample_size * kPixelsPerLatent);
  return {.steps = 30, .guidance = 7.5, .height = side, .width = side, .max_sequence_length = kTextTokens};
}

Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t) {
  const UNetConfig c(config);
  const int64_t cell = std::max(spatial, kPixelsPerLatent);
  const auto nearest = [&](int64_t pixels) { return std::max(cell, (pixels + cell / 2) / cell * cell); };
  if (height < cell || width < cell || height % cell != 0 || width % cell != 0) {
    throw Error(Kind::kUsage, str("a picture of ", width, "x", height,
                                  " was asked for; width and height must be multiples of ", cell, ": try ",
                                  nearest(width), "x", nearest(height)));
  }
  const int64_t rows = height / spatial, cols = width / spatial;
  return {.rows = rows,
          .cols = cols,
          .channels = c.latent_channels,
          .together = c.rows_together() * cols,
          .latent_channels = c.latent_channels,
          .latent_rows = rows,
          .latent_cols = cols,
          .note = size_note(c.sample_size * spatial, height, width)};
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return nn::picture_of(tokens, g.rows, g.cols).contiguous();
}

// Convolutions tell where a pixel is: nothing reads these.
at::Tensor coordinates(const Json&, const Grid& g, int, int64_t) {
  return nn::grid_coordinates(g.rows, g.cols);
}

// Of the refiner, which is told how well its pictures please in place of their target: the defaults of the
// reference's call.
constexpr int64_t kScores = 5;
constexpr double kScore = 6, kNegativeScore = 2.5;

// original height and width, top and left of the crop, target height and width: [B, 6], float; or a score for
// the last two: [B, 5].
at::Tensor time_ids(const PromptBatch& p) {
  const PictureSizes& s = p.sizes;
  const std::array<int, 2> picture{static_cast<int>(p.height), static_cast<int>(p.width)};
  const auto original = s.original.value_or(picture), target = s.target.value_or(picture);
  const auto crop = s.crop.value_or(std::array<int, 2>{0, 0});
  auto row = at::tensor({original[0], original[1], crop[0], crop[1], target[0], target[1]},
                        at::TensorOptions(at::kFloat));
  if (p.pipeline.value("requires_aesthetics_score", false)) {
    row = row.narrow(0, 0, kScores).clone();
    row[kScores - 1] = p.is_negative ? kNegativeScore : kScore;
  }
  return row.repeat({std::ssize(p.texts[0]), 1});
}

// The states of both encoders side by side. Where only the second is there, it reads the first text.
nn::Conditioning condition(Encoders& encoders, const PromptBatch& p) {
  const int layer = -(p.clip_skip + 2);
  const bool has_both = encoders.has("text_encoder");
  const auto second = encoders.encode({.encoder = "text_encoder_2", .length = kTextTokens, .layer = layer},
                                      p.texts[has_both ? 1 : 0]);
  if (!second.projected.defined())
    throw Error(Kind::kCheckpoint, "text_encoder_2/config.json: SDXL needs a CLIPTextModelWithProjection");
  const UNetConfig c(p.denoiser);
  auto embeds = second.states;
  if (has_both) {
    const auto first =
        encoders.encode({.encoder = "text_encoder", .length = kTextTokens, .layer = layer}, p.texts[0]);
    embeds = at::cat({first.states, embeds}, -1);
  }
  auto pooled = second.projected;
  const auto told = time_ids(p);
  if (embeds.size(-1) != c.text_width || pooled.size(-1) + told.size(1) * c.size_width != c.added_width) {
    throw Error(Kind::kCheckpoint,
                str("unet/config.json: cross_attention_dim is ", c.text_width, " for text states of ",
                    embeds.size(-1), ", projection_class_embeddings_input_dim is ", c.added_width, " for ",
                    pooled.size(-1), " + ", told.size(1), " * ", c.size_width,
                    ", as requires_aesthetics_score of model_index.json says"));
  }
  if (p.is_absent && p.pipeline.value("force_zeros_for_empty_prompt", true))
    embeds = at::zeros_like(embeds), pooled = at::zeros_like(pooled);
  return {.whole = {{"embeds", embeds}, {"pooled", pooled}, {"time_ids", told}}};
}

// `y` is the pooled text; the six sizes, whose sinusoids the published network takes behind it,
// come as time_ids.
nn::Conditioning condition_of_call(const Json& config, NetworkInputs& inputs) {
  const UNetConfig c(config);
  return {.whole = {{"embeds", inputs.take("context", {-1, c.text_width})},
                    {"pooled", inputs.take("y", {c.added_width - 6 * c.size_width})},
                    {"time_ids", inputs.take("time_ids", {6})}}};
}

std::vector<weights::NameRule> names(const Json& config) {
  auto all = names_unet_diffusers();
  const UNetConfig c(config);
  for (const char* prefix : {"", "model.diffusion_model."}) {
    for (auto& rule : names_unet_original(c, prefix)) all.push_back(std::move(rule));
  }
  return all;
}

std::unique_ptr<nn::Model> build(const Json& config, const nn::Builder& b, std::span<const Range> blocks) {
  return build_unet(UNetConfig(config), b, blocks);
}

}  // namespace

extern const Family kSdxl{
    .name = "sdxl",
    .pipeline = "StableDiffusionXLPipeline",
    .editing = {"StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"},
    .denoiser = "UNet2DConditionModel",
    .experts = {"unet"},
    .encoders = {{"text_encoder", "tokenizer", true}, {"text_encoder_2", "tokenizer_2"}},
    .streams = {{"picture", StreamSpec::kLatent}},
    .guidance_scale = GuidanceScale::kClassifierFree,
    .most_text_tokens = kTextTokens,
    .call_guidance = 5,
    .prompts = 2,
    .has_text_length = false,
    .has_clip_skip = true,
    .size_inputs = SizeInputs::kOfBothBranches,
    .obeys_force_upcast = true,
    .sigmas = Sigmas::kFromScheduler,
    .image_to_image = {.strength = 0.3, .masked = 0.9999, .guidance = 5, .masked_guidance = 7.5},
    .facts = facts,
    .work = work_sdxl,
    .defaults = defaults,
    .grid = grid,
    .pack = nn::pixels_of,
    .unpack = unpack,
    .coordinates = coordinates,
    .condition = condition,
    .call = {.condition = condition_of_call},
    .names = names,
    .ignorable = {"v_pred", "ztsnr", "edm_*"},  // how predictions are meant: callers read it
    .presets = presets_sdxl(),
    .config_of_file = config_of_sdxl_file,
    .build = build,
};

}  // namespace atelier::models
