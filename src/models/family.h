// Everything the engine must know about a model beyond its mathematics, as data and pure functions.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/model_facts.h"
#include "models/text_encoder.h"
#include "nn/builder.h"
#include "nn/model.h"
#include "weights/names.h"

namespace atelier::weights {
class WeightStore;
}

namespace atelier::models {

// A text encoder of the pipeline folder.
struct EncoderSpec {
  std::string_view folder, tokenizer;  // sub-folders of the pipeline
  bool is_optional = false;            // a model may come without: null in model_index.json
};

// A sequence of tokens that flows through the blocks. The order of the streams is that of joint attention.
struct StreamSpec {
  // kJoint: made of the prompt; kLatent: what is denoised, exactly one; kControl: made of what steers
  // it, cut alike.
  enum StreamKind { kJoint, kLatent, kControl };
  std::string_view name;
  StreamKind kind = kJoint;
  bool pinned_to_first_patch = false;  // not cut into patches: travels with the first one
};

// One size of image or video as the denoiser sees it.
struct Grid {
  int64_t frames = 1, rows = 0, cols = 0;  // tokens
  int64_t channels = 0;                    // of a token
  int64_t together = 1;                    // tokens that are never split, such as some rows of a picture
  // Of the VAE's latents; no frames: [B, C, H, W], without an axis for time.
  int64_t latent_channels = 0, latent_frames = 0, latent_rows = 0, latent_cols = 0;
  int64_t left_out = 0;  // latent frames in front that are drawn along and not shown: of reference pictures
  // Positions as the model's own repository has them, where the reference's pipeline lays them elsewhere.
  bool as_published = false;
  std::string note = {};  // what whoever asks for this size should know; empty: nothing

  int64_t tokens() const { return frames * rows * cols; }
  // Sizes of the latents of a batch.
  std::vector<int64_t> latent(int64_t batch) const;
};

// What the family's guidance_scale means.
enum class GuidanceScale {
  kEmbedded,        // an input of the model, distilled; a second branch only for true_cfg_scale
  kClassifierFree,  // the weight of a second branch
};

// What a branch is told about its pictures beside the text, {height, width} or {top, left} in pixels; unset:
// the model's own idea of it.
struct PictureSizes {
  std::optional<std::array<int, 2>> original, crop, target;
};

// The prompts of one branch of a batch, and what else conditions it.
struct PromptBatch {
  // prompt, prompt_2 and prompt_3 of each sample, the first where another is not given.
  std::array<std::vector<std::string>, 3> texts;
  bool is_negative = false;  // of the second branch
  bool is_absent = false;    // nobody gave a negative prompt: the texts are empty
  const Json& pipeline;      // model_index.json
  const Json& denoiser;      // config.json of the denoiser
  int64_t max_sequence_length = 0;
  int clip_skip = 0;              // last layers of the CLIP encoders left out, besides those that always are
  int64_t height = 0, width = 0;  // pixels
  PictureSizes sizes = {};
  at::Tensor image_states = {};  // of pictures that the model is shown, [B, T, C]; undefined: none
  double guidance_scale = 0;
};

struct SamplingDefaults {
  int steps = 28;
  double guidance = 3.5;
  int height = 1024, width = 1024;
  int frames = 1;  // of videos
  double fps = 0;
  int64_t max_sequence_length = 512;
};

// The configuration of a published model, so that full-size runs with random weights need no files.
struct Preset {
  std::string_view name;   // of the repository, without its owner
  std::string_view alias;  // short; empty: none
  // One object: _class_name of the pipeline, and each component's config under its folder's name.
  Json (*make)();
};

// Whether a model is shown something beside its prompt. kMust: it draws nothing without.
enum class Shown { kNever, kMay, kMust };
// What a model of videos takes.
struct VideoTraits {
  Shown image = Shown::kNever, last_image = Shown::kNever;  // its first frame, and its last
  Shown reference_images = Shown::kNever;
  Shown control_video = Shown::kNever, mask_video = Shown::kNever;
  bool has_second_guidance = false;  // a second expert, with a scale of its own
  int64_t control_blocks = 0;        // of a control stream: as many weights a request may have
};

// Sizes of photographs that a call of the reference's pipeline takes: original_size, target_size and
// crops_coords_top_left, or also those of the negative branch.
enum class SizeInputs { kNone, kOfPicture, kOfBothBranches };

// How the schedule is called: the sigmas that the pipeline passes in, and whether the token count shifts
// them.
enum class Sigmas { kLinearToInverse, kFromScheduler };

// A width that the denoiser takes from its text encoders: the sum of theirs.
struct TextWidth {
  std::string_view key;  // of the denoiser's config.json
  int64_t wanted = 0;
  std::vector<std::string_view> encoders;  // their folders
  enum class Of { kStates, kPooled, kProjected } of = Of::kStates;
};

// How the reference's image-to-image pipelines of a family read `strength`.
struct ImageToImage {
  // Of n steps. kSteps: n * strength are run; kFirst: n - n * strength are left out; cut off to an
  // integer either way.
  enum Cut { kSteps, kFirst } cut = kSteps;
  // Where a call of the reference does not say, without and with a mask.
  double strength = 0.6, masked = 0.6;
  double guidance = 7, masked_guidance = 7;
};

// What a request shows to a model of videos, of a batch, float, pixels in [-1, 1] in the size that is drawn.
struct ShownPictures {
  at::Tensor image, last_image;  // [B, 3, H, W]; undefined: none
  at::Tensor control;            // [B, 3, F, H, W]; undefined: none
  at::Tensor mask;               // of the control video, [B, 3, F, H, W] in [0, 1]: 1 where it is drawn anew
  at::Tensor references;         // [B, pictures, 3, H, W]
  int64_t batch = 1, frames = 1, height = 0, width = 0;  // in pixels, of the video that is drawn
  std::vector<double> control_scales;                    // one, or one for each hint of the model; empty: 1
};

// [B, 3, F, H, W] -> latents as the denoiser has them, [B, C, f, h, w], float.
using EncodeVideo = std::function<at::Tensor(const at::Tensor& video)>;

// What the denoiser is given beside noisy latents, [B, c, f, h, w], float; undefined: nothing.
struct GivenLatents {
  at::Tensor channels;        // behind the noisy latents' own
  at::Tensor control;         // for a control stream
  at::Tensor control_scales;  // [hints]
  at::Tensor known;           // the first latent frames, in place of noisy ones
};

class NetworkInputs;

// How other programs call the published network one evaluation at a time: by the names of its arguments, on a
// grid that is as_published. Its timestep is Family::pipeline_time_scale times what a sampler tells the
// denoiser.
struct NetworkCall {
  // What the inputs condition a batch on; config: of the denoiser. Throws Error(kUsage) for what does not
  // fit. Null: the family is not called from outside.
  nn::Conditioning (*condition)(const Json& config, NetworkInputs& inputs) = nullptr;
  // Channels of the latents that a call has: those behind the denoiser's own are given. Null: its own alone.
  int64_t (*channels)(const Json& config) = nullptr;
  // What else steers it. Null: nothing.
  GivenLatents (*given)(const Json& config, NetworkInputs& inputs, const Grid& grid) = nullptr;
};

struct Family {
  std::string_view name;
  std::string_view pipeline;  // _class_name in model_index.json
  std::vector<std::string_view> editing =
      {};                                 // or one of these: the reference's that edit with the same parts
  std::string_view denoiser;              // _class_name in the denoiser's config.json
  std::vector<std::string_view> experts;  // folders of the denoisers, of one class; a step names one
  std::vector<EncoderSpec> encoders;
  std::string_view image_encoder = {}, image_processor = {};  // folders, of models that may come with one
  std::vector<StreamSpec> streams;
  GuidanceScale guidance_scale;
  int64_t most_text_tokens;      // that max_sequence_length may be, as the reference's pipeline has it
  int64_t call_text_tokens = 0;  // that it is where a call of the reference does not say; 0: the most
  double call_guidance = 0;      // guidance_scale where a call of the reference does not say; 0: as defaults
  int prompts = 1;               // texts of a request that its encoders read: prompt, prompt_2, prompt_3
  bool has_text_length = true;   // prompts may be read to fewer tokens, as max_sequence_length says
  bool has_clip_skip = false;    // takes states of the CLIP encoders from a layer that may be asked for
  SizeInputs size_inputs = SizeInputs::kNone;
  bool (*reads_sizes)(const Json& denoiser) = nullptr;  // of models whose calls take them; null: all do
  bool obeys_force_upcast = false;  // of the autoencoder's config: in half precision that one runs in float
  Sigmas sigmas;
  // What the reference's pipeline multiplies timesteps by before it calls the model.
  double pipeline_time_scale = 1;
  ImageToImage image_to_image = {};

  // Of a folder's model, from model_index.json and the denoiser's config.json; null: the
  // family draws pictures.
  VideoTraits (*video)(const Json& pipeline, const Json& denoiser) = nullptr;

  ModelFacts (*facts)(const Json& config);  // of the denoiser, without building it
  // What its blocks multiply, without counts. Null: nothing is predicted of its layouts.
  ModelWork (*work)(const Json& config) = nullptr;
  SamplingDefaults (*defaults)(const Json& config);
  // Throws Error(kUsage) for a size the model cannot have. spatial: pixels per latent row of the VAE; frames:
  // of its latents.
  Grid (*grid)(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t frames);
  at::Tensor (*pack)(const at::Tensor& latents);                     // Grid::latent -> [tokens, B, channels]
  at::Tensor (*unpack)(const at::Tensor& tokens, const Grid& grid);  // and back
  // Of a stream with so many tokens: [tokens, axes], int64.
  at::Tensor (*coordinates)(const Json& config, const Grid& grid, int stream, int64_t tokens);
  // What the pictures that a request shows become; whoever encodes makes the same calls of `encode` in
  // the same order. pipeline: model_index.json. Throws Error(kUsage). Null: the family is shown none.
  GivenLatents (*given)(const Json& pipeline, const Json& denoiser, const Grid& grid,
                        const ShownPictures& shown, const EncodeVideo& encode) = nullptr;
  // Joins, pads and replaces what the encoders give for one branch.
  nn::Conditioning (*condition)(Encoders& encoders, const PromptBatch& prompts);
  NetworkCall call = {};
  std::vector<weights::NameRule> (*names)(const Json& config);  // checkpoint names -> canonical names
  std::vector<std::string_view> ignorable = {};                 // globs of tensors that nobody needs
  std::vector<Preset> presets = {};
  // Config of a single-file checkpoint in its original naming, sizes read from the tensors; the rest from
  // `like`.
  Json (*config_of_file)(const weights::WeightStore& file, const Json& like);
  // Builds the blocks of these ranges, and what belongs to the first and the last block.
  std::unique_ptr<nn::Model> (*build)(const Json& config, const nn::Builder&, std::span<const Range> blocks);

  // What must fit together, checked before anything is loaded; null: nothing is declared.
  std::vector<TextWidth> (*text_widths)(const Json& config) = nullptr;

  // Of TeaCache's polynomial from the relative change of what goes into the first block to that of what comes
  // out of the model, highest power first (Liu et al., arXiv 2411.19108). Null or empty: none are published.
  std::vector<double> (*tea_coefficients)(const Json& config) = nullptr;

  // Channels of the image encoder's states that the denoiser takes; 0: it is shown none. Null: as 0.
  int64_t (*image_width)(const Json& config) = nullptr;

  int latent_stream() const;  // its place among the streams
};

// models/registry.cpp: one line per model.
std::span<const Family* const> families();
// By the class name of a pipeline or of a denoiser; null if none is known.
const Family* find_family(std::string_view class_name);

}  // namespace atelier::models
