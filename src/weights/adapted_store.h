// Adapters, merged into a checkpoint's weights while these are read, and only into the slice that is read.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "weights/adapter_file.h"
#include "weights/layer_names.h"
#include "weights/store_decorator.h"

namespace atelier::weights {

// One layer of an adapter, and where its rows lie in the model.
struct LayerChange {
  std::shared_ptr<const AdapterFile> file;
  const AdapterLayer* layer = nullptr;  // of the file
  double strength = 1;
  LayerPieces pieces;
};
using LayerChangePtr = std::shared_ptr<const LayerChange>;

// What adapters change in one component, by the canonical names of weights and biases, in the order in which
// they are merged: sums commute, DoRA's norms do not.
class Changes {
 public:
  void add(const LayerChangePtr& change);
  const std::vector<LayerChangePtr>* find(std::string_view tensor) const;
  std::vector<std::string> tensors() const;
  // Tensors that are not the same under both.
  static std::set<std::string, std::less<>> differing(const Changes& a, const Changes& b);

 private:
  std::map<std::string, std::vector<LayerChangePtr>, std::less<>> by_tensor_;
};

// With s = strength * alpha / rank: W + s B A; of DoRA m (W + s B A) / |W + s B A|, where the length is
// that of the whole row (or column) whatever slice of it is read. Everything in float (double for
// double), rounded once.
class AdaptedStore : public StoreDecorator {
 public:
  explicit AdaptedStore(std::unique_ptr<WeightStore> base, Changes changes = {})
      : StoreDecorator(std::move(base)), changes_(std::move(changes)) {}

  // Everything that is read from now on has these changes and no others. Nobody may be reading.
  void adapt(Changes changes) { changes_ = std::move(changes); }
  const Changes& changes() const { return changes_; }

  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override;

 private:
  // Of a canonical matrix [rows, everything else]; none: all.
  struct HeldPart {
    std::vector<Range> rows, cols;
  };
  // A tensor's slice as the first `count` of its changes leave it, as a matrix.
  at::Tensor merged(std::string_view name, at::IntArrayRef full, const HeldPart& cut, size_t count,
                    const at::TensorOptions& options) const;
  void merge(at::Tensor& matrix, std::string_view name, const HeldPart& cut, const LayerChange& change) const;
  // Of a whole layer, before its lengths become the adapter's. [in]
  at::Tensor column_norms(const LayerChange& change, const at::TensorOptions& options) const;

  Changes changes_;
};

}  // namespace atelier::weights
