#include "weights/layer_names.h"

#include <algorithm>
#include <optional>

namespace atelier::weights {
namespace {

// "a.b" of "a.b.weight"; a table that is no weight has its own name. A bias belongs to its layer.
std::optional<std::string_view> layer_of(std::string_view tensor) {
  if (tensor.ends_with(".bias")) return std::nullopt;
  if (!tensor.ends_with(kWeightEnding)) return tensor;
  return tensor.substr(0, tensor.size() - kWeightEnding.size());
}

Range all_rows(const ManifestEntry& tensor) {
  return {0, tensor.shape.front()};
}

Range all_cols(const ManifestEntry& tensor) {
  int64_t n = 1;
  for (size_t i = 1; i < tensor.shape.size(); ++i) n *= tensor.shape[i];
  return {0, n};
}

// How long each part of a rule is along its axis; empty: they do not make up `whole`.
std::vector<int64_t> lengths(const NameRule& rule, int64_t whole) {
  std::vector<int64_t> out;
  int64_t left = whole, unknown = 0;
  for (const auto& part : rule.parts) {
    unknown += part.rows.size == 0 ? 1 : 0;
    left -= part.rows.size;
    out.push_back(part.rows.size);
  }
  if (left < 0 || (unknown > 0 ? left % unknown != 0 : left != 0)) return {};
  for (auto& length : out) length = length == 0 ? left / unknown : length;
  return out;
}

std::string flat(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

}  // namespace

LayerNames::LayerNames(std::span<const NameRule> rules, std::span<const ManifestEntry> tensors) {
  for (const auto& tensor : tensors) {
    if (tensor.shape.empty() || !layer_of(tensor.name)) continue;
    for (const auto& rule : rules) add(rule, tensor);
  }
  for (const auto& tensor : tensors) {
    const auto layer = layer_of(tensor.name);
    if (tensor.shape.empty() || !layer) continue;
    layers_.try_emplace(std::string(*layer),
                        LayerPieces{{tensor.name, tensor.shape, 0, all_rows(tensor), all_cols(tensor)}});
  }
  flatten();
}

void LayerNames::add(const NameRule& rule, const ManifestEntry& tensor) {
  const auto found = match(rule.canonical, tensor.name);
  if (!found || rule.is_transposed) return;
  const Range rows = all_rows(tensor), cols = all_cols(tensor);
  const auto each = lengths(rule, rule.axis == 0 ? rows.size : cols.size);
  int64_t at = 0;
  for (size_t i = 0; i < each.size(); ++i) {
    const Range here{at, each[i]};
    at += each[i];
    const std::string part = fill(rule.parts[i].name, *found);
    const auto layer = layer_of(part);
    if (!layer) continue;
    LayerPiece piece{tensor.name, tensor.shape, rule.parts[i].rows.begin, rule.axis == 0 ? here : rows,
                     rule.axis == 0 ? cols : here};
    auto& pieces = layers_[std::string(*layer)];
    if (std::find(pieces.begin(), pieces.end(), piece) == pieces.end()) pieces.push_back(std::move(piece));
  }
}

void LayerNames::flatten() {
  for (const auto& [name, pieces] : layers_) {
    const auto [at, is_new] = flat_.try_emplace(flat(name), &pieces);
    if (!is_new && at->second && *at->second != pieces) at->second = nullptr;
  }
}

const LayerPieces* LayerNames::find(std::string_view layer) const {
  const auto at = layers_.find(layer);
  return at == layers_.end() ? nullptr : &at->second;
}

const LayerPieces* LayerNames::find_flat(std::string_view layer) const {
  const auto at = flat_.find(layer);
  return at == flat_.end() ? nullptr : at->second;
}

int64_t LayerNames::rows_of(const LayerPieces& pieces) {
  int64_t rows = 0;
  for (const auto& p : pieces) rows = std::max(rows, p.first + p.rows.size);
  return rows;
}

int64_t LayerNames::cols_of(const LayerPieces& pieces) {
  return pieces.empty() ? 0 : pieces.front().cols.size;
}

std::vector<std::string> LayerNames::all(char separator) const {
  std::vector<std::string> out;
  for (const auto& [name, _] : layers_) out.push_back(separator == '.' ? name : flat(name));
  return out;
}

}  // namespace atelier::weights
