#include "app/run/decoding.h"

#include <set>
#include <tuple>

#include "app/run/plan_query.h"
#include "plan/picture_rows.h"

namespace atelier::app {

std::string decoding_line(const RunSpec& spec) {
  const auto& d = spec.layout.degrees;
  const auto& engine = spec.job.engine;
  if (plan::replica_size(d) == 1 || spec.model.spec.parts == "denoiser") return {};
  std::string all = "decoded by all ranks, each its rows";
  std::string first = d.data > 1 ? "decoded by the first rank of each group" : "decoded by the first rank";
  if (d.parallel_vae == plan::PictureRows::kAlways) return all;
  if (d.parallel_vae == plan::PictureRows::kNever) return first;
  if (engine.vae_tiling) return first + ", in tiles";
  const auto& requests = spec.requests.requests;
  if (requests.empty()) return "pictures that are worth it " + all;
  std::set<std::tuple<int, int, int>> sizes;
  for (const auto& r : requests) sizes.emplace(*r.height, *r.width, r.num_frames.value_or(1));
  size_t shared = 0;
  for (const auto& [height, width, frames] : sizes) {
    auto memory =
        memory_query(spec.model.folder, spec.facts, engine, spec.device.device.is_cuda(), height, width);
    memory.frames = frames;
    const int batch = std::max(1, spec.requests.extent.work.batch / d.data);
    shared += plan::codes_by_rows(d, plan::coded_picture(memory, batch));
  }
  if (shared == sizes.size()) return all;
  return shared == 0 ? first + ", too small to share" : "large pictures " + all;
}

}  // namespace atelier::app
