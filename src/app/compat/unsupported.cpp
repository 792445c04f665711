// The table of settings that this build refuses or only notes.
#include "app/compat/unsupported.h"

#include <nlohmann/json.hpp>

#include "app/settings/settings.h"

namespace atelier::app {
namespace {

// Settings that share a reason. names: "switch", "value=" (with the word that asks for nothing behind it),
// "list*".
struct Group {
  Treated treated;
  unsigned surfaces;  // 0: only in files
  std::string_view why, names;
};

constexpr Group kGroups[] = {
    {Treated::kRefused, kEvery,
     "is not offered: --tier fast multiplies in 8 bits; files with 8-bit weights load as they are",
     "enable_layerwise_casting use_fp8_t5_encoder use_int8_gemms use_fp4_gemms"},
    {Treated::kRefused, kXditFlags, "is not offered: --tier fast chooses what is multiplied in 8 bits",
     "fp8_precision_override_prefix_patterns= fp8_precision_override_suffix_patterns="},
    {Treated::kRefused, kEvery, "is refused: code from model repositories is never run", "trust_remote_code"},
    {Treated::kRefused, kXditFlags, "is not in this build: use --fully_shard_degree",
     "use_fsdp no_reshard_after_forward"},
    {Treated::kRefused, kXditFlags, "can only be pil: pictures are written as files (--output_format)",
     "output_type=pil"},
    {Treated::kRefused, kEvery, "is not in this build: the whole picture is drawn, not a cut around the mask",
     "padding_mask_crop="},
    {Treated::kRefused, kXditFlags,
     "is not offered: what is given decides the task: --image and --mask edit, atelier video draws videos",
     "task="},
    {Treated::kRefused, kXditFlags, "is not offered",
     "cross_attention_backend= use_vae_channels_last_format use_onediff use_ray ray_world_size=1 "
     "use_fast_attn n_calib=8 threshold=0.5 window_size=64 coco_path= use_cache wan_teacache_thresh=0.2 "
     "wan_teacache_use_ret_steps use_hybrid_attn_schedule hybrid_attn_low_precision_backend= "
     "hybrid_attn_high_precision_backend= num_hybrid_attn_high_precision_steps= hybrid_attn_schedule= "
     "use_hybrid_gemm_schedule num_hybrid_gemm_high_precision_steps= use_ssta_sparse_text_to_image "
     "spargeattn_simthreshold=0.3 spargeattn_cdfthreshold=0.92 spargeattn_reorder_sequence "
     "use_spargeattn_static_block_mask use_spargeattn_head_balance vsa_block_size=128 "
     "vsa_prob_threshold=0.9 vsa_reorder_sequence use_vsa_static_block_mask use_vsa_first_frame_mask "
     "distilled_transformer_path= distilled_transformer_2_path="},
    {Treated::kNoted, 0, "has no effect: nothing is trained", "enable_gradient_checkpointing"},
    {Treated::kNoted, kEvery, "has no effect: q, k and v are always one product", "enable_fuse_qkv"},
    {Treated::kNoted, kEvery, "is for remote services: no effect",
     "api_max_retries= retry_delay= max_global_workers= num_processes="},
    {Treated::kNoted, kXditFlags, "has no effect: every rank reads only its part of the weights",
     "memory_efficient_sharding"},
    {Treated::kNoted, kXditFlags, "has no effect: the ranks are the product of the degrees",
     "dit_parallel_size=0"},
    {Treated::kNoted, kXditFlags, "has no effect: all ranks decode, each its rows, and none is added",
     "vae_parallel_size=0"},
    {Treated::kNoted, kXditFlags, "has no effect: pictures are always brought to the size that is drawn",
     "resize_input_images"},
    {Treated::kNoted, kXditFlags, "has no effect: every layer says itself how it is cut", "split_scheme=row"},
    {Treated::kNoted, kXditFlags, "has no effect: sizes are taken as asked", "no_use_resolution_binning"},
};

std::vector<Unsupported> read_table() {
  using Takes = Unsupported::Takes;
  std::vector<Unsupported> out;
  for (const Group& g : kGroups) {
    for (size_t at = 0; at < g.names.size();) {
      const size_t end = std::min(g.names.find(' ', at), g.names.size());
      const std::string_view word = g.names.substr(at, end - at);
      const size_t mark = std::min(word.find_first_of("=*"), word.size());
      const Takes takes = mark == word.size() ? Takes::kSwitch
                          : word[mark] == '*' ? Takes::kList
                                              : Takes::kValue;
      out.push_back({word.substr(0, mark), takes, word.substr(std::min(mark + 1, word.size())), g.why,
                     g.treated, g.surfaces});
      at = end + 1;
    }
  }
  return out;
}

}  // namespace

const std::vector<Unsupported>& unsupported_settings() {
  static const std::vector<Unsupported> all = read_table();
  return all;
}

void UnsupportedSettings::fields(const Visit& visit) {
  for (const Unsupported& u : unsupported_settings()) {
    Value& value = values[u.name];
    const FieldRef slot = u.takes == Unsupported::Takes::kSwitch ? FieldRef(&value.on)
                          : u.takes == Unsupported::Takes::kList ? FieldRef(&value.words)
                                                                 : FieldRef(&value.text);
    visit({.name = u.name, .surfaces = u.surfaces}, slot);
  }
}

std::vector<const Unsupported*> UnsupportedSettings::asked() const {
  std::vector<const Unsupported*> out;
  for (const Unsupported& u : unsupported_settings()) {
    const auto at = values.find(u.name);
    if (at == values.end()) continue;
    const auto& [on, text, words] = at->second;
    if (on || !words.empty() || (!text.empty() && text != u.neutral)) out.push_back(&u);
  }
  return out;
}

}  // namespace atelier::app
