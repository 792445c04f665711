#include "weights/adapter_file.h"

#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/fingerprint.h"
#include "base/quote.h"
#include "base/text.h"
#include "weights/adapter_config.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPeftFile = "adapter_model.safetensors";

enum class Role : uint8_t { kUp, kDown, kAlpha, kNorms, kBias, kWhole, kWholeBias };

struct Ending {
  std::string_view text;
  Role role;
};
// diffusers, PEFT; kohya and LyCORIS; diffusers of old; XLabs. The first that fits counts.
constexpr std::array<Ending, 25> kEndings{{{".lora_A.weight", Role::kDown},
                                           {".lora_B.weight", Role::kUp},
                                           {".lora_A.default.weight", Role::kDown},
                                           {".lora_B.default.weight", Role::kUp},
                                           {".lora_B.bias", Role::kBias},
                                           {".lora_B.default.bias", Role::kBias},
                                           {".lora_magnitude_vector", Role::kNorms},
                                           {".lora_magnitude_vector.weight", Role::kNorms},
                                           {".lora_magnitude_vector.default", Role::kNorms},
                                           {".lora_magnitude_vector.default.weight", Role::kNorms},
                                           {".lora_down.weight", Role::kDown},
                                           {".lora_up.weight", Role::kUp},
                                           {".lora_up.bias", Role::kBias},
                                           {".alpha", Role::kAlpha},
                                           {".dora_scale", Role::kNorms},
                                           {".diff", Role::kWhole},
                                           {".diff_b", Role::kWholeBias},
                                           {".lora.down.weight", Role::kDown},
                                           {".lora.up.weight", Role::kUp},
                                           {".lora_linear_layer.down.weight", Role::kDown},
                                           {".lora_linear_layer.up.weight", Role::kUp},
                                           {"_lora.down.weight", Role::kDown},
                                           {"_lora.up.weight", Role::kUp},
                                           {".down.weight", Role::kDown},
                                           {".up.weight", Role::kUp}}};

struct Other {
  std::string_view glob, what;
};
constexpr std::array<Other, 9> kOthers{{{"*.hada_w*", "LoHa"},
                                        {"*.lokr_w*", "LoKr"},
                                        {"*.lokr_t2", "LoKr"},
                                        {"*.lora_mid.weight", "LoCon with a third factor (Tucker)"},
                                        {"*.oft_*", "OFT"},
                                        {"*.boft_*", "BOFT"},
                                        {"*.ia3_*", "IA3"},
                                        {"*.lora_embedding_*", "a LoRA of an embedding"},
                                        {"*.set_weight", "replaced weights"}}};

// One layer's tensors as they are found.
struct Parts {
  std::map<Role, const TensorEntry*> entries;
  std::string name_of_norms;
  const TensorEntry* get(Role role) const {
    const auto at = entries.find(role);
    return at == entries.end() ? nullptr : at->second;
  }
};

int64_t product(std::span<const int64_t> sizes) {
  int64_t n = 1;
  for (const int64_t size : sizes) n *= size;
  return n;
}

class LayerReader {
 public:
  LayerReader(const TensorFile& file, const AdapterScales& scales)
      : file_(file), where_(file.path().string()), scales_(scales) {}

  std::vector<AdapterLayer> run() {
    collect();
    std::vector<AdapterLayer> out;
    for (const auto& [name, parts] : found_) out.push_back(layer(name, parts));
    if (out.empty()) fail("it holds no layer of an adapter");
    return out;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(Kind::kCheckpoint, str(where_, ": ", what));
  }

  void collect() {
    std::vector<std::string> strange;
    for (const auto& [name, entry] : file_.entries()) {
      const auto ending = std::find_if(kEndings.begin(), kEndings.end(),
                                       [&](const Ending& e) { return name.ends_with(e.text); });
      if (ending == kEndings.end()) {
        refuse_kind(name);
        strange.push_back(in_quotes(name));
        continue;
      }
      auto& parts = found_[name.substr(0, name.size() - ending->text.size())];
      if (!parts.entries.emplace(ending->role, &entry).second)
        fail(str(in_quotes(name), " stands there in two spellings"));
      if (ending->role == Role::kNorms) parts.name_of_norms = ending->text;
    }
    if (!strange.empty())
      fail(str("tensors that are no part of a LoRA in any spelling known here: ", list_text(strange, 5)));
  }

  void refuse_kind(std::string_view name) const {
    for (const auto& other : kOthers) {
      if (glob_matches(other.glob, name))
        fail(str("it is ", other.what, " (tensor ", in_quotes(name), "); LoRA and DoRA are read here"));
    }
  }

  AdapterLayer layer(const std::string& name, const Parts& parts) const {
    AdapterLayer out{.name = name,
                     .up = parts.get(Role::kUp),
                     .down = parts.get(Role::kDown),
                     .whole = parts.get(Role::kWhole),
                     .norms = parts.get(Role::kNorms)};
    if (!out.up != !out.down)
      fail(str(in_quotes(name), " has only one of its two factors; download the file again"));
    if (out.up && out.whole) fail(str(in_quotes(name), " has factors and a whole difference"));
    const auto* bias = parts.get(Role::kBias);
    const auto* whole_bias = parts.get(Role::kWholeBias);
    out.bias = bias ? bias : whole_bias;
    if (bias && whole_bias) fail(str(in_quotes(name), " has two changes of its bias"));
    if (out.up) take_factors(out, parts.get(Role::kAlpha));
    if (out.whole) take_whole(out);
    if (bias) out.bias_scale = out.scale;
    if (out.bias) take_bias(out);
    if (out.rows == 0) fail(str(in_quotes(name), " has an alpha or norms and nothing that they belong to"));
    take_norms(out, parts.name_of_norms == ".dora_scale");
    return out;
  }

  // A [rank, in, ...], B [out, rank, 1, ...].
  void take_factors(AdapterLayer& out, const TensorEntry* alpha) const {
    const auto &up = out.up->shape, &down = out.down->shape;
    const bool is_matrix = up.size() >= 2 && down.size() >= 2 && up[1] == down[0] && up[1] > 0 &&
                           product(std::span(up).subspan(2)) == 1;
    if (!is_matrix)
      fail(str(in_quotes(out.name), ": up ", shape_text(up), " and down ", shape_text(down),
               " are no factors of a matrix"));
    out.rows = up[0];
    out.cols = product(std::span(down).subspan(1));
    std::optional<double> own;
    if (alpha) own = number(*alpha, out.name);
    out.scale = scale_of(out, up[1], own);
  }

  void take_whole(AdapterLayer& out) const {
    const auto& shape = out.whole->shape;
    if (shape.empty()) fail(str(in_quotes(out.name), ": its difference is no matrix"));
    out.rows = shape[0];
    out.cols = product(std::span(shape).subspan(1));
  }

  void take_bias(AdapterLayer& out) const {
    const int64_t size = product(out.bias->shape);
    if (out.rows == 0) out.rows = size;
    if (size != out.rows)
      fail(str(in_quotes(out.name), ": its bias ", shape_text(out.bias->shape), " has not ", out.rows,
               " numbers"));
  }

  // [out], [out, 1, ...], of a PEFT convolution [1, out, 1, 1]: of outputs. LyCORIS [1, in, ...]: of inputs.
  void take_norms(AdapterLayer& out, bool is_lycoris) const {
    if (!out.norms) {
      if (!out.up) return;
      const auto* scales = part_of(out.name).second;
      if (scales && scales->has_norms)
        fail(str("use_dora is set, but ", in_quotes(out.name), " has no magnitudes; download it again"));
      return;
    }
    const auto& shape = out.norms->shape;
    const int64_t size = product(shape);
    const bool is_flat = shape.size() >= 2 && shape[0] == 1 && shape[1] == size && size > 1;
    const int64_t inputs = out.down && out.down->shape.size() >= 2 ? out.down->shape[1] : 0;
    if (out.up && is_lycoris && is_flat && size == inputs) {
      out.kind = AdapterLayer::Norms::kColumns;
    } else if (out.up && size == out.rows) {
      out.kind = AdapterLayer::Norms::kRows;
    } else {
      fail(str(in_quotes(out.name), ": its magnitudes ", shape_text(shape), " fit neither its ", out.rows,
               " outputs nor its inputs"));
    }
  }

  double number(const TensorEntry& entry, std::string_view layer) const {
    if (product(entry.shape) != 1) fail(str(in_quotes(layer), ": its alpha is no single number"));
    return read_tensor(file_, entry).to(at::kDouble).item<double>();
  }

  std::pair<size_t, const PartScales*> part_of(std::string_view name) const {
    std::pair<size_t, const PartScales*> longest{0, nullptr};
    for (const auto& [prefix, scales] : scales_) {
      if (name.starts_with(prefix)) longest = {prefix.size(), &scales};
    }
    return longest;
  }

  double scale_of(const AdapterLayer& layer, int64_t rank, std::optional<double> own) const {
    const auto [prefix, scales] = part_of(layer.name);
    const double scale = scales ? scales->scale(std::string_view(layer.name).substr(prefix), rank, own)
                                : PartScales().scale({}, rank, own);
    if (!std::isfinite(scale)) fail(str(in_quotes(layer.name), ": its alpha is not finite"));
    return scale;
  }

  const TensorFile& file_;
  std::string where_;
  const AdapterScales& scales_;
  std::map<std::string, Parts> found_;
};

// PEFT's; empty: there is none.
fs::path config_beside(const fs::path& file) {
  const fs::path config = file.parent_path() / "adapter_config.json";
  return file.filename() == kPeftFile && fs::exists(config) ? config : fs::path();
}

[[noreturn]] void none_in(const fs::path& place, std::string_view why) {
  throw Error(Kind::kUsage, str("--lora ", place.string(), ": ", why));
}

}  // namespace

fs::path find_adapter(const fs::path& place) {
  if (!fs::exists(place)) none_in(place, "there is no such file or folder");
  if (fs::is_regular_file(place)) return place;
  if (!fs::is_directory(place))
    none_in(place, "it is no file; a .safetensors file is needed, or a folder with one");
  for (const char* name : {kPeftFile, "pytorch_lora_weights.safetensors"}) {
    if (fs::exists(place / name)) return place / name;
  }
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(place)) {
    if (file.path().extension() == ".safetensors") files.push_back(file.path());
  }
  if (files.size() == 1) return files.front();
  none_in(place, files.empty() ? "the folder holds no .safetensors file"
                               : "the folder holds several .safetensors files; name one of them");
}

AdapterFile::AdapterFile(const fs::path& place)
    : file_(std::make_unique<const TensorFile>(TensorFile::open(find_adapter(place)))) {
  const fs::path config = config_beside(path());
  const auto scales = config.empty() ? scales_of_header(file_->metadata(), path()) : scales_of_folder(config);
  layers_ = LayerReader(*file_, scales).run();
}

at::Tensor AdapterFile::read(const TensorEntry& entry) const {
  return read_tensor(*file_, entry).to(at::kFloat);
}

void AdapterFile::check_numbers() const {
  for (const auto& [name, entry] : file_->entries()) {
    const auto tensor = read(entry);
    if (at::isfinite(tensor).all().item<bool>()) continue;
    throw Error(Kind::kCheckpoint, str(path().string(), ": ", in_quotes(name),
                                       " holds NaN or infinity; download the file again"));
  }
}

std::string adapter_digest(const fs::path& place) {
  const fs::path file = find_adapter(place), config = config_beside(file);
  std::string digest = fingerprint(file, Depth::kFull);
  if (!config.empty()) digest = sha256(digest + read_file(config));
  return digest.substr(0, 16);
}

}  // namespace atelier::weights
