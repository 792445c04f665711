#include "models/file_sizes.h"

#include "base/error.h"

namespace atelier::models {
namespace {

constexpr int kMostBlocks = 1000;

}  // namespace

int64_t FileSizes::size(std::string_view name, size_t dim) const {
  const auto shape = file_.shape(name);
  if (dim < shape.size() && shape[dim] > 0) return shape[dim];
  throw Error(Kind::kCheckpoint,
              str(model_, ", but its tensor ", name, " is missing or misshapen; download the file again"));
}

int FileSizes::count(std::string_view pattern) const {
  int n = 0;
  while (n < kMostBlocks && has(weights::fill(pattern, {{std::to_string(n)}, {}}))) ++n;
  return n;
}

}  // namespace atelier::models
