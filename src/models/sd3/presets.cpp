#include "models/sd3/presets.h"

#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// Sizes as in the published folders' config files.
Json pipeline(const Json& transformer) {
  Json j = Json::parse(R"({
    "_class_name": "StableDiffusion3Pipeline",
    "transformer": {"_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16,
      "out_channels": 16, "attention_head_dim": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 2048},
    "vae": {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 16,
      "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
      "sample_size": 1024, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": false,
      "use_post_quant_conv": false, "mid_block_add_attention": true, "force_upcast": true},
    "text_encoder": {"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 768, "intermediate_size": 3072,
      "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 49408, "max_position_embeddings": 77,
      "projection_dim": 768, "eos_token_id": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05},
    "text_encoder_2": {"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
      "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "vocab_size": 49408,
      "max_position_embeddings": 77, "projection_dim": 1280, "eos_token_id": 2, "hidden_act": "gelu",
      "layer_norm_eps": 1e-05},
    "text_encoder_3": {"architectures": ["T5EncoderModel"], "d_model": 4096, "d_kv": 64, "d_ff": 10240,
      "num_layers": 24, "num_heads": 64, "vocab_size": 32128, "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
  })");
  j["transformer"].update(transformer);
  return j;
}

Json medium_3() {
  return pipeline({{"num_layers", 24},
                   {"num_attention_heads", 24},
                   {"caption_projection_dim", 1536},
                   {"pos_embed_max_size", 192}});
}

Json medium_35() {
  return pipeline({{"num_layers", 24},
                   {"num_attention_heads", 24},
                   {"caption_projection_dim", 1536},
                   {"pos_embed_max_size", 384},
                   {"dual_attention_layers", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
                   {"qk_norm", "rms_norm"}});
}

Json large_35() {
  return pipeline({{"num_layers", 38},
                   {"num_attention_heads", 38},
                   {"caption_projection_dim", 2432},
                   {"pos_embed_max_size", 192},
                   {"qk_norm", "rms_norm"}});
}

}  // namespace

std::vector<Preset> presets_sd3() {
  return {{"stable-diffusion-3-medium", "sd3-medium", medium_3},
          {"stable-diffusion-3.5-medium", "sd3.5-medium", medium_35},
          {"stable-diffusion-3.5-large", "sd3.5-large", large_35}};
}

}  // namespace atelier::models
