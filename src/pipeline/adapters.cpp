#include "pipeline/adapters.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "models/presets.h"

namespace atelier::pipeline {
namespace fs = std::filesystem;
namespace {

using weights::AdapterLayer;
using weights::LayerNames;

constexpr size_t kMostFiles = 32;    // that are remembered
constexpr size_t kMostListed = 5;    // layers in a message
constexpr size_t kMostEncoders = 3;  // that trainers number

// Trainers that know one denoiser need no name for it: PEFT; ComfyUI; the original repositories; kohya,
// LyCORIS and OneTrainer; XLabs.
constexpr std::array kAnyDenoiser{
    std::pair{"base_model.model.", '.'}, std::pair{"base_model.model.diffusion_model.", '.'},
    std::pair{"diffusion_model.", '.'},  std::pair{"model.diffusion_model.", '.'},
    std::pair{"lora_unet_", '_'},        std::pair{"lora_transformer_", '_'},
    std::pair{"lycoris_", '_'},          std::pair{"", '.'}};

// kohya's number of an encoder, from 1. FLUX has two, of which the second is the third of SD3.
std::vector<std::string> numbered(size_t index, size_t count) {
  std::vector<std::string> out{str("lora_te", index + 1, "_")};
  if (index == 0) out.push_back("lora_te_");
  for (size_t beyond = count; index + 1 == count && beyond < kMostEncoders; ++beyond)
    out.push_back(str("lora_te", beyond + 1, "_"));
  return out;
}

void replace(std::string& text, std::string_view from, std::string_view to) {
  if (const size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

// A layer's path as it was written while attention processors held the factors (diffusers before 0.21).
std::string path_of_processor(std::string_view path, bool is_encoder) {
  std::string out(path);
  replace(out, ".processor.", ".");
  if (!is_encoder) {
    if (out.ends_with(".to_out")) out += ".0";
    return out;
  }
  for (const char* word : {"q", "k", "v", "out"}) {
    if (out.ends_with(str(".to_", word))) replace(out, str(".to_", word), str(".", word, "_proj"));
  }
  return out;
}

std::string shape_of(int64_t rows, int64_t cols) {
  return str("[", rows, ", ", cols, "]");
}

// The family that knows most of the file's names, if it is not this one: whose adapter it is.
template <class CountBound>
std::string other_family(const models::Family& ours, const CountBound& count) {
  std::string name;
  size_t most = 0;
  for (const auto* family : models::families()) {
    if (family == &ours || family->presets.empty()) continue;
    const size_t bound = count(*family);
    if (bound > most) name = family->name, most = bound;
  }
  return name;
}

}  // namespace

const std::vector<Adapters::Part>& Adapters::parts() {
  if (!parts_.empty()) return parts_;
  const auto add = [&](std::string_view name, std::map<std::string, char, std::less<>> prefixes,
                       bool is_encoder) {
    const auto& component = model_.component(name);
    const auto tensors = tensors_of(model_.family(), component);
    prefixes[str(name, ".")] = '.';
    Part part{.name = component.name,
              .is_encoder = is_encoder,
              .prefixes = std::move(prefixes),
              .names = LayerNames(names_of(model_.family(), component), tensors)};
    for (const auto& tensor : tensors) part.tensors.insert(tensor.name);
    parts_.push_back(std::move(part));
  };
  const auto experts = model_.experts();
  for (const auto name : experts) {
    std::map<std::string, char, std::less<>> prefixes;
    if (name == experts.front()) prefixes.insert(kAnyDenoiser.begin(), kAnyDenoiser.end());
    prefixes[str("base_model.model.", name, ".")] = '.';
    add(name, std::move(prefixes), false);
  }
  const auto encoders = model_.encoders();
  const auto& all = model_.family().encoders;
  for (const auto& encoder : encoders) {
    std::map<std::string, char, std::less<>> prefixes{{"base_model.model.", '.'}, {"", '.'}};
    const auto at = std::find_if(all.begin(), all.end(), [&](auto& e) { return e.folder == encoder.folder; });
    for (auto& prefix : numbered(static_cast<size_t>(at - all.begin()), all.size()))
      prefixes[std::move(prefix)] = '_';
    add(encoder.folder, std::move(prefixes), true);
  }
  return parts_;
}

std::optional<Adapters::BoundLayer> Adapters::place_of(const AdapterLayer& layer) {
  const std::string_view name = layer.name;
  size_t longest = 0;
  std::optional<BoundLayer> found;
  for (const auto& part : parts()) {
    for (const auto& [prefix, separator] : part.prefixes) {
      if (!name.starts_with(prefix) || (found && prefix.size() <= longest)) continue;
      auto path = name.substr(prefix.size());
      // Some trainers write one underscore more: "lora_unet__blocks_0_self_attn_q".
      if (separator == '_' && path.starts_with('_')) path.remove_prefix(1);
      const auto* pieces = separator == '_' ? part.names.find_flat(path) : part.names.find(path);
      if (!pieces && separator == '.') pieces = part.names.find(path_of_processor(path, part.is_encoder));
      if (!pieces) continue;
      found = {&layer, &part, pieces};
      longest = prefix.size();
    }
  }
  return found;
}

// A layer that takes more inputs than the model's has the others as a tensor of their own.
bool Adapters::widen(BoundLayer& bound, std::list<weights::LayerPieces>& kept) {
  const auto& own = bound.pieces->front().canonical;
  const auto* more = bound.part->names.find(own.substr(0, own.rfind('.')) + ".added");
  const int64_t cols = LayerNames::cols_of(*bound.pieces);
  if (!more || bound.layer->cols != cols + LayerNames::cols_of(*more)) return false;
  auto& all = kept.emplace_back(*bound.pieces);
  for (auto piece : *more) {
    piece.first_col = cols;
    all.push_back(std::move(piece));
  }
  bound.pieces = &all;
  return true;
}

void Adapters::bind(BoundFile& made) {
  const auto& file = *made.file;
  auto& bound = made.layers;
  std::vector<std::string> unbound, unused, misfits;
  for (const auto& layer : file.layers()) {
    auto place = place_of(layer);
    if (!place) {  // the reference has layers whose results it throws away
      const bool is_unused = any_glob_matches(model_.family().ignorable, layer.name + ".weight");
      (is_unused ? unused : unbound).push_back(layer.name);
      continue;
    }
    const int64_t rows = LayerNames::rows_of(*place->pieces), cols = LayerNames::cols_of(*place->pieces);
    const bool is_wide = layer.rows == rows && widen(*place, made.widened);
    if (layer.rows != rows || (layer.cols > 0 && layer.cols != cols && !is_wide)) {
      misfits.push_back(str(in_quotes(layer.name), " is for ", shape_of(layer.rows, layer.cols),
                            ", the model has ", shape_of(rows, cols)));
    }
    if (is_wide && layer.kind != AdapterLayer::Norms::kNone)
      misfits.push_back(str(in_quotes(layer.name), " adds inputs to its layer, which DoRA cannot scale"));
    for (const auto& piece : *place->pieces) {
      if (piece.first_col > 0) continue;  // inputs that are added share the layer's bias
      const auto bias = piece.canonical.substr(0, piece.canonical.rfind('.')) + ".bias";
      if (layer.bias && !place->part->tensors.contains(bias))
        misfits.push_back(str(in_quotes(layer.name), " changes a bias, and the model's layer has none"));
    }
    bound.push_back(*place);
  }
  if (bound.empty()) unbound.insert(unbound.end(), unused.begin(), unused.end());
  if (!unbound.empty()) refuse_names(file, unbound);
  if (!misfits.empty()) {
    throw Error(Kind::kCheckpoint,
                str(file.path().string(), ": the adapter is for a model of other sizes than ", model_.label(),
                    ": ", list_text(misfits, kMostListed)));
  }
}

void Adapters::refuse_names(const weights::AdapterFile& file, const std::vector<std::string>& unbound) {
  std::vector<std::string> shown, known;
  for (const auto& name : unbound) shown.push_back(in_quotes(name));
  std::string message =
      str(file.path().string(), ": ", unbound.size(), " of the adapter's ", file.layers().size(),
          " layers belong to nothing in ", model_.label(), ": ", list_text(shown, kMostListed));
  const std::string other = other_family(model_.family(), [&](const models::Family& family) {
    const auto random = ModelRepo::dummy(std::string(family.presets.front().name), 0);
    Adapters theirs(random);
    return static_cast<size_t>(
        std::count_if(file.layers().begin(), file.layers().end(),
                      [&](const auto& layer) { return theirs.place_of(layer).has_value(); }));
  });
  if (unbound.size() == file.layers().size() && !other.empty())
    throw Error(Kind::kCheckpoint, str(message, "; it is an adapter for ", other));
  for (const auto& part : parts()) {
    for (const auto& [prefix, separator] : part.prefixes) {
      if (prefix.empty() || !unbound.front().starts_with(prefix)) continue;
      for (const auto& name : part.names.all(separator)) known.push_back(prefix + name);
    }
  }
  const auto near = nearest(unbound.front(), known, 3);
  if (!near.empty()) message += str("; nearest to the first: ", list_text(near, near.size()));
  throw Error(Kind::kCheckpoint, message);
}

const Adapters::BoundFile& Adapters::open(const fs::path& place) {
  const fs::path path = weights::find_adapter(place);
  const auto time = fs::last_write_time(path);
  const auto bytes = fs::file_size(path);
  const auto known =
      std::find_if(files_.begin(), files_.end(), [&](const BoundFile& f) { return f.path == path; });
  if (known != files_.end()) {
    files_.splice(files_.begin(), files_, known);
    if (known->time == time && known->bytes == bytes) return *known;
    files_.pop_front();
  }
  BoundFile made{.path = path, .time = time, .bytes = bytes, .file = {}, .layers = {}, .widened = {}};
  made.file = std::make_shared<const weights::AdapterFile>(path);
  bind(made);
  files_.push_front(std::move(made));
  if (files_.size() > kMostFiles) files_.pop_back();
  return files_.front();
}

std::string Adapters::widening(std::span<const request::AdapterRef> adapters) {
  for (const auto& adapter : adapters) {
    if (!open(adapter.path).widened.empty()) return adapter.path;
  }
  return {};
}

ChangesOf Adapters::bind(std::span<const request::AdapterRef> adapters) {
  ChangesOf out;
  for (const auto& adapter : adapters) {
    const auto& bound = open(adapter.path);
    for (const auto& layer : bound.layers) {
      out[layer.part->name].add(std::make_shared<const weights::LayerChange>(
          weights::LayerChange{bound.file, layer.layer, adapter.strength, *layer.pieces}));
    }
  }
  return out;
}

}  // namespace atelier::pipeline
