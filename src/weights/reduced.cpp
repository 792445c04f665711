#include "weights/reduced.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/parse_json.h"
#include "base/quote.h"
#include "base/text.h"
#include "weights/decode.h"
#include "weights/names.h"

namespace atelier::weights {
namespace {

constexpr int64_t kMostMarkerText = 1 << 16;
constexpr std::string_view kInstead =
    "take the file of the same model in 16 bit, in fp8, or as GGUF from Q4_0 to Q8_0";
constexpr std::string_view kMerged = "merge it into the model (merge_and_unload) and save that";
constexpr std::string_view kOfAModel =
    "it changes a model and is none: name the model that it was made for, and this file with --lora";

// Whoever has a tensor that matches is of this kind. The first row that matches anything counts.
struct Refusal {
  std::string_view glob, what, instead;
};
constexpr Refusal kRefusals[] = {
    {"*.quant_state.bitsandbytes__nf4", "4-bit weights of bitsandbytes (NF4)", kInstead},
    {"*.quant_state.bitsandbytes__fp4", "4-bit weights of bitsandbytes (FP4)", kInstead},
    {"*.weight.absmax", "4-bit weights of bitsandbytes (NF4 or FP4)", kInstead},
    {"*.absmax", "4-bit weights of bitsandbytes (NF4 or FP4)", kInstead},
    {"*.SCB", "8-bit integers of bitsandbytes (LLM.int8)", kInstead},
    {"*.weight_scale_2", "4-bit floats in groups of 16 (nvfp4)", kInstead},
    {"*.wscales", "4-bit weights of SVDQuant (nunchaku)", kInstead},
    {"*.qzeros", "integers of GPTQ or AWQ", kInstead},
    {"*.qweight", "packed integers (qweight)", kInstead},
    {"*.weight_packed", "packed weights of compressed-tensors", kInstead},
    {"*.weight._data", "weights of quanto", kInstead},
    {"*.pre_quant_scale", "weights whose inputs must be scaled first (pre_quant_scale)", kInstead},
    {"*.weight_scale_inv", "8-bit floats with a scale per block (weight_scale_inv)", kInstead},
    {"*flat_param*", "parameters that FSDP flattened",
     "save the whole state dict (StateDictType.FULL_STATE_DICT) and take that"},
    {"*.parametrizations.*", "weights with parametrizations of torch",
     "take them off (torch.nn.utils.parametrize.remove_parametrizations) and save again"},
    {"*.base_layer.*", "a model with an adapter that PEFT has not merged into it", kMerged},
    {"*.modules_to_save.*", "a model with an adapter that PEFT has not merged into it", kMerged},
    {"*.lora_A.*", "a LoRA", kOfAModel},
    {"*.lora_B.*", "a LoRA", kOfAModel},
    {"*.lora_up.*", "a LoRA", kOfAModel},
    {"*.lora_down.*", "a LoRA", kOfAModel},
    {"*.lora.up.*", "a LoRA", kOfAModel},
    {"*.lora.down.*", "a LoRA", kOfAModel},
    {"*.hada_w1_*", "a LoRA (LoHa)", kOfAModel},
    {"*.lokr_w1*", "a LoRA (LoKr)", kOfAModel},
    {"*.dora_scale", "a LoRA (DoRA)", kOfAModel},
};

class Finder {
 public:
  Finder(std::string_view file, const Entries& entries, const ReadBytes& read)
      : file_(file), entries_(entries), read_(read) {}

  Reduced run(const FileMetadata& metadata) {
    refuse_by_names();
    read_metadata(metadata);
    for (const auto& [name, entry] : entries_) look_at(name, entry);
    for (const auto& [name, entry] : entries_) {
      if (!found_.marks.contains(name)) refuse_by_type(name, entry);
    }
    check_scales_are_there();
    return std::move(found_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what, std::string_view tensor,
                           std::string_view instead = kInstead) const {
    throw Error(Kind::kCheckpoint, str(file_, ": it holds ", what, " (tensor ", in_quotes(tensor),
                                       "), which is not read here; ", instead));
  }

  void refuse_by_names() const {
    for (const auto& row : kRefusals) {
      for (const auto& [name, _] : entries_) {
        if (glob_matches(row.glob, name)) refuse(row.what, name, row.instead);
      }
    }
  }

  // A format as ComfyUI names it.
  void check_format(const std::string& text, std::string_view layer) const {
    constexpr std::array<std::string_view, 2> kRead{"float8_e4m3fn", "float8_e5m2"};
    if (std::find(kRead.begin(), kRead.end(), text) == kRead.end())
      refuse("weights stored as " + in_quotes(text), layer);
  }

  // Of layers that are said to be scaled, and of those whose like in other blocks are. A mark of the whole
  // file says it of some.
  void check_scales_are_there() const {
    std::set<std::string> scaled;  // without the numbers of blocks
    for (const auto& [weight, _] : found_.scale_of) scaled.insert(without_digits(weight));
    for (const auto& [name, entry] : entries_) {
      if (entry.shape.size() < 2 || !is_eight_bit(entry.dtype) || found_.scale_of.contains(name)) continue;
      const bool is_promised = promised_.contains(name) || (is_marked_ && scaled.empty());
      if (!is_promised && !scaled.contains(without_digits(name))) continue;
      throw Error(
          Kind::kCheckpoint,
          str(file_, ": the 8-bit floats of ", in_quotes(name),
              " need a scale (scale_weight or weight_scale), and the file has none for them; download "
              "the file again"));
    }
  }

  static bool is_eight_bit(DType type) { return type == DType::kF8E4M3 || type == DType::kF8E5M2; }
  static std::string without_digits(std::string_view name) {
    std::string out;
    std::copy_if(name.begin(), name.end(), std::back_inserter(out),
                 [](char c) { return c < '0' || c > '9'; });
    return out;
  }

  Json parse(const std::string& text, std::string_view where) const {
    Json json = parse_json(text);
    if (json.is_discarded()) {
      throw Error(Kind::kCheckpoint,
                  str(file_, ": ", in_quotes(where), " is not valid JSON; download the file again"));
    }
    return json;
  }

  // {"format": "float8_e4m3fn", ...}, or the format alone.
  void check_layer(const Json& json, std::string_view layer, const std::string& weight) {
    const Json* format = &json;
    if (json.is_object()) {
      const auto at = json.find("format");
      if (at == json.end() || at->is_null()) return;
      format = &*at;
    }
    check_format(format->is_string() ? format->get<std::string>() : format->dump(), layer);
    promised_.insert(weight);
  }

  void read_metadata(const FileMetadata& metadata) {
    constexpr const char* kKey = "_quantization_metadata";
    const auto at = metadata.find(kKey);
    if (at == metadata.end()) return;
    const Json json = parse(at->second, kKey);
    const auto layers = json.is_object() ? json.find("layers") : json.end();
    if (!json.is_object() || layers == json.end() || !layers->is_object()) return;
    for (const auto& [layer, value] : layers->items())
      check_layer(value, layer, unwrapped(layer + ".weight"));
  }

  void look_at(const std::string& name, const TensorEntry& entry) {
    const auto dot = name.rfind('.');
    const std::string last = dot == std::string::npos ? name : name.substr(dot + 1);
    if (last == "scaled_fp8") {
      is_marked_ = true;
      found_.marks.insert(name);
      return;
    }
    if (dot == std::string::npos) return;
    const std::string weight = name.substr(0, dot) + ".weight";
    const auto at = entries_.find(weight);
    if (at == entries_.end()) return;
    if (last == "scale_weight" || last == "weight_scale") {
      check_scale(name, entry, at->second);
      if (!found_.scale_of.emplace(weight, name).second) {
        throw Error(Kind::kCheckpoint, str(file_, ": ", in_quotes(weight), " has two scales, ",
                                           in_quotes(name), " and ", in_quotes(found_.scale_of.at(weight))));
      }
    } else if (last == "comfy_quant") {
      if (entry.dtype != DType::kU8 || entry.bytes > kMostMarkerText) {
        throw Error(Kind::kCheckpoint, str(file_, ": ", in_quotes(name), " must be a text of bytes, found ",
                                           name_of(entry.dtype), " ", shape_text(entry.shape)));
      }
      check_layer(parse(read_(entry), name), name, weight);
    } else if (last != "scale_input" && last != "input_scale") {
      return;
    }
    found_.marks.insert(name);
  }

  void check_scale(const std::string& name, const TensorEntry& scale, const TensorEntry& weight) const {
    if (weight.dtype == DType::kI8) refuse("8-bit integers with a scale (int8)", name);
    if (weight.dtype == DType::kU8 || weight.dtype == DType::kF4)
      refuse("4-bit floats with scales (nvfp4)", name);
    if (scale.dtype == DType::kU8 || scale.dtype == DType::kF8E8M0) {
      refuse("8-bit floats with a scale for each group of 32 (mxfp8)", name);
    }
    const auto& shape = scale.shape;
    int64_t numbers = 1;
    for (const int64_t n : shape) numbers *= n;  // no more than the file has bytes
    const bool is_number = numbers == 1;
    const bool is_row =
        !weight.shape.empty() && numbers == weight.shape[0] && !shape.empty() && shape[0] == numbers;
    if (is_integer(scale.dtype) || !can_decode(scale.dtype) || !is_plain(scale.dtype) ||
        !can_decode(weight.dtype)) {
      refuse(str("a scale of type ", name_of(scale.dtype), " for ", name_of(weight.dtype)), name);
    }
    if (!is_number && !is_row) {
      refuse(str("scales ", shape_text(shape), " of blocks of ", shape_text(weight.shape)), name);
    }
  }

  void refuse_by_type(const std::string& name, const TensorEntry& entry) const {
    if (entry.dtype == DType::kF4) refuse("4-bit floats (F4)", name);
    if (entry.dtype == DType::kF8E8M0) refuse("scales of groups of 32 (F8_E8M0: mxfp8 or mxfp4)", name);
    if (entry.shape.size() >= 2 && is_integer(entry.dtype) && name.ends_with(".weight")) {
      refuse(str("integers (", name_of(entry.dtype), ") where numbers with a point belong"), name);
    }
  }

  std::string_view file_;
  const Entries& entries_;
  const ReadBytes& read_;
  Reduced found_;
  bool is_marked_ = false;          // the whole file: "scaled_fp8"
  std::set<std::string> promised_;  // weights that the file says to be scaled
};

}  // namespace

Reduced find_reduced(std::string_view file, const Entries& entries, const FileMetadata& metadata,
                     const ReadBytes& read) {
  return Finder(file, entries, read).run(metadata);
}

}  // namespace atelier::weights
