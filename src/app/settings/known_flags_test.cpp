// Every flag of the tools that users come from is known, in every spelling.
#include <gtest/gtest.h>

#include <algorithm>

#include "app/cli/cli.h"
#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/settings/resolve.h"
#include "base/text.h"

namespace atelier::app {
namespace {

Resolved resolved(const Arguments& arguments, Surface surface) {
  const Parsed parsed = parse_flags({surface, "test", "", {}}, one_spelling(arguments));
  return resolve(surface, parsed.flags, {}, parsed.config);
}

struct Known {
  const char *flag, *value;  // null: a switch
};

// Diffgentor's, and what its documentation promises besides.
constexpr Known kDiffgentor[] = {
    {"backend", "xdit"},
    {"model_name", "mini"},
    {"model_type", "flux"},
    {"device", "cpu"},
    {"num_gpus", "2"},
    {"seed", "3"},
    {"torch_dtype", "bfloat16"},
    {"optimize", "tf32"},
    {"attention_backend", "flash"},
    {"cache_type", "none"},
    {"enable_compile", nullptr},
    {"enable_cpu_offload", nullptr},
    {"enable_vae_slicing", nullptr},
    {"enable_vae_tiling", nullptr},
    {"timeout", "300.0"},
    {"api_max_retries", "0"},
    {"retry_delay", "1.0"},
    {"max_global_workers", "16"},
    {"num_processes", "4"},
    {"node_rank", "0"},
    {"num_nodes", "1"},
    {"log_dir", "logs"},
    {"prompt", "a"},
    {"prompts_file", "a.txt"},
    {"output_dir", "out"},
    {"num_images_per_prompt", "2"},
    {"height", "64"},
    {"width", "64"},
    {"num_inference_steps", "4"},
    {"guidance_scale", "3.5"},
    {"negative_prompt", "b"},
    {"batch_size", "2"},
    {"max_retries", "3"},
    {"resume", nullptr},
    {"no_resume", nullptr},
    {"output_name_column", "name"},
    {"enable_sequential_cpu_offload", nullptr},
    {"enable_group_offloading", nullptr},
    {"enable_layerwise_casting", "false"},
    {"enable_fuse_qkv", nullptr},
    {"enable_xformers", nullptr},
    {"enable_tf32", nullptr},
    {"no_enable_tf32", nullptr},
    {"ulysses_degree", "2"},
    {"ring_degree", "2"},
    {"kv_gather_degree", "2"},
    {"data_parallel_degree", "2"},
    {"use_cfg_parallel", nullptr},
    {"pipefusion_degree", "2"},
    {"compile", nullptr},
    {"strategy", "ring=2"},
    {"offload", "none"},
    {"true_cfg_scale", "2"},
    {"tensor_parallel_degree", "2"},
    {"span_nodes", nullptr},
    {"master_addr", "localhost"},
    {"master_port", "29500"},
};

constexpr Known kXdit[] = {
    {"model", "mini"},
    {"data_parallel_degree", "2"},
    {"ulysses_degree", "2"},
    {"ring_degree", "2"},
    {"kv_gather_degree", "2"},
    {"tensor_parallel_degree", "2"},
    {"pipefusion_parallel_degree", "2"},
    {"use_cfg_parallel", nullptr},
    {"use_parallel_vae", nullptr},
    {"use_torch_compile", nullptr},
    {"warmup_steps", "1"},
    {"num_pipeline_patch", "2"},
    {"attn_layer_num_for_pp", "10 9"},
    {"dit_parallel_size", "0"},
    {"vae_parallel_size", "0"},
    {"fully_shard_degree", "1"},
    {"shard_dit", nullptr},
    {"shard_t5_encoder", "false"},
    {"use_fp8_t5_encoder", "false"},
    {"use_fp8_gemms", "false"},
    {"use_int8_gemms", "false"},
    {"use_fp4_gemms", "false"},
    {"use_teacache", "false"},
    {"use_fbcache", "false"},
    {"attention_backend", "sdpa"},
    {"height", "64"},
    {"width", "64"},
    {"num_frames", "1"},
    {"prompt", "a"},
    {"negative_prompt", "b"},
    {"num_inference_steps", "4"},
    {"guidance_scale", "1"},
    {"max_sequence_length", "256"},
    {"seed", "42"},
    {"num_iterations", "1"},
    {"warmup_calls", "0"},
    {"profile", "false"},
    {"profile_wait", "2"},
    {"profile_warmup", "2"},
    {"profile_active", "1"},
    {"dataset_path", "a.csv"},
    {"batch_size", "1"},
    {"output_directory", "."},
    {"output_type", "pil"},
    {"img_file_path", "a.png"},
    {"resize_input_images", "false"},
    {"guidance_scale_2", "3"},
    {"flow_shift", "3"},
    {"enable_sequential_cpu_offload", nullptr},
    {"enable_model_cpu_offload", nullptr},
    {"enable_tiling", nullptr},
    {"enable_slicing", nullptr},
    {"trust_remote_code", "false"},
    {"use_onediff", "false"},
    {"use_ray", "false"},
    {"ray_world_size", "1"},
    {"use_fast_attn", "false"},
    {"use_hybrid_attn_schedule", "false"},
    {"use_ssta_sparse_text_to_image", "false"},
    {"pipefusion_sync", nullptr},
    {"pipeline_parallel_size", "2"},
    {"transformer_2", "low_noise.safetensors"},
};

// In every spelling, alone on the command line.
void expect_known(const Known& known, Surface surface) {
  std::string dashes = known.flag;
  std::replace(dashes.begin(), dashes.end(), '_', '-');
  for (const std::string& name : {std::string(known.flag), dashes}) {
    SCOPED_TRACE(name);
    std::vector<Arguments> forms;
    if (!known.value) {
      forms = {{"--" + name}};
    } else {
      forms = {{"--" + name + "=" + known.value}};
      const auto words = words_of(known.value);
      Arguments apart{"--" + name};
      apart.insert(apart.end(), words.begin(), words.end());
      const bool is_switch = std::string_view(known.value) == "false";
      if (!is_switch && !words.empty()) forms.push_back(apart);
    }
    for (const auto& form : forms) EXPECT_NO_THROW(resolved(form, surface)) << form[0];
  }
}

TEST(Flags, AllOfDiffgentorAreKnownInEverySpelling) {
  for (const auto& known : kDiffgentor) expect_known(known, kT2i);
}

TEST(Flags, AllOfXditAreKnownInEverySpelling) {
  for (const auto& known : kXdit) expect_known(known, kRun);
}

}  // namespace
}  // namespace atelier::app
