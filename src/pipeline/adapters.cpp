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
constexpr std::string_view kPeft = "base_model.model.";

// Trainers that know one denoiser need no name for it: PEFT; ComfyUI; the original repositories; kohya,
// LyCORIS and OneTrainer; XLabs.
constexpr std::array<std::pair<std::string_view, char>, 8> kAnyDenoiser{
    {{"base_model.model.", '.'},
     {"base_model.model.diffusion_model.", '.'},
     {"diffusion_model.", '.'},
     {"model.diffusion_model.", '.'},
     {"lora_unet_", '_'},
     {"lora_transformer_", '_'},
     {"lycoris_", '_'},
     {"", '.'}}};

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

// Some trainers write one underscore more: "lora_unet__blocks_0_self_attn_q".
const weights::LayerPieces* find_flat(const LayerNames& names, std::string_view path) {
  const std::string plain = weights::unwrapped_flat(path);
  return names.find_flat(std::string_view(plain).substr(plain.starts_with('_') ? 1 : 0));
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

// Words that a prefix which means nothing does not hold: names of parts of any model, and numbers.
bool is_part_or_index(std::string_view word) {
  constexpr std::array<std::string_view, 7> kParts{"transformer", "unet",          "text_encoder", "vae",
                                                   "prior",       "image_encoder", "controlnet"};
  if (!word.empty() && word.find_first_not_of("0123456789") == word.npos) return true;
  return std::any_of(kParts.begin(), kParts.end(), [&](auto part) { return word.starts_with(part); });
}

// The experts that a file's layers are named after.
std::set<std::string> named_experts(const weights::AdapterFile& file, const ModelRepo& model) {
  std::set<std::string> out;
  for (const auto& layer : file.layers()) {
    std::string_view name = layer.name;
    if (name.starts_with(kPeft)) name.remove_prefix(kPeft.size());
    for (const auto expert : model.experts()) {
      if (name.starts_with(str(expert, "."))) out.emplace(expert);
    }
  }
  return out;
}

}  // namespace

const std::vector<Adapters::Part>& Adapters::parts() {
  if (!parts_.empty()) return parts_;
  const auto add = [&](std::string_view name, Prefixes prefixes, bool is_encoder) {
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
  for (const auto name : model_.experts()) add(name, {{str("base_model.model.", name, "."), '.'}}, false);
  const auto encoders = model_.encoders();
  const auto& all = model_.family().encoders;
  for (const auto& encoder : encoders) {
    Prefixes prefixes{{"base_model.model.", '.'}, {"", '.'}};
    const auto at = std::find_if(all.begin(), all.end(), [&](auto& e) { return e.folder == encoder.folder; });
    for (auto& prefix : numbered(static_cast<size_t>(at - all.begin()), all.size()))
      prefixes[std::move(prefix)] = '_';
    add(encoder.folder, std::move(prefixes), true);
  }
  return parts_;
}

// Where an expert is asked for, the others' layers are out of reach, and the first one's names are its own:
// trainers name whichever they trained like the only one.
std::optional<Adapters::BoundLayer> Adapters::place_of(const AdapterLayer& layer, std::string_view name,
                                                       std::string_view expert) {
  size_t longest = 0;
  std::optional<BoundLayer> found;
  const auto look = [&](const Part& part, const auto& prefixes) {
    for (const auto& [prefix, separator] : prefixes) {
      if (!name.starts_with(prefix) || (found && prefix.size() <= longest)) continue;
      const auto path = name.substr(prefix.size());
      const auto* pieces = separator == '_' ? find_flat(part.names, path) : part.names.find(path);
      if (!pieces && separator == '.') pieces = part.names.find(path_of_processor(path, part.is_encoder));
      if (!pieces) continue;
      found = {&layer, &part, pieces};
      longest = prefix.size();
    }
  };
  const auto& all = parts();
  const auto& first = all.front();
  const std::string_view meant = expert.empty() ? std::string_view(first.name) : expert;
  for (const auto& part : all) {
    if (part.name == meant) look(part, kAnyDenoiser), look(part, first.prefixes);
    if (part.is_encoder || expert.empty() || part.name == meant) look(part, part.prefixes);
  }
  return found;
}

// How much of all names stands before those that belong to the denoiser, where none does as it is written: up
// to a dot, and neither the name of a part nor within a list. 0: no such prefix.
size_t Adapters::strange_prefix(const weights::AdapterFile& file, std::string_view expert) {
  const auto& layers = file.layers();
  const std::string_view first = layers.front().name;
  const auto all_belong = [&](size_t begin) {
    return std::all_of(layers.begin(), layers.end(), [&](const AdapterLayer& layer) {
      const auto place = place_of(layer, std::string_view(layer.name).substr(begin), expert);
      return place && !place->part->is_encoder;
    });
  };
  size_t common = layers.size() > 1 ? first.size() : 0;
  for (const auto& layer : layers) {
    if (place_of(layer, layer.name, expert)) return 0;
    const std::string_view name = layer.name;
    const auto end = std::mismatch(name.begin(), name.end(), first.begin(), first.end()).first;
    common = std::min(common, static_cast<size_t>(end - name.begin()));
  }
  for (size_t begin = 0, dot = first.find('.'); dot < common; begin = dot + 1, dot = first.find('.', begin)) {
    const auto word = first.substr(begin, dot - begin);
    if (is_part_or_index(word)) return 0;
    if (all_belong(dot + 1)) return dot + 1;
  }
  return 0;
}

void Adapters::check_expert(const weights::AdapterFile& file, std::string_view expert) const {
  const auto all = model_.experts();
  const std::vector<std::string> known(all.begin(), all.end());
  if (std::find(known.begin(), known.end(), expert) == known.end()) {
    throw Error(Kind::kUsage,
                str("lora: ", file.path().string(), " was asked for the expert ", in_quotes(expert), ", and ",
                    model_.label(), " has ", list_text(known, known.size())));
  }
  auto named = named_experts(file, model_);
  if (named == std::set<std::string>{known.front()}) return;  // what trainers call their only one
  named.erase(std::string(expert));
  if (named.empty()) return;
  throw Error(Kind::kCheckpoint,
              str(file.path().string(), ": the adapter names layers of ", *named.begin(), " itself, and ",
                  expert, " was asked for: leave \"@", expert, "\" away"));
}

std::vector<std::string> Adapters::unmentioned(const request::AdapterRef& adapter) {
  std::vector<std::string> out;
  const auto all = model_.experts();
  if (!adapter.expert.empty() || !named_experts(*open(adapter).file, model_).empty()) return out;
  for (size_t i = 1; i < all.size(); ++i) out.emplace_back(all[i]);
  return out;
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
  if (!made.expert.empty()) check_expert(file, made.expert);
  std::vector<std::string> unbound, unused, misfits;
  const size_t before = strange_prefix(file, made.expert);
  for (const auto& layer : file.layers()) {
    auto place = place_of(layer, std::string_view(layer.name).substr(before), made.expert);
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
                      [&](const auto& layer) { return theirs.place_of(layer, layer.name, {}).has_value(); }));
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

const Adapters::BoundFile& Adapters::open(const request::AdapterRef& adapter) {
  const fs::path path = weights::find_adapter(adapter.path);
  const auto time = fs::last_write_time(path);
  const auto bytes = fs::file_size(path);
  const auto known = std::find_if(files_.begin(), files_.end(), [&](const BoundFile& f) {
    return f.path == path && f.expert == adapter.expert;
  });
  if (known != files_.end()) {
    files_.splice(files_.begin(), files_, known);
    if (known->time == time && known->bytes == bytes) return *known;
    files_.pop_front();
  }
  BoundFile made{.path = path,
                 .expert = adapter.expert,
                 .time = time,
                 .bytes = bytes,
                 .file = {},
                 .layers = {},
                 .widened = {}};
  made.file = std::make_shared<const weights::AdapterFile>(path);
  bind(made);
  files_.push_front(std::move(made));
  if (files_.size() > kMostFiles) files_.pop_back();
  return files_.front();
}

std::string Adapters::widening(std::span<const request::AdapterRef> adapters) {
  for (const auto& adapter : adapters) {
    if (!open(adapter).widened.empty()) return adapter.path;
  }
  return {};
}

weights::Changes changes_of(const ChangesOf& all, std::string_view component) {
  const auto found = all.find(component);
  return found == all.end() ? weights::Changes() : found->second;
}

ChangesOf Adapters::bind(std::span<const request::AdapterRef> adapters) {
  ChangesOf out;
  for (const auto& adapter : adapters) {
    const auto& bound = open(adapter);
    for (const auto& layer : bound.layers) {
      out[layer.part->name].add(std::make_shared<const weights::LayerChange>(
          weights::LayerChange{bound.file, layer.layer, adapter.strength, *layer.pieces}));
    }
  }
  return out;
}

}  // namespace atelier::pipeline
