// Wan as the engine meets it: three pipelines of one transformer.
#include "models/family.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/network_inputs.h"
#include "models/patches.h"
#include "models/wan/conditions.h"
#include "models/wan/config.h"
#include "models/wan/names.h"
#include "models/wan/presets.h"
#include "models/wan/transformer.h"
#include "nn/patchify.h"

namespace atelier::models {
namespace {

constexpr int64_t kTextTokens = 512;

ModelFacts facts(const Json& config) {
  const WanConfig c(config);
  ModelFacts made{.heads = static_cast<int>(c.heads.count), .blocks = c.blocks};
  if (c.control_layers.empty()) return made;
  made.cost.assign(static_cast<size_t>(c.blocks), 1);
  for (const int64_t i : c.control_layers) made.cost[static_cast<size_t>(i)] = 2;
  return made;
}

SamplingDefaults defaults(const Json& config) {
  const bool is_5b = WanConfig(config).out_channels == 48;
  return {.steps = 50,
          .guidance = 5,
          .height = is_5b ? 704 : 480,
          .width = is_5b ? 1280 : 832,
          .frames = is_5b ? 121 : 81,
          .fps = is_5b ? 24.0 : 16.0,
          .max_sequence_length = kTextTokens};
}

// frames: of the latents.
Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t frames) {
  const WanConfig c(config);
  auto made = grid_of_2x2(c.out_channels, spatial, height, width, c.most_positions);
  if (frames < 1 || frames > c.most_positions)
    throw Error(Kind::kUsage, str("a video of ", frames,
                                  " latent frames was asked for; this model draws 1 to ", c.most_positions));
  made.frames = made.latent_frames = frames;
  return made;
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return nn::unpack_frames_2x2(tokens, g.frames, g.rows, g.cols);
}

at::Tensor coordinates(const Json&, const Grid& g, int, int64_t) {
  return nn::frame_coordinates(g.frames, g.rows, g.cols);
}

// States behind the text are zeros, which the transformer attends to like any others.
nn::Conditioning condition(Encoders& encoders, const PromptBatch& p) {
  const auto t5 = encoders.encode({.encoder = "text_encoder",
                                   .length = p.max_sequence_length,
                                   .padding = TextCall::Padding::kMasked,
                                   .cleaning = TextCall::Cleaning::kUnescaped},
                                  p.texts[0]);
  const auto counts = t5.mask.to(t5.states.options()).unsqueeze(-1);
  nn::Conditioning made{.whole = {{"embeds", t5.states * counts}, {"mask", t5.mask}}};
  if (p.image_states.defined()) made.whole["image"] = p.image_states;
  return made;
}

// Text of any length, padded by the caller. States of pictures where the model was made for them: a caller
// may have those of the first picture alone, or none, as the published network may be called.
nn::Conditioning condition_of_call(const Json& config, NetworkInputs& inputs) {
  const WanConfig c(config);
  nn::Conditioning out{.whole = {{"embeds", inputs.take("context", {-1, c.text_width})}}};
  if (c.image_width == 0) return out;
  const auto image = inputs.take_if_there("clip_fea", {-1, c.image_width});
  if (!image.defined()) return out;
  if (c.image_positions > 0 && image.size(1) > c.image_positions)
    throw Error(Kind::kUsage, str("clip_fea holds ", image.size(1), " states of pictures, this model takes ",
                                  c.image_positions, " at most: give it fewer pictures"));
  out.whole["image"] = image;
  return out;
}

int64_t channels_of_call(const Json& config) {
  return WanConfig(config).channels;
}

GivenLatents control_of_call(const Json& config, NetworkInputs& inputs, const Grid& grid) {
  const WanConfig c(config);
  GivenLatents given;
  given.control = inputs.take("vace_context",
                              {c.control_channels, grid.latent_frames, grid.latent_rows, grid.latent_cols});
  given.control_scales = at::full({std::ssize(c.control_layers)}, inputs.take_number("vace_strength", 1.0));
  return given;
}

std::vector<TextWidth> text_widths(const Json& config) {
  return {{"text_dim", WanConfig(config).text_width, {"text_encoder"}}};
}

// Whether model_index.json names a part: a class and its library in folders, its config in what needs none.
bool names_part(const Json& pipeline, const char* part) {
  const auto named = pipeline.find(part);
  if (named == pipeline.end() || named->is_null()) return false;
  return !named->is_array() || (!named->empty() && !named->front().is_null());
}

// Throws Error(kCheckpoint) where the index speaks of a second denoiser that it does not name.
VideoTraits traits(const Json& pipeline, const Json& denoiser) {
  const WanConfig c(denoiser);
  const Json boundary = pipeline.value("boundary_ratio", Json());
  VideoTraits made;
  made.has_second_guidance = !boundary.is_null();
  if (made.has_second_guidance && !names_part(pipeline, "transformer_2"))
    throw Error(
        Kind::kCheckpoint,
        str("model_index.json: boundary_ratio is ", boundary.dump(),
            ", below which transformer_2 runs, but it names no transformer_2: the second expert is missing"));
  if (pipeline.value("expand_timesteps", false)) made.image = Shown::kMay;
  if (c.takes_frames()) {
    made.image = Shown::kMust;
    made.last_image = c.image_positions > 0 ? Shown::kMust : c.image_width > 0 ? Shown::kNever : Shown::kMay;
  }
  if (c.can_be_steered() && made.image == Shown::kNever) made.control_video = Shown::kMay;
  made.control_blocks = std::ssize(c.control_layers);
  if (!c.control_layers.empty()) made.reference_images = made.control_video = made.mask_video = Shown::kMay;
  return made;
}

Family wan(std::string_view name, std::string_view pipeline, std::string_view denoiser) {
  return {
      .name = name,
      .pipeline = pipeline,
      .denoiser = denoiser,
      .experts = {"transformer", "transformer_2"},
      .encoders = {{"text_encoder", "tokenizer"}},
      .image_encoder = "image_encoder",
      .image_processor = "image_processor",
      .streams = {{"video", StreamSpec::kLatent}},
      .guidance_scale = GuidanceScale::kClassifierFree,
      .most_text_tokens = kTextTokens,
      .call_guidance = 5,
      .sigmas = Sigmas::kFromScheduler,
      .video = traits,
      .facts = facts,
      .work = work_wan,
      .defaults = defaults,
      .grid = grid,
      .pack = nn::pack_frames_2x2,
      .unpack = unpack,
      .coordinates = coordinates,
      .given = given_to_wan,
      .condition = condition,
      .call = {.condition = condition_of_call, .channels = channels_of_call},
      .names = [](const Json&) { return names_wan(); },
      .ignorable = {"*.norm_added_q.*"},
      .config_of_file = config_of_wan_file,
      .build = build_wan,
      .text_widths = text_widths,
      .image_width = [](const Json& config) { return WanConfig(config).image_width; },
  };
}

Family wan_text() {
  auto family = wan("wan", "WanPipeline", "WanTransformer3DModel");
  family.presets = presets_wan_text();
  return family;
}

Family wan_image() {
  auto family = wan("wan_i2v", "WanImageToVideoPipeline", "WanTransformer3DModel");
  family.presets = presets_wan_image();
  return family;
}

Family wan_vace() {
  auto family = wan("wan_vace", "WanVACEPipeline", "WanVACETransformer3DModel");
  family.streams.push_back({"control", StreamSpec::kControl});
  family.given = given_to_vace;
  family.call.given = control_of_call;
  family.presets = presets_wan_vace();
  return family;
}

}  // namespace

extern const Family kWan = wan_text(), kWanImage = wan_image(), kWanVace = wan_vace();

}  // namespace atelier::models
