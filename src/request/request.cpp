// The list of a request's fields, and what follows from it.
#include "request/request.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/error.h"
#include "base/text.h"
#include "request/file_inputs.h"
#include "request/sampler_names.h"

namespace atelier::request {
namespace {

constexpr double kMostText = 1 << 20;  // bytes
constexpr double kMany = 1e9;
constexpr double kLongestPath = 4096;  // bytes
// The short names of sampling/choice.h.
constexpr std::string_view kSamplers =
    "euler euler_karras euler_exponential euler_beta euler_a heun heun_karras heun_exponential heun_beta "
    "ddim ddpm lcm "
    "dpmpp_2m dpmpp_2m_karras dpmpp_2m_exponential dpmpp_2m_beta dpmpp_2m_sde dpmpp_2m_sde_karras "
    "dpmpp_2m_sde_exponential dpmpp_2m_sde_beta unipc unipc_karras unipc_exponential unipc_beta flow_euler "
    "flow_euler_karras flow_euler_exponential flow_euler_beta flow_heun flow_heun_karras "
    "flow_heun_exponential "
    "flow_heun_beta flow_lcm";

// diffusers' FirstBlockCacheConfig, and the mildest of those that TeaCache was published with for FLUX.
constexpr double kFirstBlockThreshold = 0.05, kTeaThreshold = 0.25;

// What a field decides, and the limits of its values.
Field text(std::string_view name, std::string_view help) {
  return {.name = name, .help = help, .most = kMostText, .effect = Effect::kLook};
}
Field shape(std::string_view name, std::string_view help, double least, double most) {
  return {.name = name, .help = help, .least = least, .most = most, .effect = Effect::kShape};
}

void visit_texts(Request& r, const Visit& visit) {
  visit(text("prompt", "what to draw; wins over --prompts_file"), &r.prompt);
  visit(text("prompt_2", "for the second text encoder; default: the prompt"), &r.prompt_2);
  visit(text("prompt_3", "for the third text encoder; default: the prompt"), &r.prompt_3);
  visit(text("negative_prompt", "what not to draw: turns true guidance on"), &r.negative_prompt);
  visit(text("negative_prompt_2", "for the second text encoder; default: the negative prompt"),
        &r.negative_prompt_2);
  visit(text("negative_prompt_3", "for the third text encoder; default: the negative prompt"),
        &r.negative_prompt_3);
}

// Two numbers that are an input of some models.
Field pixels(std::string_view name, std::string_view help) {
  return shape(name, help, 0, 1 << 20);
}

void visit_told_sizes(Request& r, const Visit& visit) {
  visit(pixels("original_size", "height and width that a photograph had; default: the picture's"),
        &r.original_size);
  visit(pixels("crops_coords_top_left", "top and left of the cut out of it; default: 0 0"),
        &r.crops_coords_top_left);
  visit(pixels("target_size", "height and width that are aimed at; default: the picture's"), &r.target_size);
  visit(pixels("negative_original_size",
               "for the negative branch; counts beside negative_target_size, or with an image"),
        &r.negative_original_size);
  visit(pixels("negative_crops_coords_top_left",
               "for the negative branch; default: 0 0, with an image the other branch's"),
        &r.negative_crops_coords_top_left);
  visit(pixels("negative_target_size",
               "for the negative branch; counts beside negative_original_size, or with an image"),
        &r.negative_target_size);
}

void visit_step_cache(Request& r, const Visit& visit) {
  visit({.name = "cache_type",
         .help =
             "steps that change little take what the denoiser's blocks added in an earlier one: by the first "
             "block, or by TeaCache; default: none",
         .choices = "none first_block_cache teacache",
         .effect = Effect::kShape},
        &r.cache_type);
  visit(shape("cache_threshold",
              "the largest change that counts as little, 0: no step does; default: 0.05, for teacache 0.25",
              0, 100),
        &r.cache_threshold);
}

// To begin with.
void visit_pictures(Request& r, const Visit& visit) {
  visit({.name = "image",
         .help = "a PNG, JPEG or WebP to begin with instead of noise, or the first frame of a video; rows: "
                 "relative to their file",
         .aliases = "img_file_path",
         .most = kLongestPath},
        &r.image);
  visit({.name = "mask",
         .help = "a picture that is white where --image is drawn anew; black stays as it is",
         .aliases = "mask_image",
         .most = kLongestPath},
        &r.mask);
  visit(shape("strength", "0 to 1: share of the steps that are run on --image; default: the model's", 0, 1),
        &r.strength);
  visit({.name = "image_sha256", .effect = Effect::kLook}, &r.image_sha256);
  visit({.name = "mask_sha256", .effect = Effect::kLook}, &r.mask_sha256);
}

Field shown(std::string_view name, std::string_view help, std::string_view aliases = "") {
  return {.name = name, .help = help, .aliases = aliases, .most = kLongestPath};
}

void visit_video(Request& r, const Visit& visit) {
  visit(shape("num_frames", "frames of a video, for many models 4k + 1; default: the model's", 1, 1e5),
        &r.num_frames);
  visit({.name = "fps",
         .help = "frames per second of the file; default: the model's",
         .least = 0.01,
         .most = 1000,
         .effect = Effect::kLook},
        &r.fps);
  visit(shown("input_images", "one or two pictures: the first frame of a video, and its last"),
        &r.input_images);
  visit(shown("last_image", "the last frame of a video"), &r.last_image);
  visit(shown("reference_images", "pictures of what a video is to show", "reference"), &r.reference_images);
  visit(shown("control_video", "a video, animation or folder of frames that the new one follows"),
        &r.control_video);
  visit(shown("mask_video", "one that is white where --control_video is drawn anew"), &r.mask_video);
  visit(shape("conditioning_scale", "of --control_video: a number, or one for each control block with commas",
              -kNoLimit, kMostText),
        &r.conditioning_scale);
  visit({.name = "last_image_sha256", .effect = Effect::kLook}, &r.last_image_sha256);
  visit({.name = "reference_images_sha256", .effect = Effect::kLook}, &r.reference_images_sha256);
  visit({.name = "control_video_sha256", .effect = Effect::kLook}, &r.control_video_sha256);
  visit({.name = "mask_video_sha256", .effect = Effect::kLook}, &r.mask_video_sha256);
}

// How it is seen and stored.
void visit_delivery(Request& r, const Visit& visit) {
  visit({.name = "preview_every",
         .help = "small pictures of what comes after every so many steps, in previews/; default: none",
         .least = 0,
         .most = 10000},
        &r.preview_every);
  visit({.name = "partial_images", .surfaces = 0, .least = 0, .most = 100}, &r.partial_images);
  visit({.name = "output_compression", .surfaces = 0, .least = 0, .most = 100}, &r.output_compression);
}

// The program's own: where it comes from.
void visit_own(Request& r, const Visit& visit) {
  visit({.name = "guidance_is_cfg"}, &r.guidance_is_cfg);
  visit({.name = "index", .least = 0}, &r.index);
  visit({.name = "sub", .least = 0}, &r.sub);
  visit({.name = "name"}, &r.name);
  visit({.name = "where"}, &r.where);
}

// The first of two files in one list, or the last.
void take_listed(std::optional<std::string>& place, const std::string& file, std::string_view name) {
  if (place)
    throw Error(Kind::kUsage, str("input_images and ", name, " both name a picture: give one of them"));
  place = file;
}

void visit_guidance(Request& r, const Visit& visit) {
  visit(shape("guidance_scale", "how closely to follow the prompt; default: the model's", 0, kMany),
        &r.guidance_scale);
  visit(shape("guidance_scale_2", "of the steps of a second, low-noise expert; default: guidance_scale", 0,
              kMany),
        &r.guidance_scale_2);
  visit(shape("true_cfg_scale", "scale of a negative branch for models with distilled guidance; 1: off", 1,
              kMany),
        &r.true_cfg_scale);
  visit(shape("guidance_rescale", "0 to 1: how much over-exposure by strong guidance is taken back", 0, 1),
        &r.guidance_rescale);
}

}  // namespace

void Request::fields(const Visit& visit) {
  visit_texts(*this, visit);
  visit(shape("height", "pixels; default: the model's", 1, 65536), &height);
  visit(shape("width", "pixels; default: the model's", 1, 65536), &width);
  visit(shape("num_inference_steps", "denoising steps; default: the model's", 1, 10000),
        &num_inference_steps);
  visit({.name = "sampler",
         .help = "instead of the one that the model's folder asks for",
         .choices = kSamplers,
         .effect = Effect::kShape,
         .choice_of = sampler_named},
        &sampler);
  visit({.name = "scheduler_shift",
         .help = "shift of flow matching; default: the model's, fixed or by size",
         .aliases = "flow_shift",
         .least = 1e-3,
         .most = 1e3,
         .effect = Effect::kShape},
        &scheduler_shift);
  visit(shape("sigmas", "noise of each step, numbers with commas, as diffusers takes them", -kNoLimit,
              kMostText),
        &sigmas);
  visit(shape("timesteps", "of each step, numbers with commas", -kNoLimit, kMostText), &timesteps);
  visit(shape("eta", "0 to 1: share of noise that ddim draws anew in each step", 0, 1), &eta);
  visit_guidance(*this, visit);
  visit(shape("max_sequence_length", "tokens of a prompt; default: the model's", 1, 1e6),
        &max_sequence_length);
  visit_step_cache(*this, visit);
  visit({.name = "lora",
         .help = "LoRA or DoRA files or folders, PATH[:strength][@expert]; several in their order",
         .aliases = "lora_path lora_weights dora_weights",
         .most = kMostText,
         .effect = Effect::kShape},
        &lora);
  visit({.name = "lora_digest", .surfaces = 0, .most = kMostText, .effect = Effect::kShape}, &lora_digest);
  visit(shape("clip_skip",
              "last layers of the CLIP text encoders to leave out, besides those that always are", 0, 1000),
        &clip_skip);
  visit_told_sizes(*this, visit);
  visit_pictures(*this, visit);
  visit_video(*this, visit);
  visit({.name = "seed",
         .help = "of every prompt's first picture; default and -1: random, recorded (run: 42)",
         .effect = Effect::kLook,
         .unset = "-1"},
        &seed);
  visit_delivery(*this, visit);
  visit_own(*this, visit);
}

bool has_negative(const Request& r) {
  return r.negative_prompt || r.negative_prompt_2 || r.negative_prompt_3;
}

double cfg_scale(const Request& r) {
  const double scale = r.guidance_is_cfg   ? r.guidance_scale.value_or(1)
                       : r.negative_prompt ? r.true_cfg_scale.value_or(1)
                                           : 1;
  return std::max(scale, 1.0);
}

int branches(const Request& request) {
  return cfg_scale(request) > 1 ? 2 : 1;
}

std::vector<double> conditioning_scales(const Request& r) {
  std::vector<double> out;
  for (const auto& word : words_of(r.conditioning_scale.value_or(""))) {
    const auto number = to_number(word);
    if (!number || !std::isfinite(*number))
      throw Error(Kind::kUsage, str("conditioning_scale must be numbers with commas, found \"", word, '"'));
    out.push_back(*number);
  }
  return out;
}

std::string prompts_problem(const Request& r, int prompts, std::string_view model) {
  const std::tuple<int, const char*, bool> asked[] = {
      {2, "prompt_2", r.prompt_2.has_value()},
      {2, "negative_prompt_2", r.negative_prompt_2.has_value()},
      {3, "prompt_3", r.prompt_3.has_value()},
      {3, "negative_prompt_3", r.negative_prompt_3.has_value()}};
  for (const auto& [number, name, is_asked] : asked) {
    if (is_asked && number > prompts)
      return str(name, " was given; the text encoders of ", model, " read ",
                 prompts == 1 ? "prompt alone" : "prompt and prompt_2");
  }
  return {};
}

const std::string& prompt_of(const Request& r, CfgBranch branch, size_t encoder) {
  static const std::string none;
  const bool is_negative = branch == CfgBranch::kNegative;
  const auto& second = is_negative ? r.negative_prompt_2 : r.prompt_2;
  const auto& third = is_negative ? r.negative_prompt_3 : r.prompt_3;
  if (encoder == 1 && second) return *second;
  if (encoder == 2 && third) return *third;
  if (!is_negative) return r.prompt;
  return r.negative_prompt ? *r.negative_prompt : none;
}

bool is_absent(const Request& r, CfgBranch branch) {
  return branch == CfgBranch::kNegative && !r.negative_prompt;
}

// A further prompt without a character is none, as in diffusers' pipelines (prompt_2 or prompt).
void settle_branches(Request& r, const CfgRule& rule) {
  for (auto* further : {&r.prompt_2, &r.prompt_3, &r.negative_prompt_2, &r.negative_prompt_3}) {
    if (*further && (*further)->empty()) further->reset();
  }
  r.guidance_is_cfg = rule.guidance_is_cfg;
  if (r.guidance_is_cfg) {
    if (r.true_cfg_scale)
      throw Error(Kind::kUsage,
                  str("true_cfg_scale ", *r.true_cfg_scale, " was asked for, but this model is guided by ",
                      "guidance_scale: give that one alone"));
  } else {
    if (!r.true_cfg_scale && (has_negative(r) || rule.for_all)) r.true_cfg_scale = rule.scale;
    if (r.true_cfg_scale.value_or(1) <= 1) r.true_cfg_scale.reset();
    if (r.true_cfg_scale && !r.negative_prompt) r.negative_prompt.emplace();
  }
  if (branches(r) == 2) return;
  for (auto* negative : {&r.negative_prompt, &r.negative_prompt_2, &r.negative_prompt_3}) negative->reset();
}

void place_pictures(Request& r, const std::filesystem::path& folder) {
  const auto place = [&](std::string& file) {
    if (!file.empty()) file = std::filesystem::absolute(folder / file).lexically_normal().string();
  };
  if (r.input_images) {
    const auto files = std::move(*r.input_images);
    r.input_images.reset();
    if (files.size() > 2)
      throw Error(Kind::kUsage, str("input_images names ", files.size(),
                                    " pictures; a first and a last one can be shown to a model"));
    if (!files.empty()) take_listed(r.image, files[0], "image");
    if (files.size() == 2) take_listed(r.last_image, files[1], "last_image");
  }
  for (const auto& input : kFileInputs) {
    if (r.*input.file) place(*(r.*input.file));
  }
  if (!r.reference_images) return;
  for (auto& file : *r.reference_images) place(file);
}

void settle_strength(Request& r, const UsualStrength& usual) {
  for (const auto& [name, is_set] :
       {std::pair{"strength", r.strength.has_value()}, {"mask", r.mask.has_value()}}) {
    if (is_set && !r.image)
      throw Error(Kind::kUsage, str("a ", name, " was given, but no image that it applies to"));
  }
  if (r.image && !r.strength) r.strength = r.mask ? usual.masked : usual.plain;
}

void settle_step_cache(Request& r) {
  if (r.cache_type == "none") r.cache_type.reset(), r.cache_threshold.reset();
  if (!r.cache_type && r.cache_threshold)
    throw Error(Kind::kUsage,
                str("cache_threshold ", *r.cache_threshold,
                    " was given, but no cache_type that it applies to: first_block_cache or teacache"));
  if (r.cache_type && !r.cache_threshold)
    r.cache_threshold = r.cache_type == kTeaCache ? kTeaThreshold : kFirstBlockThreshold;
}

bool is_previewed(const Request& r, int step, int steps) {
  const int every = r.preview_every.value_or(0);
  return preview_due(step, steps, r.partial_images) || (every > 0 && step < steps && step % every == 0);
}

std::optional<int> preview_due(int step, int steps, int previews) {
  for (int i = 1; i <= previews && step < steps; ++i) {
    if (step == std::max(1, steps * i / (previews + 1))) return i - 1;
  }
  return std::nullopt;
}

Json look(const Request& request, const Json& record) {
  Json out = record.is_object() ? record : Json::object();
  fields_of(request)([&](const Field& field, const FieldRef& slot) {
    if (field.effect == Effect::kPlace) return;
    if (Json value = json_of(slot); !value.is_null()) out[std::string(field.name)] = std::move(value);
  });
  return out;
}

std::string batch_key(const Request& request) {
  Json key = Json::array({branches(request), request.negative_prompt.has_value()});
  for (const auto& input : kFileInputs) key.push_back((request.*input.file).has_value());
  key.push_back(request.reference_images ? request.reference_images->size() : 0);
  fields_of(request)([&](const Field& field, const FieldRef& slot) {
    if (field.effect == Effect::kShape) key.push_back(json_of(slot));
  });
  return key.dump();
}

void check_batch(Requests batch) {
  if (batch.empty()) throw Error(Kind::kUsage, "a batch holds no request");
  const std::string key = batch_key(batch.front());
  for (const Request& r : batch) {
    if (!r.height || !r.width || !r.num_inference_steps || !r.guidance_scale || !r.max_sequence_length ||
        !r.seed)
      throw Error(Kind::kUsage, str(r.name, ": size, steps, guidance, text length or seed is not resolved"));
    const bool begins = r.image && !r.num_frames;  // of a video it is the first frame
    if ((begins || r.mask) && !(r.image && r.strength))
      throw Error(Kind::kUsage, str(r.name, ": its picture or strength is not resolved"));
    if (batch_key(r) != key)
      throw Error(Kind::kUsage, str(r.name, " and ", batch.front().name, " do not fit into one batch"));
  }
}

}  // namespace atelier::request
