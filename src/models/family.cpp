#include "models/family.h"

#include "base/check.h"

namespace atelier::models {

std::vector<int64_t> Grid::latent(int64_t batch) const {
  if (latent_frames == 0) return {batch, latent_channels, latent_rows, latent_cols};
  return {batch, latent_channels, latent_frames, latent_rows, latent_cols};
}

int Family::latent_stream() const {
  for (size_t i = 0; i < streams.size(); ++i) {
    if (streams[i].kind == StreamSpec::kLatent) return static_cast<int>(i);
  }
  check_failed("a family denoises one of its streams", __FILE__, __LINE__);
}

}  // namespace atelier::models
