#include "models/wan/presets.h"

#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// What all models share, sizes as in the published folders' config files.
Json common(const char* pipeline, double flow_shift) {
  Json j = Json::parse(R"({
    "transformer": {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "attention_head_dim": 128,
      "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "cross_attn_norm": true,
      "qk_norm": "rms_norm_across_heads", "eps": 1e-06, "image_dim": null, "added_kv_proj_dim": null,
      "pos_embed_seq_len": null, "rope_max_seq_len": 1024},
    "vae": {"_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4],
      "num_res_blocks": 2, "attn_scales": [], "temperal_downsample": [false, true, true], "dropout": 0.0,
      "latents_mean": [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921],
      "latents_std": [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916]},
    "text_encoder": {"architectures": ["UMT5EncoderModel"], "d_model": 4096, "d_kv": 64, "d_ff": 10240,
      "num_layers": 24, "num_heads": 64, "vocab_size": 256384, "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "UniPCMultistepScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001,
      "beta_end": 0.02, "beta_schedule": "linear", "solver_order": 2, "solver_type": "bh2", "predict_x0": true,
      "prediction_type": "flow_prediction", "use_flow_sigmas": true, "lower_order_final": true,
      "final_sigmas_type": "zero", "timestep_spacing": "linspace", "steps_offset": 0}
  })");
  j["_class_name"] = pipeline;
  j["scheduler"]["flow_shift"] = flow_shift;
  return j;
}

struct Size {
  int heads, layers, inner;
};
constexpr Size k1_3B{12, 30, 8960}, k14B{40, 40, 13824}, k5B{24, 30, 14336};

Json sized(Json j, Size size) {
  j["transformer"]["num_attention_heads"] = size.heads;
  j["transformer"]["num_layers"] = size.layers;
  j["transformer"]["ffn_dim"] = size.inner;
  return j;
}

// ViT-H/14.
Json with_image_encoder(Json j) {
  j["transformer"]["in_channels"] = 36;
  j["transformer"]["image_dim"] = 1280;
  j["transformer"]["added_kv_proj_dim"] = 5120;
  j["image_encoder"] = Json::parse(R"({"architectures": ["CLIPVisionModel"], "hidden_size": 1280,
    "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "image_size": 224,
    "patch_size": 14, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-05})");
  return j;
}

// High noise first, then low noise.
Json with_experts(Json j, double boundary) {
  j["transformer_2"] = j["transformer"];
  j["boundary_ratio"] = boundary;
  return j;
}

Json steered(Json j, int every) {
  auto& t = j["transformer"];
  t["_class_name"] = "WanVACETransformer3DModel";
  t["vace_in_channels"] = 96;
  t["vace_layers"] = Json::array();
  for (int i = 0; i < t["num_layers"].get<int>(); i += every) t["vace_layers"].push_back(i);
  return j;
}

Json text_1_3b() {
  return sized(common("WanPipeline", 3), k1_3B);
}
Json text_14b() {
  return sized(common("WanPipeline", 3), k14B);
}
Json text_a14b() {
  return with_experts(sized(common("WanPipeline", 3), k14B), 0.875);
}
Json text_image_5b() {
  Json j = sized(common("WanPipeline", 5), k5B);
  j["expand_timesteps"] = true;
  j["transformer"]["in_channels"] = j["transformer"]["out_channels"] = 48;
  j["vae"].update(Json::parse(R"({"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": true,
    "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_temporal": 4, "scale_factor_spatial": 16,
    "clip_output": false,
    "latents_mean": [-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813,
      0.0891, 0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
      -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723,
      -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667],
    "latents_std": [0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
      0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338,
      0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
      0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744]})"));
  return j;
}
Json image_14b() {
  return with_image_encoder(sized(common("WanImageToVideoPipeline", 3), k14B));
}
Json first_last_14b() {
  Json j = with_image_encoder(sized(common("WanImageToVideoPipeline", 16), k14B));
  j["transformer"]["pos_embed_seq_len"] = 514;
  return j;
}
Json image_a14b() {
  Json j = sized(common("WanImageToVideoPipeline", 3), k14B);
  j["transformer"]["in_channels"] = 36;
  return with_experts(std::move(j), 0.9);
}
Json vace_1_3b() {
  return steered(sized(common("WanVACEPipeline", 3), k1_3B), 2);
}
Json vace_14b() {
  return steered(sized(common("WanVACEPipeline", 3), k14B), 5);
}

}  // namespace

std::vector<Preset> presets_wan_text() {
  return {{"Wan2.1-T2V-1.3B-Diffusers", "wan2.1-t2v-1.3b", text_1_3b},
          {"Wan2.1-T2V-14B-Diffusers", "wan2.1-t2v-14b", text_14b},
          {"Wan2.2-T2V-A14B-Diffusers", "wan2.2-t2v-a14b", text_a14b},
          {"Wan2.2-TI2V-5B-Diffusers", "wan2.2-ti2v-5b", text_image_5b}};
}

std::vector<Preset> presets_wan_image() {
  return {{"Wan2.1-I2V-14B-480P-Diffusers", "wan2.1-i2v-14b-480p", image_14b},
          {"Wan2.1-I2V-14B-720P-Diffusers", "wan2.1-i2v-14b-720p", image_14b},
          {"Wan2.1-FLF2V-14B-720P-diffusers", "wan2.1-flf2v-14b-720p", first_last_14b},
          {"Wan2.2-I2V-A14B-Diffusers", "wan2.2-i2v-a14b", image_a14b}};
}

std::vector<Preset> presets_wan_vace() {
  return {{"Wan2.1-VACE-1.3B-diffusers", "wan2.1-vace-1.3b", vace_1_3b},
          {"Wan2.1-VACE-14B-diffusers", "wan2.1-vace-14b", vace_14b}};
}

}  // namespace atelier::models
