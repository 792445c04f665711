// Names by meaning, then by spelling.
#include "base/suggest.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace atelier {
namespace {

// Words that other tools use, and what means the same here; several where surfaces differ. Nothing behind the
// word: there is no such setting, and what is spelled like it has another meaning.
struct Meaning {
  std::string_view words, ours;
};
constexpr Meaning kMeanings[] = {
    {"steps step num_steps sampling_steps sample_steps sample_step inference_steps infer_steps ddim_steps "
     "n_steps iterations",
     "num_inference_steps"},
    {"cfg cfg_scale guidance scale embedded_guidance embedded_guidance_scale embedded_cfg_scale "
     "distilled_cfg distilled_cfg_scale distilled_guidance_scale guide_scale sample_guide_scale text_cfg "
     "unconditional_guidance_scale",
     "guidance_scale"},
    {"true_cfg true_guidance", "true_cfg_scale"},
    {"sampler_name sampler_index sampling_method scheduler sample_method sample_solver solver schedule_type "
     "noise_schedule",
     "sampler"},
    {"shift time_shift sample_shift flow_shift", "scheduler_shift"},
    {"rescale cfg_rescale rescale_cfg", "guidance_rescale"},
    {"negative neg neg_prompt negprompt n_prompt negative_text neg_text uncond unconditional uc",
     "negative_prompt"},
    {"text caption description clip_l positive positive_prompt", "prompt"},
    {"t5_prompt t5xxl clip_g prompt2", "prompt_2"},
    {"batch", "batch_size"},
    {"num_images n_samples num_samples n_iter n_images batch_count num_outputs images n count "
     "num_return_sequences images_per_prompt batch batch_size",
     "num_images_per_prompt"},
    {"random_seed noise_seed manual_seed rng rng_seed base_seed seed_value", "seed"},
    {"w image_width img_width", "width"},
    {"h image_height img_height", "height"},
    {"max_length max_seq_len max_tokens text_len t5_len", "max_sequence_length"},
    {"denoise denoising_strength image_strength img2img_strength denoise_strength", "strength"},
    {"init_image init_img input_image source_image start_image first_frame img", "image"},
    {"last_frame end_frame end_image", "last_image"},
    {"mask_path mask_img inpaint_mask", "mask"},
    {"frames length video_length frame_num frame_count n_frames num_video_frames", "num_frames"},
    {"frame_rate framerate", "fps"},
    {"filename file_name image_path save_as output_name", "output_path"},
    {"model_id model_path ckpt ckpt_dir ckpt_path checkpoint pretrained_model_name_or_path unet",
     "model_name"},
    {"outdir out output output_folder save_path save_dir output_path", "output_dir"},
    {"out outfile output output_file save_path", "output_path"},
    {"prompts prompt_file from_file input_file", "prompts_file"},
    {"precision half no_half fp16 bf16", "torch_dtype"},
    {"gpus ngpus ngpu nproc nproc_per_node world_size num_devices", "num_gpus"},
    {"sp sp_size ulysses ulysses_size", "ulysses_degree"},
    {"ring ring_size cp", "ring_degree"},
    {"gather kv_gather all_gather cp_comm_type", "kv_gather_degree"},
    {"tp tp_size tensor_parallel", "tensor_parallel_degree"},
    {"dp dp_size data_parallel", "data_parallel_degree"},
    {"pp pp_size pipeline_parallel", "pipeline_parallel_size"},
    {"pipefusion", "pipefusion_degree"},
    {"attention attn attn_backend", "attention_backend"},
    {"xformers", "enable_xformers"},
    {"teacache", "use_teacache"},
    {"fp8 fp8_gemm", "use_fp8_gemms"},
    {"offload_model cpu_offload", "offload"},
    {"tiling tile_vae vae_tile", "enable_vae_tiling"},
    {"slicing", "enable_vae_slicing"},
    {"clip_stop_at_last_layers clipskip", "clip_skip"},
    {"format image_format ext extension", "output_format"},
    {"loras adapter adapters lora_name lora_path lora_file lora_weights", "lora"},
    {"lora_strength lora_weight lora_multiplier", "lora_scale"},
    {"sampler vae strength memory lowvram medvram size resolution image_size img_size aspect_ratio task", ""},
};

bool holds(std::string_view words, std::string_view word) {
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find(' ', at), words.size());
    if (words.substr(at, end - at) == word) return true;
    at = end + 1;
  }
  return false;
}

bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

// "numInferenceSteps", "Num-Inference Steps" and "NUM_INFERENCE_STEPS" as "num_inference_steps".
std::string one_spelling(std::string_view name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool begins_word = i > 0 && is_upper(name[i]) && name[i - 1] >= 'a' && name[i - 1] <= 'z';
    if (begins_word) out += '_';
    out += name[i] == '-' || name[i] == ' ' || name[i] == '.' ? '_' : name[i];
  }
  return lower(out);
}

}  // namespace

std::string suggestion(std::string_view name, std::span<const std::string> candidates) {
  const std::string word = one_spelling(name);
  std::vector<std::string> spelled;
  for (const auto& candidate : candidates) spelled.push_back(one_spelling(candidate));
  const auto as_given = [&](const std::string& found) -> std::string {
    const auto at = std::find(spelled.begin(), spelled.end(), found);
    return at == spelled.end() ? "" : candidates[static_cast<size_t>(at - spelled.begin())];
  };
  if (std::string same = as_given(word); !same.empty()) return same;
  bool is_known_elsewhere = false;
  for (const auto& [words, ours] : kMeanings) {
    if (!holds(words, word)) continue;
    is_known_elsewhere = true;
    if (std::find(candidates.begin(), candidates.end(), ours) != candidates.end()) return std::string(ours);
  }
  if (is_known_elsewhere) return {};
  const size_t slips = word.size() < 6 ? 1 : word.size() < 15 ? 2 : 3;
  const auto near = nearest(word, spelled, 1);
  return !near.empty() && edit_distance(word, near.front()) <= slips ? as_given(near.front()) : std::string();
}

std::string did_you_mean(std::string_view name, std::span<const std::string> candidates,
                         std::string_view otherwise) {
  const std::string near = suggestion(name, candidates);
  return near.empty() ? std::string(otherwise) : str("; did you mean ", near, "?");
}

}  // namespace atelier
