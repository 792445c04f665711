#include "weights/adapted_store.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/accumulate.h>

#include <algorithm>

#include "base/check.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

std::string bias_of(std::string_view weight) {
  return std::string(weight.substr(0, weight.size() - kWeightEnding.size())).append(kBiasEnding);
}

// What a layer adds, before its strength: of a bias [rows, 1].
class Difference {
 public:
  Difference(const LayerChange& change, bool is_bias, const at::TensorOptions& options) {
    const auto& layer = *change.layer;
    const auto load = [&](const TensorEntry& entry) { return change.file->read(entry).to(options); };
    if (is_bias) {
      whole_ = load(*layer.bias).reshape({-1, 1});
      scale_ = change.strength * layer.bias_scale;
    } else if (layer.whole) {
      whole_ = load(*layer.whole).reshape({layer.rows, layer.cols});
      scale_ = change.strength;
    } else {
      up_ = load(*layer.up).reshape({layer.rows, -1});
      down_ = load(*layer.down).reshape({-1, layer.cols});
      scale_ = change.strength * layer.scale;
    }
  }

  // to: this part of the layer.
  void add_to(const at::Tensor& to, Range rows, Range cols) const {
    if (whole_.defined()) {
      to.add_(whole_.narrow(0, rows.begin, rows.size).narrow(1, cols.begin, cols.size), scale_);
    } else {
      const at::NoTF32Guard exact;
      to.addmm_(up_.narrow(0, rows.begin, rows.size), down_.narrow(1, cols.begin, cols.size), 1, scale_);
    }
  }

 private:
  at::Tensor up_, down_, whole_;
  double scale_ = 1;
};

// m / |v|, of rows or columns of nothing: 1.
at::Tensor ratio(const at::Tensor& wanted, const at::Tensor& lengths) {
  return at::where(lengths > 0, wanted / lengths, 1.0);
}

// Where ranges that lie one after another in a slice meet a range of the whole.
struct Overlap {
  Range in_slice, in_range;
};
std::vector<Overlap> overlaps(std::span<const Range> held, Range range) {
  std::vector<Overlap> out;
  int64_t at = 0;
  for (const Range r : held) {
    const Range here = intersection(r, range);
    if (here.size > 0)
      out.push_back({{at + here.begin - r.begin, here.size}, {here.begin - range.begin, here.size}});
    at += r.size;
  }
  return out;
}

Range whole_rows(at::IntArrayRef full) {
  return {0, full.front()};
}
Range whole_cols(at::IntArrayRef full) {
  return {0, c10::multiply_integers(full.slice(1))};
}

}  // namespace

void Changes::add(const LayerChangePtr& change) {
  std::set<std::string> tensors;
  for (const auto& piece : change->pieces) {
    if (change->layer->cols > 0) tensors.insert(piece.canonical);
    if (change->layer->bias && piece.first_col == 0) tensors.insert(bias_of(piece.canonical));
  }
  for (const auto& tensor : tensors) by_tensor_[tensor].push_back(change);
}

const std::vector<LayerChangePtr>* Changes::find(std::string_view tensor) const {
  const auto at = by_tensor_.find(tensor);
  return at == by_tensor_.end() ? nullptr : &at->second;
}

std::vector<std::string> Changes::tensors() const {
  std::vector<std::string> out;
  for (const auto& [name, _] : by_tensor_) out.push_back(name);
  return out;
}

std::set<std::string, std::less<>> Changes::differing(const Changes& a, const Changes& b) {
  const auto same = [](const LayerChangePtr& x, const LayerChangePtr& y) {
    return x == y || (x->layer == y->layer && x->strength == y->strength);
  };
  std::set<std::string, std::less<>> out;
  for (const auto* one : {&a, &b}) {
    const auto& other = one == &a ? b : a;
    for (const auto& [name, list] : one->by_tensor_) {
      const auto* theirs = other.find(name);
      if (!theirs || !std::equal(list.begin(), list.end(), theirs->begin(), theirs->end(), same))
        out.insert(name);
    }
  }
  return out;
}

at::Tensor AdaptedStore::column_norms(const LayerChange& change, const at::TensorOptions& options) const {
  const int64_t inputs = change.layer->down->shape[1];
  at::Tensor squares = at::zeros({inputs}, options);
  const Difference difference(change, false, options);
  for (const auto& piece : change.pieces) {
    const auto rows = merged(piece.canonical, piece.full, {{piece.rows}, {}}, 0, options)
                          .narrow(1, piece.cols.begin, piece.cols.size);
    difference.add_to(rows, {piece.first, piece.rows.size}, {0, piece.cols.size});
    squares += rows.reshape({piece.rows.size, inputs, -1}).square().sum(at::IntArrayRef({0, 2}));
  }
  return squares.sqrt();
}

at::Tensor AdaptedStore::merged(std::string_view name, at::IntArrayRef full, const HeldPart& cut,
                                size_t count, const at::TensorOptions& options) const {
  auto sizes = full.vec();
  if (!cut.rows.empty()) sizes[0] = size_of_all(cut.rows);
  const int64_t inner = full.size() > 1 ? c10::multiply_integers(full.slice(2)) : 1;
  std::vector<Range> cols;  // of dim 1
  for (const Range c : cut.cols) cols.push_back({c.begin / inner, c.size / inner});
  if (!cols.empty()) sizes[1] = size_of_all(cols);
  auto matrix = at::empty(sizes, options);
  base().read_into(matrix, name, full, cut.rows, cols);
  matrix = matrix.view({sizes[0], -1});
  const HeldPart all{cut.rows.empty() ? std::vector{whole_rows(full)} : cut.rows,
                     cut.cols.empty() ? std::vector{whole_cols(full)} : cut.cols};
  const auto* list = changes_.find(name);
  for (size_t i = 0; i < count; ++i) merge(matrix, name, all, *list->at(i));
  return matrix;
}

void AdaptedStore::merge(at::Tensor& matrix, std::string_view name, const HeldPart& cut,
                         const LayerChange& change) const {
  using Norms = AdapterLayer::Norms;
  const bool is_bias = name.ends_with(kBiasEnding);
  const auto kind = is_bias ? Norms::kNone : change.layer->kind;
  const auto options = matrix.options();
  const Difference difference(change, is_bias, options);
  at::Tensor wanted, columns;
  if (kind != Norms::kNone) wanted = change.file->read(*change.layer->norms).to(options).reshape({-1});
  if (kind == Norms::kColumns) columns = ratio(wanted, column_norms(change, options));
  // Behind other adapters too a length is that of W + s B A with this change alone, and its ratio multiplies
  // the sum so far: so PEFT computes several active adapters that are not merged (tuners/lora/dora.py), which
  // is what a diffusers pipeline does after load_lora_weights.
  at::Tensor unchanged;
  if (kind == Norms::kRows && changes_.find(name)->front().get() != &change) {
    const auto piece = std::find_if(change.pieces.begin(), change.pieces.end(),
                                    [&](const LayerPiece& p) { return p.canonical == name; });
    unchanged = merged(name, piece->full, cut, 0, options);
  }
  for (const auto& piece : change.pieces) {
    if (is_bias ? bias_of(piece.canonical) != name : piece.canonical != name) continue;
    for (const auto& row : overlaps(cut.rows, piece.rows)) {
      const auto rows = matrix.narrow(0, row.in_slice.begin, row.in_slice.size);
      const Range of{piece.first + row.in_range.begin, row.in_range.size};
      for (const auto& col : overlaps(cut.cols, is_bias ? Range{0, 1} : piece.cols)) {
        auto part = rows.narrow(1, col.in_slice.begin, col.in_slice.size);
        difference.add_to(part, of, {piece.first_col + col.in_range.begin, col.in_range.size});
        if (kind == Norms::kRows) {  // all columns are here: see read_into
          auto alone = part;
          if (unchanged.defined()) {
            alone = unchanged.narrow(0, row.in_slice.begin, row.in_slice.size)
                        .narrow(1, col.in_slice.begin, col.in_slice.size);
            difference.add_to(alone, of, col.in_range);
          }
          part *=
              ratio(wanted.narrow(0, of.begin, of.size), at::linalg_vector_norm(alone, 2, 1)).unsqueeze(1);
        }
        if (kind == Norms::kColumns)
          part *= columns.repeat_interleave(part.size(1) / columns.size(0)).unsqueeze(0);
      }
    }
  }
}

void AdaptedStore::read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full,
                             std::span<const Range> rows, std::span<const Range> cols) const {
  const c10::InferenceMode no_grad;
  const auto* list = changes_.find(name);
  if (!list || out.is_meta() || out.numel() == 0) return base().read_into(out, name, full, rows, cols);
  const auto type = out.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t inner = full.size() > 1 ? c10::multiply_integers(full.slice(2)) : 1;
  std::vector<Range> wide;  // columns of the matrix
  for (const Range c : cols) wide.push_back({c.begin * inner, c.size * inner});
  const bool needs_rows = std::any_of(list->begin(), list->end(), [](const auto& change) {
    return change->layer->kind != AdapterLayer::Norms::kNone;
  });
  auto matrix = merged(name, full, {{rows.begin(), rows.end()}, needs_rows ? std::vector<Range>{} : wide},
                       list->size(), out.options().dtype(type));
  if (needs_rows && !cols.empty()) {
    std::vector<at::Tensor> parts;
    for (const Range c : wide) parts.push_back(matrix.narrow(1, c.begin, c.size));
    matrix = at::cat(parts, 1);
  }
  out.copy_(matrix.view(out.sizes()));
}

}  // namespace atelier::weights
