#include "verify/thread_ranks.h"

#include <stdlib.h>

#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "base/error.h"
#include "models/vae.h"
#include "pipeline/device.h"
#include "plan/layouts.h"

namespace atelier::verify {

namespace {

// A private folder for the file where processes and threads meet; gone with this object.
class RendezvousFolder {
 public:
  RendezvousFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "atelier-ranks-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw Error(Kind::kUsage, str("cannot make a folder like ", name));
    path_ = name;
  }
  ~RendezvousFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  RendezvousFolder(const RendezvousFolder&) = delete;
  std::filesystem::path file() const { return path_ / "store"; }

 private:
  std::filesystem::path path_;
};

std::unique_ptr<comm::Transport> connect_gpu(const comm::Rendezvous& rendezvous) {
#ifdef ATELIER_CUDA
  return comm::connect_nccl(rendezvous);
#else
  throw Error(Kind::kUsage, str("rank ", rendezvous.rank, " was given a GPU, but this build has no CUDA"));
#endif
}

// The first exception of several threads.
class FirstError {
 public:
  void keep(std::exception_ptr e) {
    const std::scoped_lock lock(mutex_);
    if (!first_) first_ = e;
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace

void ThreadRank::abort() {
  if (transport) transport->abort();
}

void on_threads(const plan::Plan& plan, c10::Device device, nn::SdpaBackend attention,
                const std::function<void(ThreadRank&)>& work) {
  const int world = plan::world_size(plan.config);
  pipeline::empty_cache(device);  // of whoever was here before, on all devices
  const auto one = [&](comm::Transport* transport, int rank, c10::Device on) {
    pipeline::use_device(on);
    pipeline::reset_peak(on);
    parallel::ParallelContext parallel_context(plan, transport, attention);
    ThreadRank here{parallel_context, on, rank, transport};
    try {
      work(here);
    } catch (...) {
      here.abort();
      throw;
    }
  };
  if (world == 1) return one(nullptr, 0, device);
  const bool cuda = device.is_cuda();
  if (cuda && pipeline::cuda_devices() < world) {
    throw Error(Kind::kUsage,
                str("the layout needs ", world, " GPUs, this machine has ", pipeline::cuda_devices()));
  }
  const RendezvousFolder rendezvous;
  auto transports = cuda ? std::vector<std::unique_ptr<comm::Transport>>(static_cast<size_t>(world))
                         : comm::connect_local(world);
  FirstError first;
  const auto on_each = [&](const std::function<void(int, c10::Device)>& body) {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world; ++rank) {
      threads.emplace_back([&, rank] {
        const auto its = cuda ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(rank)) : device;
        try {
          pipeline::use_device(its);
          body(rank, its);
        } catch (...) {
          first.keep(std::current_exception());
          for (auto& t : transports) {
            if (!cuda) t->abort();
          }
        }
      });
    }
  };
  on_each([&](int rank, c10::Device its) {
    auto& transport = transports[static_cast<size_t>(rank)];
    if (cuda) transport = connect_gpu({.file = rendezvous.file(), .rank = rank, .size = world});
    one(transport.get(), rank, its);
  });
  // Each on its own device, and when nobody is at work: the watch of one must not miss another.
  on_each([&](int rank, c10::Device) { transports[static_cast<size_t>(rank)].reset(); });
  first.rethrow();
}

void on_ranks(const pipeline::ModelRepo& folder, const plan::ParallelConfig& degrees,
              const pipeline::LoadOptions& load,
              const std::function<void(pipeline::Pipeline&, int rank)>& work) {
  const auto plan = plan::plan_for(degrees, folder.facts());
  on_threads(plan, load.device, load.attention, [&](ThreadRank& here) {
    pipeline::LoadOptions mine = load;
    mine.device = here.device;
    std::optional<pipeline::Pipeline> pipeline;
    try {
      work(pipeline.emplace(folder, here.context, plan.chunks, mine), here.rank);
    } catch (...) {
      here.abort();  // before what this rank holds goes: that may wait for peers
      throw;
    }
  });
}

std::vector<media::Artifact> generate_on_ranks(const pipeline::ModelRepo& folder,
                                               const plan::ParallelConfig& degrees,
                                               const pipeline::LoadOptions& load, request::Requests batch,
                                               pipeline::ActivationRecorder* probes,
                                               const pipeline::GivenNoise& noise) {
  const auto& r = batch.front();
  const plan::Workload work{
      .image_tokens = folder.image_tokens(*r.height, *r.width, r.num_frames.value_or(1)),
      .text_tokens = *r.max_sequence_length,
      .branches = request::branches(r)};
  plan::validate(degrees, {folder.facts(), work}, 0);
  std::vector<media::Artifact> artifacts;
  std::mutex mutex;
  on_ranks(folder, degrees, load, [&](pipeline::Pipeline& pipeline, int rank) {
    auto drawn = pipeline.generate(batch, {.probes = probes}, noise);
    const std::scoped_lock lock(mutex);
    if (rank == 0) artifacts = std::move(drawn);
  });
  return artifacts;
}

}  // namespace atelier::verify
