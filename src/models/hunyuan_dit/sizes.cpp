// Sizes that HunyuanDiT draws, and those that it was made for. Upstream: pipeline_hunyuandit.py.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "models/hunyuan_dit/config.h"
#include "models/patches.h"

namespace atelier::models {
namespace {

struct Size {
  int64_t width, height;
  double shape;  // width : height, of the class that it counts as
};

constexpr Size kMadeFor[] = {{1024, 1024, 1.},     {1280, 1280, 1.},     {1024, 768, 4. / 3.},
                             {1152, 864, 4. / 3.}, {1280, 960, 4. / 3.}, {768, 1024, 3. / 4.},
                             {864, 1152, 3. / 4.}, {960, 1280, 3. / 4.}, {1280, 768, 16. / 9.},
                             {768, 1280, 9. / 16.}};

// Of the sizes whose shape is nearest, the one whose area is: map_to_standard_shapes.
Size nearest(int64_t width, int64_t height) {
  const double shape = static_cast<double>(width) / static_cast<double>(height);
  const auto distance = [&](const Size& s) {
    return std::pair(std::abs(s.shape - shape), std::abs(s.width * s.height - width * height));
  };
  return *std::ranges::min_element(kMadeFor, {}, distance);
}

}  // namespace

Grid grid_hunyuan_dit(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t) {
  if (spatial != kSpatial) {
    throw Error(Kind::kCheckpoint, str("HunyuanDiT lays its positions over latents of ", kSpatial,
                                       " pixels, but the VAE makes one of ", spatial,
                                       ": use the VAE of the model's own folder"));
  }
  auto made = grid_of_2x2(HunyuanConfig(config).channels, spatial, height, width);
  const auto near = nearest(width, height);
  if (near.width != width || near.height != height) {
    made.note =
        str(width, "x", height, " is not a size that HunyuanDiT was made for; expect a weaker picture (",
            near.width, "x", near.height, " is the nearest that is)");
  }
  return made;
}

}  // namespace atelier::models
