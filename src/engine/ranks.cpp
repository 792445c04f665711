#include "engine/ranks.h"

#include <ATen/Parallel.h>

#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "comm/comm.h"
#include "engine/device.h"
#include "engine/job.h"
#include "parallel/layouts.h"

namespace atelier::engine {

std::vector<media::Picture> draw_on_ranks(const ModelFolder& folder, const parallel::Degrees& degrees,
                                          const LoadOptions& load, const Request& request, Collector* taps) {
  const auto facts = folder.family().facts(folder.denoiser());
  Job layout;
  layout.degrees = degrees;
  const auto route = route_of(layout, facts);
  const int world = parallel::world_size(degrees);
  const auto one = [&](comm::Transport* transport) {
    parallel::Assembly assembly(degrees, transport, route, nn::SdpaBackend::kAuto);
    Pipeline pipeline(folder, assembly, route, load);
    return pipeline.draw(request, {.taps = taps});
  };
  use_device(load.device);
  if (world == 1) return one(nullptr);
  if (load.device.is_cuda()) throw Error(Kind::kUsage, "ranks as threads need the CPU: add --device cpu");

  auto transports = comm::connect_local(world);
  std::vector<media::Picture> pictures;
  std::exception_ptr first;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        auto drawn = one(transports[static_cast<size_t>(rank)].get());
        const std::scoped_lock lock(mutex);
        if (rank == 0) pictures = std::move(drawn);
      } catch (...) {
        {
          const std::scoped_lock lock(mutex);
          if (!first) first = std::current_exception();
        }
        for (auto& t : transports) t->abort();
      }
    });
  }
  threads.clear();
  if (first) std::rethrow_exception(first);
  return pictures;
}

}  // namespace atelier::engine
