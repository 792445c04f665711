#include "models/sdxl/names.h"

#include <array>

#include "base/error.h"

namespace atelier::models {
namespace {

using weights::NameRule;

struct Pair {
  const char *canonical, *stored;
};

// What stands outside of the blocks: canonical names are those of diffusers.
constexpr std::array<Pair, 7> kOuter{{{"time_embedding.linear_1", "time_embed.0"},
                                      {"time_embedding.linear_2", "time_embed.2"},
                                      {"add_embedding.linear_1", "label_emb.0.0"},
                                      {"add_embedding.linear_2", "label_emb.0.2"},
                                      {"conv_in", "input_blocks.0.0"},
                                      {"conv_norm_out", "out.0"},
                                      {"conv_out", "out.2"}}};

constexpr std::array<Pair, 6> kResnet{{{"norm1", "in_layers.0"},
                                       {"conv1", "in_layers.2"},
                                       {"time_emb_proj", "emb_layers.1"},
                                       {"norm2", "out_layers.0"},
                                       {"conv2", "out_layers.3"},
                                       {"conv_shortcut", "skip_connection"}}};

// The fused tensors of a transformer; everything else below it has the same name in both.
void add_transformer(const std::string& canonical, const std::string& stored, std::vector<NameRule>& all) {
  const std::string block = ".transformer_blocks.{}.", from = stored + block, to = canonical + block;
  all.push_back({to + "attn1.qkv", {{from + "attn1.to_q"}, {from + "attn1.to_k"}, {from + "attn1.to_v"}}});
  all.push_back({to + "attn2.kv", {{from + "attn2.to_k"}, {from + "attn2.to_v"}}});
  all.push_back({canonical, {{stored}}});
}

void add_resnet(const std::string& canonical, const std::string& stored, std::vector<NameRule>& all) {
  for (const auto& [name, in_file] : kResnet)
    all.push_back({str(canonical, ".", name), {{str(stored, ".", in_file)}}});
}

}  // namespace

std::vector<NameRule> names_unet_diffusers() {
  std::vector<NameRule> all;
  for (const std::string at : {"down_blocks.{}", "mid_block", "up_blocks.{}"}) {
    add_transformer(at + ".attentions.{}", at + ".attentions.{}", all);
    // Rules that change nothing: where other rules follow, these come first when a checkpoint is written.
    all.push_back({at, {{at}}});
  }
  for (const auto& [canonical, _] : kOuter) all.push_back({canonical, {{canonical}}});
  return all;
}

std::vector<NameRule> names_unet_original(const UNetConfig& config, std::string_view prefix) {
  std::vector<NameRule> all;
  const std::string before(prefix);
  for (const auto& [canonical, stored] : kOuter) all.push_back({canonical, {{before + stored}}});
  int64_t input = 1, output = 0;
  for (const auto& block : blocks_of(config)) {
    const std::string at = block.path();
    const auto part = [&](const char* list, int64_t i) { return str(at, ".", list, ".", i); };
    if (block.kind == UNetBlock::kMiddle) {
      add_resnet(part("resnets", 0), before + "middle_block.0", all);
      if (block.transformers == 0) continue;
      add_transformer(part("attentions", 0), before + "middle_block.1", all);
      add_resnet(part("resnets", 1), before + "middle_block.2", all);
      continue;
    }
    const bool is_down = block.kind == UNetBlock::kDown;
    const std::string stored =
        is_down ? str(before, "input_blocks.", input++) : str(before, "output_blocks.", output++);
    add_resnet(part("resnets", block.layer), stored + ".0", all);
    if (block.transformers > 0) add_transformer(part("attentions", block.layer), stored + ".1", all);
    if (!block.resamples) continue;
    if (is_down) {
      all.push_back({part("downsamplers", 0) + ".conv", {{str(before, "input_blocks.", input++, ".0.op")}}});
    } else {
      all.push_back(
          {part("upsamplers", 0) + ".conv", {{str(stored, block.transformers > 0 ? ".2" : ".1", ".conv")}}});
    }
  }
  return all;
}

}  // namespace atelier::models
