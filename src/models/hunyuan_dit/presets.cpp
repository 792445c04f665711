#include "models/hunyuan_dit/presets.h"

#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// Sizes as in the published folders' config files. v1.2 dropped the conditions on style and sizes and has a
// gentler schedule of noise.
Json hunyuan_dit(bool has_sizes, double beta_end) {
  Json j = Json::parse(R"({
    "_class_name": "HunyuanDiTPipeline",
    "transformer": {"_class_name": "HunyuanDiT2DModel", "activation_fn": "gelu-approximate",
      "attention_head_dim": 88, "cross_attention_dim": 1024, "cross_attention_dim_t5": 2048, "hidden_size": 1408,
      "in_channels": 4, "learn_sigma": true, "mlp_ratio": 4.3637, "norm_type": "layer_norm",
      "num_attention_heads": 16, "num_layers": 40, "patch_size": 2, "pooled_projection_dim": 1024,
      "sample_size": 128, "text_len": 77, "text_len_t5": 256},
    "vae": {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
      "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
      "sample_size": 512, "scaling_factor": 0.13025, "force_upcast": true},
    "text_encoder": {"architectures": ["BertModel"], "hidden_size": 1024, "intermediate_size": 4096,
      "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 47020, "max_position_embeddings": 512,
      "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0},
    "text_encoder_2": {"architectures": ["T5EncoderModel"], "d_model": 2048, "d_kv": 64, "d_ff": 5120,
      "num_layers": 24, "num_heads": 32, "vocab_size": 250112, "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
      "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "clip_sample": false,
      "variance_type": "fixed_small", "timestep_spacing": "leading", "steps_offset": 1}
  })");
  j["transformer"]["use_style_cond_and_image_meta_size"] = has_sizes;
  j["scheduler"]["beta_end"] = beta_end;
  return j;
}

Json v1_1() {
  return hunyuan_dit(true, 0.03);
}
Json v1_2() {
  return hunyuan_dit(false, 0.018);
}

}  // namespace

// Distilled folders differ in their weights alone.
std::vector<Preset> presets_hunyuan_dit() {
  return {{"HunyuanDiT-v1.1-Diffusers", "hunyuan-dit-v1.1", v1_1},
          {"HunyuanDiT-v1.1-Diffusers-Distilled", "", v1_1},
          {"HunyuanDiT-v1.2-Diffusers", "hunyuan-dit", v1_2},
          {"HunyuanDiT-v1.2-Diffusers-Distilled", "", v1_2}};
}

}  // namespace atelier::models
