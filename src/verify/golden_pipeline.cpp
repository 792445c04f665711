// Repeats the call of a pipeline and names what was recorded on the way as golden folders do.
#include "verify/golden_pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/vae.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/known_inputs.h"
#include "pipeline/model_repo.h"
#include "pipeline/request_sampler.h"
#include "verify/requests.h"
#include "verify/thread_ranks.h"

namespace atelier::verify {
namespace {

struct Repeated {
  std::vector<request::Request> batch;
  pipeline::GivenNoise noise;
  models::Grid grid;
  int64_t each = 1;  // pictures of one prompt
};

// Of the start and of the steps that drew some.
pipeline::GivenNoise noise_of(const Tensors& recorded) {
  const auto initial = recorded.find("noise"), steps = recorded.find("timesteps");
  if (initial == recorded.end()) throw Error(Kind::kUsage, "golden.safetensors holds no tensor named noise");
  pipeline::GivenNoise noise{.initial = initial->second};
  if (const auto of = recorded.find("image.noise"); of != recorded.end()) noise.picture = of->second;
  for (int64_t i = 0; steps != recorded.end() && i < steps->second.size(0); ++i) {
    const auto drawn = recorded.find(str("step", i, ".sched_noise"));
    noise.steps.push_back(drawn == recorded.end() ? at::Tensor() : drawn->second);
  }
  return noise;
}

// Of a call that does not say, by the pipeline of the reference that it is of; nothing: the model's own.
std::optional<double> usual_guidance(const pipeline::ModelRepo& folder, const Json& call) {
  const auto& family = folder.family();
  const auto& edits = family.image_to_image;
  const auto has = [&](const char* name) { return !call.value(name, Json()).is_null(); };
  if (has("image") && !folder.draws_videos())
    return has("mask") || has("mask_image") ? edits.masked_guidance : edits.guidance;
  if (family.call_guidance > 0) return family.call_guidance;
  return std::nullopt;
}

// The reference rounds sizes that a model cannot have down, and others to the nearest entry of a table where
// the call lets it: the noise has the size that was drawn, `drawn`.
int rounded(int asked, int drawn, int64_t spatial, const Json& call) {
  constexpr int64_t kCells = 2;  // latents along a token
  const bool is_cut = asked > drawn && asked < drawn + kCells * spatial;
  return is_cut || call.value(kRounds, Json()) == Json(true) ? drawn : asked;
}

// The picture that was asked for of one that was decoded in a rounded size, [B, 3, H, W], pixels in [-1, 1]:
// stretched until it covers it, the rest cut off evenly (diffusers' resize_and_crop_tensor).
at::Tensor fitted(const at::Tensor& decoded, at::IntArrayRef sizes) {
  const int64_t rows = decoded.size(2), cols = decoded.size(3), height = sizes[2], width = sizes[3];
  const double ratio = std::max(static_cast<double>(height) / static_cast<double>(rows),
                                static_cast<double>(width) / static_cast<double>(cols));
  const auto scaled = [&](int64_t n) { return static_cast<int64_t>(static_cast<double>(n) * ratio); };
  const auto large = at::upsample_bilinear2d(decoded, {scaled(rows), scaled(cols)}, /*align_corners=*/false);
  const auto cut =
      large.narrow(2, (scaled(rows) - height) / 2, height).narrow(3, (scaled(cols) - width) / 2, width);
  return (cut * 0.5 + 0.5).clamp(0, 1);
}

// The defaults are those of the reference's call, or what the recording shows.
Repeated repeat_call(const pipeline::ModelRepo& folder, const Json& call, const Tensors& recorded,
                     const std::filesystem::path& files) {
  auto noise = noise_of(recorded);
  if (noise.initial.dim() != (folder.draws_videos() ? 5 : 4)) {
    throw Error(Kind::kUsage, atelier::str("golden.safetensors: noise is ", noise.initial.sizes(),
                                           ", not [B, C, ", folder.draws_videos() ? "F, H, W]" : "H, W]"));
  }
  const auto facts = models::find_vae(folder.vae()).facts(folder.vae());
  const int64_t spatial = facts.spatial;
  auto usual = usual_request(folder);
  usual.height = static_cast<int>(noise.initial.size(-2) * spatial);
  usual.width = static_cast<int>(noise.initial.size(-1) * spatial);
  const auto references = static_cast<int64_t>(call.value("reference_images", Json::array()).size());
  if (folder.draws_videos())
    usual.num_frames = static_cast<int>((noise.initial.size(2) - references - 1) * facts.temporal + 1);
  if (!noise.steps.empty()) usual.num_inference_steps = static_cast<int>(noise.steps.size());
  const auto& family = folder.family();
  usual.max_sequence_length =
      static_cast<int>(family.call_text_tokens > 0 ? family.call_text_tokens : family.most_text_tokens);
  usual.guidance_scale = usual_guidance(folder, call).value_or(*usual.guidance_scale);
  Repeated out{.batch = requests_of(call, usual, "golden.json: the call",
                                    {.folder = files, .usual = pipeline::usual_strength(family)}),
               .noise = std::move(noise)};
  out.each = outputs_per_prompt(call);
  for (auto& request : out.batch) {
    auto asked = request;  // a length that the call does not say is the reference's, not asked for
    if (!call.contains("max_sequence_length")) asked.max_sequence_length.reset();
    if (const auto problem = pipeline::texts_problem(asked, folder); !problem.empty())
      throw Error(Kind::kUsage, "golden.json: the call: " + problem);
    if (const auto problem = pipeline::size_inputs_problem(asked, family); !problem.empty())
      throw Error(Kind::kUsage, "golden.json: the call: " + problem);
    request.height = rounded(*request.height, *usual.height, spatial, call);
    request.width = rounded(*request.width, *usual.width, spatial, call);
  }
  const auto& r = out.batch.front();
  out.grid = folder.grid(*r.height, *r.width, r.num_frames.value_or(1), references);
  for (auto& drawn : out.noise.steps) {  // by a scheduler whose latents are tokens
    if (drawn.defined() && drawn.dim() < out.noise.initial.dim())
      drawn = family.unpack(drawn.transpose(0, 1), out.grid);
  }
  const auto sizes = out.grid.latent(std::ssize(out.batch));
  if (out.noise.initial.sizes() != at::IntArrayRef(sizes)) {
    throw Error(Kind::kUsage, atelier::str("golden.safetensors: noise is ", out.noise.initial.sizes(),
                                           ", but the call of golden.json makes ", at::IntArrayRef(sizes)));
  }
  return out;
}

// Modules of the second branch end in @1, before the place of a part in what they give; other tensors in .1.
// Videos have a name of their own. The encoders may be numbered where they have no names:
// input_ids, input_ids_2.
std::string golden_name(const pipeline::Probe& p, const Tensors& recorded) {
  constexpr std::string_view named = ".text_encoder";
  if (const size_t at = p.name.find(named); at != std::string::npos && !recorded.contains(p.name)) {
    const auto numbered = std::string(p.name).erase(at, named.size());
    return recorded.contains(numbered) ? numbered : p.name;
  }
  if (p.name == "image" && p.value.dim() == 5) return "video";
  if (p.branch == 0) return p.name;
  if (!p.name.starts_with("block.")) return str(p.name, ".", p.branch);
  const auto whole = str(p.name, "@", p.branch);
  const size_t dot = p.name.rfind('.');
  const auto part = str(p.name.substr(0, dot), "@", p.branch, p.name.substr(dot));
  return recorded.contains(part) && !recorded.contains(whole) ? part : whole;
}

// Whether the reference keeps latents as tokens between steps, or as pictures.
bool are_latents_packed(const Tensors& recorded, const models::Grid& grid) {
  const auto latents = recorded.find("step0.latents");
  return latents == recorded.end() || latents->second.dim() != std::ssize(grid.latent(1));
}

// Cells as tokens [B, n, C] -> [B, C, rows, W] or [B, C, frames, rows, W], the form of `like`, and one number
// for each token without an axis for it, or one for all tokens; anything else stays.
at::Tensor as_picture(const at::Tensor& value, const at::Tensor& like) {
  const bool is_of_all =
      value.dim() == 2 && like.dim() == 3 && value.size(0) == like.size(0) && value.size(1) == like.size(2);
  if (is_of_all) return value.unsqueeze(1).expand_as(like);  // one for all tokens
  if (value.dim() != 3) return value;
  if (like.dim() == 2 && value.size(2) == 1 && value.size(1) == like.size(1)) return value.squeeze(2);
  const bool are_cells = like.dim() > 3 && value.size(0) == like.size(0) && value.size(2) == like.size(1) &&
                         value.numel() == like.numel();
  return are_cells ? value.transpose(1, 2).reshape(like.sizes()) : value;
}

// What follows from the time, for tokens of a first frame that is given and for the others [B, 2, C] ->
// for every token.
at::Tensor of_two_times(const at::Tensor& value, const at::Tensor& like, int64_t frames) {
  if (value.dim() != 3 || value.size(1) != 2 || like.dim() != 3 || like.size(1) % frames != 0) return value;
  const int64_t first = like.size(1) / frames;
  const auto times = [&](int64_t i, int64_t count) { return value.narrow(1, i, 1).expand({-1, count, -1}); };
  return at::cat({times(0, first), times(1, like.size(1) - first)}, 1);
}

// What a recording calls pictures that the model was shown and latents that it was given. Of a control the
// first channels are latents, the others its mask.
void add_shown(const pipeline::Probe& probe, const Tensors& recorded, Produced& out) {
  const auto name_ending = [&](std::string_view end) {
    const auto found = std::find_if(recorded.begin(), recorded.end(), [&](const auto& t) {
      return t.first.ends_with(end) && !t.first.starts_with("prompt.") && !t.first.starts_with("negative.");
    });
    return found == recorded.end() ? recorded.end() : found;
  };
  const auto add = [&](std::string_view end, const at::Tensor& value) {
    if (const auto found = name_ending(end); found != recorded.end()) out.add(found->first, value);
  };
  if (probe.name == "shown.image") add(".vae_input", probe.value);
  if (probe.name == "shown.last_image") add(".vae_input_last", probe.value);
  if (probe.name == "shown.mask") add(".mask", probe.value.narrow(1, 0, 1));
  if (probe.name == "shown.references") add(".reference", probe.value[0][0]);
  if (probe.name == "given.channels") {
    add("image.condition", probe.value);
    add("control_latents", probe.value);
  }
  if (probe.name != "given.control") return;
  const auto latents = name_ending(".video_latents");
  if (latents == recorded.end() || latents->second.size(1) > probe.value.size(1)) return;
  const int64_t channels = latents->second.size(1);
  add(".video_latents", probe.value.narrow(1, 0, channels));
  add(".mask_latents", probe.value.narrow(1, channels, probe.value.size(1) - channels));
}

// Latents as pictures, as tokens [B, n, c] where they were recorded so; anything else stays.
at::Tensor as_tokens(const models::Family& family, const at::Tensor& value, const Tensors& recorded,
                     const std::string& name) {
  const auto found = recorded.find(name);
  const bool packs =
      name == "latents.final" && found != recorded.end() && found->second.dim() == 3 && value.dim() > 3;
  return packs ? family.pack(value).transpose(0, 1) : value;
}

// Whether one row, [1, ...], stands for all of a batch.
bool is_shared_row(const at::Tensor& value, int64_t want) {
  return want == 1 && value.size(0) > 1 && at::equal(value, value.narrow(0, 0, 1).expand_as(value));
}

// Forms in which the reference may have recorded the same: what its encoders did once per prompt, where
// several pictures share one, or once for all prompts; both branches in one call, whose first half is the
// negative one; and pictures.
void take_form_of(const Tensors& recorded, int64_t each, int64_t frames, Produced& ours) {
  for (auto& [name, value] : ours.tensors) {
    const auto found = recorded.find(name);
    if (found == recorded.end() || value.dim() == 0 || found->second.dim() == 0) continue;
    const int64_t have = value.size(0), want = found->second.size(0);
    const auto other = ours.tensors.find(name + (name.starts_with("block.") ? "@1" : ".1"));
    if (want == 2 * have && other != ours.tensors.end())
      value = at::cat({other->second, value});
    else if (each > 1 && have == each * want)
      value = value.slice(0, 0, std::nullopt, each);
    else if (is_shared_row(value, want))
      value = value.narrow(0, 0, 1);
    if (frames > 0 && name.find(".condition_embedder.") != std::string::npos)
      value = of_two_times(value, found->second, frames);
    value = as_picture(value, found->second);
  }
}

// Adapters are named within the folder of goldens.
void name_from(const std::filesystem::path& folder, request::Request& request) {
  if (!request.lora) return;
  for (auto& text : *request.lora) {
    auto ref = request::adapter_ref(text);
    ref.path = (folder / ref.path).string();
    text = to_string(ref);
  }
}

// Weights beside the model's folder, in another naming than the one it would have.
std::vector<std::filesystem::path> loose_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors" && entry.path().filename() != "golden.safetensors")
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A run that begins with a picture leaves steps out, which the reference's schedule still has.
void take_left_out_steps_of(const Tensors& recorded, Produced& ours) {
  for (const char* name : {"timesteps", "sigmas"}) {
    const auto mine = ours.tensors.find(name);
    const auto found = recorded.find(name);
    if (mine == ours.tensors.end() || found == recorded.end()) continue;
    const int64_t left_out = found->second.size(0) - mine->second.size(0);
    if (left_out > 0) mine->second = at::cat({found->second.narrow(0, 0, left_out), mine->second});
  }
}

}  // namespace

Produced produce_pipeline(const VerifyOptions& o, const Json& call, const Tensors& recorded) {
  const c10::InferenceMode guard;
  const auto folder = pipeline::ModelRepo::open(o.folder / "model", loose_files(o.folder));
  folder.check();
  auto repeated = repeat_call(folder, call, recorded, o.folder);
  for (auto& request : repeated.batch) name_from(o.folder, request);
  pipeline::LoadOptions load;
  load.device = o.device;
  load.denoiser = o.denoiser;
  load.tier = o.tier;
  load.attention_dtype = o.attention_dtype;
  pipeline::ActivationRecorder recorder;
  generate_on_ranks(folder, o.degrees, load, repeated.batch, &recorder, repeated.noise);
  Produced out;
  const bool are_packed = are_latents_packed(recorded, repeated.grid);
  for (const auto& probe : recorder.probes()) {
    const bool unpacks = !are_packed && probe.name.starts_with("step") && probe.value.dim() == 3 &&
                         !probe.name.ends_with(".timestep");
    const auto name = golden_name(probe, recorded);
    if (name.starts_with("shown.") || name.starts_with("given.")) {
      add_shown(probe, recorded, out);
      continue;
    }
    if (name == "video") {
      out.add(name, probe.value.transpose(1, 2));  // frames before channels
      continue;
    }
    out.add(name, unpacks ? folder.family().unpack(probe.value.transpose(0, 1), repeated.grid)
                          : as_tokens(folder.family(), probe.value, recorded, name));
  }
  if (const auto t = out.tensors.find("timesteps"); t != out.tensors.end())
    out.add("model_timesteps", t->second / (1 / folder.family().pipeline_time_scale));
  if (repeated.batch.front().image) take_left_out_steps_of(recorded, out);
  const auto image = recorded.find("image");
  const bool is_fitted =
      image != recorded.end() && out.tensors.contains("vae.out") && image->second.dim() == 4 &&
      image->second.sizes() != out.tensors.at("vae.out").sizes() && call.value(kRounds, Json()) == Json(true);
  if (is_fitted) out.add("image", fitted(out.tensors.at("vae.out"), image->second.sizes()));
  take_form_of(recorded, repeated.each, repeated.grid.latent_frames, out);
  return out;
}

}  // namespace atelier::verify
