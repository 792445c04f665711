#include "models/flux/presets.h"

#include <nlohmann/json.hpp>

namespace atelier::models {
namespace {

// Sizes as in the published folders' config files.
Json flux(bool dev) {
  Json j = Json::parse(R"({
    "_class_name": "FluxPipeline",
    "transformer": {"_class_name": "FluxTransformer2DModel", "patch_size": 1, "in_channels": 64, "num_layers": 19,
      "num_single_layers": 38, "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096,
      "pooled_projection_dim": 768, "axes_dims_rope": [16, 56, 56]},
    "vae": {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 16,
      "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
      "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": false,
      "use_post_quant_conv": false, "mid_block_add_attention": true, "force_upcast": true},
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 768, "intermediate_size": 3072,
      "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 49408, "max_position_embeddings": 77,
      "projection_dim": 768, "eos_token_id": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05},
    "text_encoder_2": {"architectures": ["T5EncoderModel"], "d_model": 4096, "d_kv": 64, "d_ff": 10240,
      "num_layers": 24, "num_heads": 64, "vocab_size": 32128, "relative_attention_num_buckets": 32,
      "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0,
      "use_dynamic_shifting": false, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
      "max_image_seq_len": 4096}
  })");
  j["transformer"]["guidance_embeds"] = dev;
  if (dev) j["scheduler"]["shift"] = 3.0, j["scheduler"]["use_dynamic_shifting"] = true;
  return j;
}

Json schnell() {
  return flux(false);
}
Json dev() {
  return flux(true);
}

}  // namespace

std::vector<Preset> presets_flux() {
  return {{"FLUX.1-schnell", "flux-schnell", schnell}, {"FLUX.1-dev", "flux-dev", dev}};
}

}  // namespace atelier::models
