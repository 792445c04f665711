#include "nn/pyramid.h"

#include "base/check.h"

namespace atelier::nn {
namespace {

int64_t halved_upwards(int64_t n, int64_t times) {
  return (n + (int64_t{1} << times) - 1) >> times;
}

}  // namespace

PictureCall at_level(const CallContext& f, int64_t levels, int64_t level) {
  ENSURE(f.streams.size() == 1 && level < levels);
  const Layout& largest = f.streams[0];
  const int64_t together = int64_t{1} << (levels - 1);  // rows of the largest picture
  ENSURE(largest.unit % together == 0);
  const int64_t wide = largest.unit / together;
  PictureCall at{f, 0, halved_upwards(wide, level)};
  auto& layout = at.call.streams[0];
  layout.patches.total = halved_upwards(largest.patches.total / wide, level) * at.cols;
  layout.unit = (together >> level) * at.cols;
  at.rows = layout.count(f.seq_rank, f.patch) / at.cols;
  return at;
}

at::Tensor pixels_of(const at::Tensor& picture) {
  return picture.permute({2, 3, 0, 1}).reshape({-1, picture.size(0), picture.size(1)});
}

at::Tensor picture_of(const at::Tensor& pixels, int64_t rows, int64_t cols) {
  return pixels.reshape({rows, cols, pixels.size(1), pixels.size(2)}).permute({2, 3, 0, 1});
}

void probe_picture(const PictureCall& at, std::string_view name, const at::Tensor& picture) {
  if (at.call.probes) probe(at.call, name, pixels_of(picture), 0);
}

}  // namespace atelier::nn
