// Under which names a model's layers go: those of its checkpoints in any naming that its rules know, with
// dots, or with underscores in their place as kohya writes them. Tables are made of the model's own paths; no
// name is ever split.
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/names.h"
#include "weights/store.h"

namespace atelier::weights {

// Rows of a layer in some naming, and where they lie in a canonical tensor's matrix.
struct LayerPiece {
  std::string canonical;      // the weight's name
  std::vector<int64_t> full;  // and its shape
  int64_t first = 0;          // row of the layer
  Range rows, cols;           // of the canonical matrix [rows, everything else]
  int64_t first_col = 0;      // column of the layer
  bool operator==(const LayerPiece&) const = default;
};
using LayerPieces = std::vector<LayerPiece>;

class LayerNames {
 public:
  LayerNames() = default;
  // tensors: all of the model. Parts of a fused tensor of which a rule does not say how long they are
  // are equally long.
  LayerNames(std::span<const NameRule> rules, std::span<const ManifestEntry> tensors);
  LayerNames(LayerNames&&) = default;  // a table points into another one
  LayerNames& operator=(LayerNames&&) = default;

  // Null: no layer has this name.
  const LayerPieces* find(std::string_view layer) const;
  const LayerPieces* find_flat(std::string_view layer) const;
  // Matrix of a whole layer.
  static int64_t rows_of(const LayerPieces& pieces);
  static int64_t cols_of(const LayerPieces& pieces);

  std::vector<std::string> all(char separator) const;  // with '.' or '_'

 private:
  void add(const NameRule& rule, const ManifestEntry& tensor);
  void flatten();

  std::map<std::string, LayerPieces, std::less<>> layers_;
  std::map<std::string, const LayerPieces*, std::less<>> flat_;  // null: two layers have this name
};

}  // namespace atelier::weights
