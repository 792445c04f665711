#include "models/pixart/presets.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// Sizes as in the published folders' config files. The models differ in the side of their latents and in how
// far positions are spread.
Json pixart_sigma(int sample_size) {
  Json j = Json::parse(R"({
    "_class_name": "PixArtSigmaPipeline",
    "transformer": {"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 16, "attention_head_dim": 72,
      "in_channels": 4, "out_channels": 8, "num_layers": 28, "cross_attention_dim": 1152, "caption_channels": 4096,
      "attention_bias": true, "patch_size": 2, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single",
      "norm_elementwise_affine": false, "norm_eps": 1e-06, "use_additional_conditions": false},
    "vae": {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
      "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
      "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": true},
    "text_encoder": {"architectures": ["T5EncoderModel"], "d_model": 4096, "d_kv": 64, "d_ff": 10240,
      "num_layers": 24, "num_heads": 64, "vocab_size": 32128, "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001,
      "beta_end": 0.02, "beta_schedule": "linear", "solver_order": 2, "prediction_type": "epsilon",
      "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": true,
      "timestep_spacing": "linspace", "final_sigmas_type": "zero", "steps_offset": 0}
  })");
  j["transformer"]["sample_size"] = sample_size;
  j["transformer"]["interpolation_scale"] = std::max(sample_size / 64, 1);
  return j;
}

Json of_256() {
  return pixart_sigma(32);
}
Json of_512() {
  return pixart_sigma(64);
}
Json of_1024() {
  return pixart_sigma(128);
}
Json of_2k() {
  return pixart_sigma(256);
}

}  // namespace

std::vector<Preset> presets_pixart() {
  return {{"PixArt-Sigma-XL-2-1024-MS", "pixart-sigma", of_1024},
          {"PixArt-Sigma-XL-2-512-MS", "pixart-sigma-512", of_512},
          {"PixArt-Sigma-XL-2-256x256", "pixart-sigma-256", of_256},
          {"PixArt-Sigma-XL-2-2K-MS", "pixart-sigma-2k", of_2k}};
}

}  // namespace atelier::models
