// The table of settings that this build refuses or only notes.
#include "app/compat/unsupported.h"

#include <algorithm>

#include "app/settings/settings.h"

namespace atelier::app {
namespace {

constexpr std::string_view kOffload = "is not in this build: the weights stay on their device";
constexpr std::string_view kCache = "is not in this build: every step computes every block";
constexpr std::string_view kStorage = "is not in this build: weights are float32, bfloat16 or float16";
constexpr std::string_view kVideo = "is for video: no family of this build draws any";
constexpr std::string_view kPictures = "is not in this build: no family of it takes input pictures";
constexpr std::string_view kTrace = "is not in this build: report.json holds the times of phases and steps";
constexpr std::string_view kNotOffered = "is not offered";
constexpr std::string_view kRemote = "is for remote services: no effect";
constexpr std::string_view kShard = "is not in this build: use --fully_shard_degree";

constexpr UnsupportedSetting kLater[] = {
    {"offload", Takes::kValue, "none", kOffload, Treated::kRefused, "", "none model sequential group"},
    {"enable_cpu_offload", Takes::kSwitch, "", kOffload, Treated::kRefused, "enable_model_cpu_offload"},
    {"enable_sequential_cpu_offload", Takes::kSwitch, "", kOffload},
    {"enable_group_offloading", Takes::kSwitch, "", kOffload},
    {"enable_layerwise_casting", Takes::kSwitch, "", kStorage},
    {"enable_fuse_qkv", Takes::kSwitch, "", "has no effect: q, k and v are always one product",
     Treated::kNoted},
    {"cache_type", Takes::kValue, "none", kCache, Treated::kRefused, "",
     "none deep_cache first_block_cache pab faster_cache cache_dit taylor_seer"},
    {"use_teacache", Takes::kSwitch, "", kCache},
    {"use_fbcache", Takes::kSwitch, "", kCache},
    {"use_fp8_t5_encoder", Takes::kSwitch, "", kStorage},
    {"use_fp8_gemms", Takes::kSwitch, "", kStorage},
    {"use_int8_gemms", Takes::kSwitch, "", kStorage},
    {"use_fp4_gemms", Takes::kSwitch, "", kStorage},
    {"fp8_precision_override_prefix_patterns", Takes::kValue, "", kStorage, Treated::kRefused, "", "", kRun},
    {"fp8_precision_override_suffix_patterns", Takes::kValue, "", kStorage, Treated::kRefused, "", "", kRun},
    {"shard_t5_encoder", Takes::kSwitch, "", "is not in this build: the encoders run whole on one rank"},
    {"use_fsdp", Takes::kSwitch, "", kShard, Treated::kRefused, "", "", kRun},
    {"no_reshard_after_forward", Takes::kSwitch, "", kShard, Treated::kRefused, "", "", kRun},
    {"memory_efficient_sharding", Takes::kSwitch, "",
     "has no effect: every rank reads only its part of the weights", Treated::kNoted, "", "", kRun},
    {"gpu_memory_fraction", Takes::kValue, "1.0", "is not in this build: a GPU's memory cannot be capped",
     Treated::kRefused, "", "", 0},
    {"enable_activation_checkpointing", Takes::kSwitch, "",
     "is not in this build: there is no chunked forward", Treated::kRefused, "", "", 0},
    {"enable_gradient_checkpointing", Takes::kSwitch, "", "has no effect: nothing is trained",
     Treated::kNoted, "", "", 0},
    {"api_max_retries", Takes::kValue, "", kRemote, Treated::kNoted},
    {"retry_delay", Takes::kValue, "", kRemote, Treated::kNoted},
    {"max_global_workers", Takes::kValue, "", kRemote, Treated::kNoted},
    {"num_processes", Takes::kValue, "", kRemote, Treated::kNoted},
    {"dit_parallel_size", Takes::kValue, "0", "has no effect: the ranks are the product of the degrees",
     Treated::kNoted, "", "", kRun},
    {"vae_parallel_size", Takes::kValue, "0", "has no effect: --use_parallel_vae reuses the ranks",
     Treated::kNoted, "", "", kRun},
    {"split_scheme", Takes::kValue, "row", "has no effect: every layer says itself how it is cut",
     Treated::kNoted, "", "", kRun},
    {"no_use_resolution_binning", Takes::kSwitch, "", "has no effect: sizes are taken as asked",
     Treated::kNoted, "", "", kRun},
    {"output_type", Takes::kValue, "pil", "can only be pil: pictures are written as files (--output_format)",
     Treated::kRefused, "", "", kRun},
    {"trust_remote_code", Takes::kSwitch, "", "is refused: code from model repositories is never run"},
    {"num_frames", Takes::kValue, "1", kVideo, Treated::kRefused, "", "", kRun},
    {"flow_shift", Takes::kValue, "", kVideo, Treated::kRefused, "", "", kRun},
    {"guidance_scale_2", Takes::kValue, "", kVideo, Treated::kRefused, "", "", kRun},
    {"img_file_path", Takes::kValue, "", kPictures, Treated::kRefused, "", "", kRun},
    {"input_images", Takes::kList, "", kPictures, Treated::kRefused, "", "", kRun},
    {"resize_input_images", Takes::kSwitch, "", kPictures, Treated::kRefused, "", "", kRun},
    {"task", Takes::kValue, "", "is not in this build: its families have one task", Treated::kRefused, "", "",
     kRun},
    {"profile", Takes::kSwitch, "", kTrace, Treated::kRefused, "", "", kRun},
    {"profile_wait", Takes::kValue, "2", kTrace, Treated::kRefused, "", "", kRun},
    {"profile_warmup", Takes::kValue, "2", kTrace, Treated::kRefused, "", "", kRun},
    {"profile_active", Takes::kValue, "1", kTrace, Treated::kRefused, "", "", kRun},
    {"cross_attention_backend", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_vae_channels_last_format", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_onediff", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_ray", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"ray_world_size", Takes::kValue, "1", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_fast_attn", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"n_calib", Takes::kValue, "8", kNotOffered, Treated::kRefused, "", "", kRun},
    {"threshold", Takes::kValue, "0.5", kNotOffered, Treated::kRefused, "", "", kRun},
    {"window_size", Takes::kValue, "64", kNotOffered, Treated::kRefused, "", "", kRun},
    {"coco_path", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_cache", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"wan_teacache_thresh", Takes::kValue, "0.2", kNotOffered, Treated::kRefused, "", "", kRun},
    {"wan_teacache_use_ret_steps", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_hybrid_attn_schedule", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"hybrid_attn_low_precision_backend", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"hybrid_attn_high_precision_backend", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"num_hybrid_attn_high_precision_steps", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"hybrid_attn_schedule", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_hybrid_gemm_schedule", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"num_hybrid_gemm_high_precision_steps", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_ssta_sparse_text_to_image", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"spargeattn_simthreshold", Takes::kValue, "0.3", kNotOffered, Treated::kRefused, "", "", kRun},
    {"spargeattn_cdfthreshold", Takes::kValue, "0.92", kNotOffered, Treated::kRefused, "", "", kRun},
    {"spargeattn_reorder_sequence", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_spargeattn_static_block_mask", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_spargeattn_head_balance", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_block_size", Takes::kValue, "128", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_top_k", Takes::kValue, "1", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_top_k_ratio", Takes::kValue, "0.0", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_drop_rates", Takes::kList, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_calls_per_step", Takes::kValue, "2", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_prob_threshold", Takes::kValue, "0.9", kNotOffered, Treated::kRefused, "", "", kRun},
    {"vsa_reorder_sequence", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_vsa_static_block_mask", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"use_vsa_first_frame_mask", Takes::kSwitch, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"distilled_transformer_path", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
    {"distilled_transformer_2_path", Takes::kValue, "", kNotOffered, Treated::kRefused, "", "", kRun},
};

}  // namespace

std::span<const UnsupportedSetting> unsupported_settings() {
  return kLater;
}

void UnsupportedSettings::fields(const Visit& visit) {
  for (const UnsupportedSetting& l : kLater) {
    const Field field{
        .name = l.name, .help = "", .aliases = l.aliases, .choices = l.choices, .surfaces = l.surfaces};
    const std::string key(l.name);
    if (l.takes == Takes::kSwitch) {
      visit(field, &switches[key]);
    } else if (l.takes == Takes::kList) {
      visit(field, &lists[key]);
    } else {
      visit(field, &values[key]);
    }
  }
}

}  // namespace atelier::app
