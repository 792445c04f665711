#include "models/sdxl/file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "models/file_sizes.h"

namespace atelier::models {
namespace {

// The tensors that tell sizes, in either naming.
struct Marks {
  std::string_view image_in, image_out, time, added, conv1;
};
constexpr Marks kDiffusersMarks{.image_in = "conv_in.weight",
                                .image_out = "conv_out.weight",
                                .time = "time_embedding.linear_1.weight",
                                .added = "add_embedding.linear_1.weight",
                                .conv1 = ".conv1.weight"};
constexpr Marks kOriginalMarks{.image_in = "input_blocks.0.0.weight",
                               .image_out = "out.2.weight",
                               .time = "time_embed.0.weight",
                               .added = "label_emb.0.0.weight",
                               .conv1 = ".in_layers.2.weight"};

// A resnet with what stands behind it, by the prefixes of their names.
struct Layer {
  std::string resnet, attention;
};
using Levels = std::vector<std::vector<Layer>>;

struct Places {
  Marks marks;
  Levels down, up;  // in the order in which they run
  Layer middle;
};

Places diffusers_places(const FileSizes& file) {
  Places all{.marks = kDiffusersMarks, .middle = {"mid_block.resnets.0", "mid_block.attentions.0"}};
  const auto levels = [&](const char* side) {
    Levels out;
    for (int level = 0;; ++level) {
      const auto at = str(side, ".", level);
      const int layers = file.count(at + ".resnets.{}.conv1.weight");
      if (layers == 0) return out;
      auto& list = out.emplace_back();
      for (int i = 0; i < layers; ++i) list.push_back({str(at, ".resnets.", i), str(at, ".attentions.", i)});
    }
  };
  all.down = levels("down_blocks");
  all.up = levels("up_blocks");
  return all;
}

// There blocks are counted through all levels: one ends where a picture is halved or doubled.
Places original_places(const FileSizes& file) {
  Places all{
      .marks = kOriginalMarks, .down = {{}}, .up = {{}}, .middle = {"middle_block.0", "middle_block.1"}};
  for (int i = 1;; ++i) {
    const auto at = str("input_blocks.", i);
    if (file.has(at + ".0.op.weight")) {
      all.down.emplace_back();
    } else if (file.has(at + ".0.in_layers.2.weight")) {
      all.down.back().push_back({at + ".0", at + ".1"});
    } else {
      break;
    }
  }
  for (int i = 0; file.has(str("output_blocks.", i, ".0.in_layers.2.weight")); ++i) {
    const auto at = str("output_blocks.", i);
    all.up.back().push_back({at + ".0", at + ".1"});
    const bool doubles = file.has(at + ".1.conv.weight") || file.has(at + ".2.conv.weight");
    if (doubles) all.up.emplace_back();
  }
  return all;
}

int transformers(const FileSizes& file, const Layer& layer) {
  return file.count(layer.attention + ".transformer_blocks.{}.norm1.weight");
}

// Of each level: one number where all its layers agree, a list otherwise.
Json counts_of(const FileSizes& file, const std::vector<Layer>& level) {
  Json all = Json::array();
  for (const auto& layer : level) all.push_back(transformers(file, layer));
  const bool agrees = std::all_of(all.begin(), all.end(), [&](const Json& n) { return n == all.front(); });
  return agrees ? all.front() : all;
}

// Any transformer of the model, for what all of them have alike.
std::optional<std::string> first_attention(const FileSizes& file, const Places& places) {
  for (const auto& level : places.down) {
    for (const auto& layer : level) {
      if (transformers(file, layer) > 0) return layer.attention;
    }
  }
  if (transformers(file, places.middle) > 0) return places.middle.attention;
  return std::nullopt;
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Kind::kCheckpoint, str("the file is ", what, "; name an SDXL base file"));
}

// Files whose names look like SDXL's and that are something else.
void refuse_relatives(const FileSizes& file, const Marks& marks, int64_t text_width) {
  constexpr int64_t kRefinerAdded = 2560, kRefinerText = 1280;  // pooled text and five numbers, not six
  if (!file.has(marks.added))
    refuse("a UNet of Stable Diffusion 1 or 2, which has no sizes among its inputs");
  const int64_t in = file.size(marks.image_in, 1), out = file.size(marks.image_out, 0);
  if (in == 2 * out + 1)
    refuse(str("an inpainting UNet, which takes a mask and a picture (", in, " channels)"));
  if (in != out) refuse(str("a UNet that takes a picture beside the latents (", in, " channels)"));
  if (file.size(marks.added, 1) == kRefinerAdded && text_width == kRefinerText)
    refuse("the SDXL refiner, which finishes the pictures of another model");
}

// attention_head_dim, which counts heads: as wide as like's, level by level.
Json heads_of(const Json& channels, const Json& like) {
  constexpr int64_t kHeadDim = 64;
  const Json widths = like.value("block_out_channels", Json()),
             heads = like.value("attention_head_dim", Json());
  Json all = Json::array();
  for (size_t i = 0; i < channels.size(); ++i) {
    int64_t head_dim = kHeadDim;
    if (widths.is_array() && !widths.empty()) {
      const size_t level = std::min(i, widths.size() - 1);
      const Json& count = heads.is_array() && level < heads.size() ? heads[level] : heads;
      if (count.is_number_integer() && count.get<int64_t>() > 0)
        head_dim = widths[level].get<int64_t>() / count.get<int64_t>();
    }
    all.push_back(std::max<int64_t>(1, channels[i].get<int64_t>() / std::max<int64_t>(1, head_dim)));
  }
  return all;
}

void set_blocks(const FileSizes& file, const Places& places, Json& config) {
  Json down = Json::array(), up = Json::array(), down_types = down, up_types = up, layers = down,
       channels = down;
  for (const auto& level : places.down) {
    const Json count = counts_of(file, level);
    down_types.push_back(count == 0 ? "DownBlock2D" : "CrossAttnDownBlock2D");
    down.push_back(count == 0 ? Json(1) : count);
    layers.push_back(level.size());
    channels.push_back(file.size(level.front().resnet + std::string(places.marks.conv1), 0));
  }
  for (const auto& level : places.up) {
    const Json count = counts_of(file, level);
    up_types.push_back(count == 0 ? "UpBlock2D" : "CrossAttnUpBlock2D");
    up.push_back(count == 0 ? Json(1) : count);
  }
  const int middle = transformers(file, places.middle);
  const bool has_middle = file.has(places.middle.resnet + std::string(places.marks.conv1));
  config["mid_block_type"] = !has_middle ? Json() : middle > 0 ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D";
  if (middle > 0 && down_types.back() == "DownBlock2D") down.back() = middle;
  const Json& last = down.back().is_array() ? down.back().front() : down.back();
  if (middle > 0 && last != middle)
    throw Error(Kind::kCheckpoint,
                str("the file's UNet has ", middle, " transformer blocks in the middle and ", last.dump(),
                    " before it, which no config can say"));
  Json mirrored = down;
  std::reverse(mirrored.begin(), mirrored.end());
  bool is_mirror = std::none_of(down.begin(), down.end(), [](const Json& j) { return j.is_array(); });
  for (size_t i = 0; i < up.size(); ++i) is_mirror &= up_types[i] == "UpBlock2D" || up[i] == mirrored[i];
  config["block_out_channels"] = channels;
  config["layers_per_block"] = layers;
  config["down_block_types"] = down_types;
  config["up_block_types"] = up_types;
  config["transformer_layers_per_block"] = down;
  config.erase("reverse_transformer_layers_per_block");
  if (!is_mirror) config["reverse_transformer_layers_per_block"] = up;
}

bool is_whole(const Places& places) {
  const auto has_layers = [](const std::vector<Layer>& level) { return !level.empty(); };
  return !places.down.empty() && places.up.size() == places.down.size() &&
         std::all_of(places.down.begin(), places.down.end(), has_layers) &&
         std::all_of(places.up.begin(), places.up.end(), has_layers);
}

}  // namespace

Json config_of_sdxl_file(const weights::WeightStore& store, const Json& like) {
  const FileSizes file(store, "an SDXL UNet");
  const bool is_original = file.has(kOriginalMarks.image_in);
  if (!is_original && !(file.has(kDiffusersMarks.image_in) && file.has(kDiffusersMarks.time))) {
    throw Error(Kind::kCheckpoint,
                "the file holds no SDXL UNet, neither in the original nor in diffusers' naming");
  }
  const Places places = is_original ? original_places(file) : diffusers_places(file);
  const auto attention = first_attention(file, places);
  const int64_t text = attention ? file.size(*attention + ".transformer_blocks.0.attn2.to_k.weight", 1) : 0;
  refuse_relatives(file, places.marks, text);
  if (!is_whole(places)) {
    throw Error(Kind::kCheckpoint,
                "the file's UNet has not as many levels on the way up as on the way down; "
                "download the file again");
  }
  Json config = like;
  set_blocks(file, places, config);
  config["attention_head_dim"] = heads_of(config["block_out_channels"], like);
  config["in_channels"] = file.size(places.marks.image_in, 1);
  config["out_channels"] = file.size(places.marks.image_out, 0);
  config["conv_in_kernel"] = file.size(places.marks.image_in, 2);
  config["conv_out_kernel"] = file.size(places.marks.image_out, 2);
  config["time_embedding_dim"] = file.size(places.marks.time, 0);
  config["projection_class_embeddings_input_dim"] = file.size(places.marks.added, 1);
  if (!attention) return config;
  config["cross_attention_dim"] = text;
  config["use_linear_projection"] = file.dimensions(*attention + ".proj_in.weight") == 2;
  return config;
}

}  // namespace atelier::models
