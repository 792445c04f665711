// One output that is asked for: what it is to look like, where it goes. Flags, rows of prompt files, messages
// between processes, records, the hash that resuming compares and limits all go through its list of fields:
// a new field is one member here, one line in request.cpp, and its use.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/field.h"

namespace atelier::request {

// Members keep the names of diffusers' pipeline calls. What a row or a caller leaves unset is filled in from
// flags and the model later; unset after that means off.
struct Request {
  std::string prompt;
  std::optional<std::string> prompt_2, prompt_3;  // for the second and third text encoder; unset: prompt
  std::optional<std::string> negative_prompt, negative_prompt_2, negative_prompt_3;
  std::optional<int> height, width;  // pixels
  std::optional<int> num_inference_steps;
  std::optional<std::string> sampler;     // unset: the folder's
  std::optional<double> scheduler_shift;  // of flow matching, fixed, instead of the folder's
  // Numbers with commas, instead of those that num_inference_steps stands for.
  std::optional<std::string> sigmas, timesteps;
  std::optional<double> eta;  // share of noise that ddim draws anew
  // An input of models that are distilled with it; where guidance_is_cfg, the weight of a second branch.
  std::optional<double> guidance_scale;
  std::optional<double> guidance_scale_2;  // of the steps of a second expert; unset: guidance_scale
  std::optional<double> true_cfg_scale;    // of a second branch beside an embedded guidance_scale
  std::optional<double>
      guidance_rescale;  // share of the guided prediction that is rescaled [Lin et al. 2023]
  std::optional<int> max_sequence_length;  // tokens of a prompt
  // Which evaluations leave blocks of the denoiser out, and how little their input must have changed;
  // unset: none do.
  std::optional<std::string> cache_type;
  std::optional<double> cache_threshold;
  // Adapters in the order in which they are merged, "PATH[:strength][@expert]" (adapters.h), and what
  // their files hold.
  std::optional<std::vector<std::string>> lora, lora_digest;
  std::optional<int> clip_skip;  // last layers of the CLIP encoders left out, for the prompt alone
  // Pixels that the model is told, {height, width} or {top, left}, for either branch; default: the picture's.
  std::optional<std::array<int, 2>> original_size, crops_coords_top_left, target_size;
  std::optional<std::array<int, 2>> negative_original_size, negative_crops_coords_top_left,
      negative_target_size;
  // The file of a picture to begin with, and of one that is white where it is drawn anew.
  std::optional<std::string> image, mask;
  std::optional<double> strength;  // 0 to 1: share of the steps that are run on the picture
  std::optional<uint64_t> seed;    // of this picture: its row's plus sub

  // Of videos. Files are pictures, videos or folders of frames; `image` is the first frame.
  std::optional<int> num_frames;
  std::optional<double> fps;  // frames per second of the file
  std::optional<std::vector<std::string>>
      input_images;  // image and last_image in one; place_pictures empties it
  std::optional<std::string> last_image;
  std::optional<std::vector<std::string>> reference_images;  // what the video is to show
  std::optional<std::string> control_video, mask_video;      // white is drawn anew
  std::optional<std::string>
      conditioning_scale;  // of control_video: a number, or one per control block, with commas

  int partial_images = 0;                 // previews while it is drawn, at equal distances
  std::optional<int> preview_every;       // steps between small ones, each latent a dot; unset or 0: none
  std::optional<int> output_compression;  // quality of JPEG and WebP, 0 to 100; unset: the run's
  bool guidance_is_cfg = false;           // settle_branches: what guidance_scale means to the model
  int64_t index = 0;                      // of its row
  int sub = 0;                            // which of the row's pictures
  // Of what the files hold; empty: not known. Whoever reads them refuses other bytes.
  std::optional<std::string> image_sha256, mask_sha256, last_image_sha256, control_video_sha256,
      mask_video_sha256;
  std::optional<std::vector<std::string>> reference_images_sha256;
  std::string name;   // of the file, relative to the output folder
  std::string where;  // "prompts.jsonl:12"; empty for a prompt of the command line

  void fields(const Visit& visit);
};

bool has_negative(const Request& request);  // a text of the second branch is set
// Requests that are drawn together.
using Requests = std::span<const Request>;

enum class CfgBranch { kPositive, kNegative };
// The weight of classifier-free guidance; 1: there is no second branch.
double cfg_scale(const Request& request);
// 2: classifier-free guidance, with a second branch for the negative prompt.
int branches(const Request& request);
// What this branch tells text encoder number `encoder` (from 0): its own prompt, or else the first one.
const std::string& prompt_of(const Request& request, CfgBranch branch, size_t encoder);
// Empty if a model whose text encoders read this many prompts (1 to 3) reads every one that is given.
std::string prompts_problem(const Request& request, int prompts, std::string_view model);
// The numbers in conditioning_scale; none: unset. Throws Error(kUsage) for what is no finite number.
std::vector<double> conditioning_scales(const Request& request);
// Whether nobody wrote a text for this branch, not even an empty one.
bool is_absent(const Request& request, CfgBranch branch);
// How a run gives requests their second branch.
struct CfgRule {
  bool guidance_is_cfg = false;  // the model's: guidance_scale decides, and nothing below counts
  double scale = 1;              // of requests that have a negative prompt and no scale of their own
  bool for_all = false;          // also of those without a negative prompt
};
// Makes the second branch definite; a scale of at most 1 turns it off, and then no negative prompt is left.
// Where guidance is embedded, scale and negative prompt are both set, or neither. Throws Error(kUsage) for a
// true_cfg_scale that the model has no use for.
void settle_branches(Request& request, const CfgRule& rule);

// Makes the paths of the files that a request is shown absolute; relative ones begin at `folder`.
// input_images become image and last_image. Throws Error(kUsage) for more than two, or where one of them
// is given twice.
void place_pictures(Request& request, const std::filesystem::path& folder);
// What strength means where nobody says.
struct UsualStrength {
  double plain = 0.6, masked = 0.6;
};
// Makes the strength definite: set where there is a picture to begin with, and nowhere else. Throws
// Error(kUsage) for a strength or a mask without one.
void settle_strength(Request& request, const UsualStrength& usual);

// The words of cache_type besides "none".
inline constexpr std::string_view kFirstBlockCache = "first_block_cache", kTeaCache = "teacache";
// Makes the step cache definite: type and threshold are both set, or neither, as for "none". Throws
// Error(kUsage) for a threshold without a type.
void settle_step_cache(Request& request);

// Which of so many previews is due after this step (from 1), counted from 0; none: no preview is. They are at
// equal distances, and the last step leaves the picture itself.
std::optional<int> preview_due(int step, int steps, int previews);
// Whether a request wants to be seen after this step (from 1) of so many.
bool is_previewed(const Request& request, int step, int steps);

// Everything that decides what the output looks like, in one object: the run's share of it (`record`) and the
// request's fields of kLook and kShape that are set. It is the file's metadata, and what ledger and report
// keep.
Json look(const Request& request, const Json& record);

// Requests with equal keys may share a batch: equal fields of kShape, as many branches, with or without a
// text for the second, with or without each of the files that they are shown.
std::string batch_key(const Request& request);
// Throws Error(kUsage) for a batch that cannot be drawn: none, not resolved, or with different keys.
void check_batch(Requests batch);

}  // namespace atelier::request
