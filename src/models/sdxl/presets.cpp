#include "models/sdxl/presets.h"

#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// Sizes as in the published folder's config files.
Json base() {
  return Json::parse(R"({
    "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
    "unet": {"_class_name": "UNet2DConditionModel", "sample_size": 128, "in_channels": 4, "out_channels": 4,
      "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
      "mid_block_type": "UNetMidBlock2DCrossAttn", "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
      "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
      "use_linear_projection": true, "norm_num_groups": 32, "norm_eps": 1e-05, "act_fn": "silu",
      "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "flip_sin_to_cos": true, "freq_shift": 0,
      "projection_class_embeddings_input_dim": 2816},
    "vae": {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
      "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
      "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": true},
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 768, "intermediate_size": 3072,
      "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 49408, "max_position_embeddings": 77,
      "projection_dim": 768, "eos_token_id": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05},
    "text_encoder_2": {"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
      "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "vocab_size": 49408,
      "max_position_embeddings": 77, "projection_dim": 1280, "eos_token_id": 2, "hidden_act": "gelu",
      "layer_norm_eps": 1e-05},
    "scheduler": {"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
      "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
      "interpolation_type": "linear", "timestep_spacing": "leading", "steps_offset": 1, "use_karras_sigmas": false}
  })");
}

}  // namespace

std::vector<Preset> presets_sdxl() {
  return {{"stable-diffusion-xl-base-1.0", "sdxl", base}};
}

}  // namespace atelier::models
