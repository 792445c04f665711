// Which algorithm of a library takes the least time for a product: measured once, kept in a file.
#pragma once
#include <c10/core/ScalarType.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace atelier::nn {

// y = x W^T: as it is, with a bias, with gelu_tanh behind that, or added to what y holds.
enum class Epilogue : uint8_t { kNone, kBias, kBiasGelu, kAdd };

// All that an algorithm is chosen by. x [rows, in] and y [rows, out] are contiguous, W [out, in] has
// weight_stride numbers from row to row.
struct ProductShape {
  at::ScalarType type = at::kBFloat16;
  Epilogue epilogue = Epilogue::kNone;
  int64_t rows = 0, in = 0, out = 0, weight_stride = 0;
  auto operator<=>(const ProductShape&) const = default;
};

struct ProductAlgorithm {
  std::string bytes;  // what one version of the library calls it; empty: the one that it chooses itself
  double own_us = 0, best_us = 0;  // microseconds of the library's own choice, and of this one
};

// Shapes whose algorithm is known, and those that were met but not measured yet.
class ProductTable {
 public:
  // Null: not known.
  const ProductAlgorithm* find(const ProductShape& shape) const;
  void set(const ProductShape& shape, ProductAlgorithm algorithm) { entries_[shape] = std::move(algorithm); }
  // Notes a shape that was not met before; false where it was, or where there are too many.
  bool want(const ProductShape& shape);
  std::vector<ProductShape> wanted() const;
  size_t size() const { return entries_.size(); }
  // Takes what another knows and this does not.
  void merge(const ProductTable& other);

  // A line per shape behind one that names the format. What cannot be read is left out: a damaged line, or a
  // table in another form, costs a measurement and nothing else.
  static ProductTable parse(const std::string& text);
  std::string text() const;

 private:
  std::map<ProductShape, std::optional<ProductAlgorithm>> entries_;  // none: wanted
};

}  // namespace atelier::nn
