#include "app/run/capacity.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "cluster/process.h"
#include "models/vae.h"
#include "pipeline/device.h"
#include "report/clock.h"
#include "report/memory_limit.h"
#include "report/run_report.h"

namespace atelier::app {
namespace {

using Part = pipeline::Component::ComponentKind;

constexpr int64_t kProcessBytes = int64_t{144} << 20;  // of a CPU rank without weights and pictures, measured
constexpr int kProcessThreads = 4;                     // of a CPU rank, itself included
constexpr int kLeastRanks = 32, kRanksPerCore = 16;    // beyond that ranks only wait for each other

int64_t bytes_of(const std::string& dtype) {
  return dtype == "float32" ? 4 : 2;
}

std::string mebibytes(int64_t bytes) {
  return str(bytes >> 20, " MiB");
}

int64_t processes_allowed() {
  std::optional<int64_t> least = report::processes_left(report::kMembership, report::kMounts);
  const auto keep = [&](int64_t value) { least = std::min(least.value_or(value), value); };
  rlimit limit{};
  const bool has_limit = ::geteuid() != 0 && ::getrlimit(RLIMIT_NPROC, &limit) == 0;
  if (has_limit && limit.rlim_cur != RLIM_INFINITY) keep(static_cast<int64_t>(limit.rlim_cur));
  try {
    if (const auto most = to_integer(trim(read_file("/proc/sys/kernel/pid_max")))) keep(*most);
  } catch (const Error&) {  // a system that does not tell
  }
  return least.value_or(0);
}

struct Size {
  int64_t height, width;
  auto operator<=>(const Size&) const = default;
};

// What a run holds at once, of the CPU's memory on all ranks, of a GPU's on the fullest rank: a lower bound.
class Holding {
 public:
  Holding(const RunSpec& spec, const ModelFacts& facts)
      : engine(spec.job.engine), is_cuda_(spec.device.device.is_cuda()), ranks_(spec.layout.ranks) {
    for (const auto& [part, count] : facts.parameters)
      numbers_[spec.model.folder.component(part).kind] += count;
    width_ = models::find_vae(spec.model.folder.vae()).facts(spec.model.folder.vae()).full_width;
  }

  pipeline::EngineConfig engine;

  int64_t processes() const { return is_cuda_ ? 0 : ranks_ * kProcessBytes; }
  // The first rank of a replica holds encoders and autoencoder, with parallel decoding every rank the latter.
  int64_t part(Part kind) const {
    const auto& d = engine.layout;
    const int64_t replicas = is_cuda_ ? 1 : d.data, each = ranks_ / d.data;
    const auto at = numbers_.find(kind);
    const int64_t numbers = at == numbers_.end() ? 0 : at->second;
    if (kind == Part::kEncoder) return replicas * numbers * bytes_of(engine.precision.encoders);
    const int64_t holders = is_cuda_ ? 1 : kind == Part::kDenoiser || d.parallel_vae ? each : 1;
    if (kind == Part::kVae) return replicas * holders * numbers * bytes_of(engine.precision.vae);
    return replicas * holders * numbers * bytes_of(engine.precision.denoiser) /
           (int64_t{d.pipeline} * d.tensor * std::max(1, d.shard));
  }
  // Parts that are offloaded come in one after another, the denoiser's blocks, unless it is moved whole, too.
  int64_t weights() const {
    const int64_t denoiser = part(Part::kDenoiser), encoders = part(Part::kEncoder), vae = part(Part::kVae);
    if (!is_cuda_ || engine.offload == "none") return denoiser + encoders + vae;
    const int64_t others = std::max(encoders, vae);
    if (engine.layout.shard > 1) return denoiser + others;
    return engine.offload == "model" ? std::max(denoiser, others) : others;
  }
  // Input and output of one convolution at full size, of the pictures that are decoded together.
  int64_t pictures(Size size, int64_t batch) const {
    if (engine.vae_tiling) return 0;
    const auto& d = engine.layout;
    const int64_t at_once = engine.vae_slicing ? 1 : std::max<int64_t>(1, batch);
    const int64_t replicas = is_cuda_ ? 1 : d.data, cut = is_cuda_ && d.parallel_vae ? ranks_ / d.data : 1;
    return replicas * 2 * bytes_of(engine.precision.vae) * at_once * width_ * size.height * size.width / cut;
  }

 private:
  const bool is_cuda_;
  const int64_t ranks_;
  std::map<Part, int64_t> numbers_;
  int64_t width_ = 0;
};

class Check {
 public:
  Check(RunSpec& spec, const ModelFacts& facts, int64_t there)
      : spec_(spec),
        holding_(spec, facts),
        there_(there),
        rest_(there - holding_.processes() - holding_.weights()) {}

  void weights() const {
    if (rest_ > 0) return;
    const int64_t most = holding_.weights();
    std::string parts =
        str("denoiser ", mebibytes(holding_.part(Part::kDenoiser)), ", encoders ",
            mebibytes(holding_.part(Part::kEncoder)), ", VAE ", mebibytes(holding_.part(Part::kVae)));
    if (holding_.processes() > 0)
      parts += str(", ", spec_.layout.ranks, spec_.layout.ranks == 1 ? " process " : " processes ",
                   mebibytes(holding_.processes()));
    fail("weights", most + holding_.processes(), there_, " (" + parts + ")", change_for_weights());
  }

  // Of the rows that are left, the largest in a whole batch.
  void rows() {
    auto& requests = spec_.requests.requests;
    if (requests.empty()) return;
    const auto size_of = [](const request::Request& r) { return Size{*r.height, *r.width}; };
    const auto is_too_large = [&](const request::Request& r) {
      return !r.where.empty() && holding_.pictures(size_of(r), 1) > rest_;
    };
    const bool has_smaller =
        std::any_of(requests.begin(), requests.end(), [&](const auto& r) { return !is_too_large(r); });
    if (has_smaller) {
      for (const auto& r : requests) {
        if (is_too_large(r))
          spec_.requests.bad.push_back({r.where, picture_text(size_of(r), 1) + "; make it smaller"});
      }
      std::erase_if(requests, is_too_large);
    }
    const auto largest =
        std::max_element(requests.begin(), requests.end(), [&](const auto& a, const auto& b) {
          return holding_.pictures(size_of(a), 1) < holding_.pictures(size_of(b), 1);
        });
    // no batch is larger than what there is to draw
    const int64_t groups = holding_.engine.layout.data, asked = spec_.requests.extent.work.batch;
    const int64_t share = (std::ssize(requests) + groups - 1) / groups;
    const int64_t batch = std::max<int64_t>(1, std::min(asked / groups, share));
    const Size size = size_of(*largest);
    const int64_t need = holding_.pictures(size, batch);
    if (need > rest_)
      fail("pictures", need, std::max<int64_t>(0, rest_), "", change_for_pictures(size, batch));
  }

 private:
  [[noreturn]] void fail(const char* what, int64_t need, int64_t there, const std::string& parts,
                         const std::string& advice) const {
    throw Error(Kind::kCapacity, str("the ", what, " take ", mebibytes(need), parts, ", ", mebibytes(there),
                                     spec_.device.device.is_cuda() ? " of a GPU's memory are there; "
                                                                   : " of memory are free; ",
                                     advice));
  }

  std::string picture_text(Size size, int64_t batch) const {
    return str(size.width, "x", size.height, " takes ", mebibytes(holding_.pictures(size, batch)), ", ",
               mebibytes(std::max<int64_t>(0, rest_)), " of memory are left");
  }

  bool fits(const std::function<void(Holding&)>& change) const {
    Holding other = holding_;
    change(other);
    return other.processes() + other.weights() < there_;
  }

  std::string change_for_weights() const {
    const bool is_cuda = spec_.device.device.is_cuda();
    if (holding_.engine.precision.denoiser == "float32" && fits([&](Holding& h) {
          h.engine.precision.denoiser = "bfloat16";
          if (is_cuda) h.engine.precision.encoders = h.engine.precision.vae = "bfloat16";
        }))
      return "try --torch_dtype bfloat16";
    if (!is_cuda)
      return spec_.layout.ranks > 1 ? "ask for fewer ranks, or take a GPU or a larger machine"
                                    : "take a GPU or a larger machine";
    for (const char* kind : {"model", "sequential"}) {
      if (fits([&](Holding& h) { h.engine.offload = kind; })) return str("try --offload ", kind);
    }
    for (int degree = 2; degree <= 8; degree *= 2) {
      if (fits([&](Holding& h) { h.engine.layout.pipeline *= degree; }))
        return str("try --pipefusion_degree ", degree * holding_.engine.layout.pipeline,
                   " --pipefusion_sync, or --tensor_parallel_degree ",
                   degree * holding_.engine.layout.tensor);
    }
    return "take GPUs with more memory: encoders and VAE alone are too large";
  }

  std::string change_for_pictures(Size size, int64_t batch) const {
    const auto with = [&](auto change) {
      Holding other = holding_;
      change(other);
      return other.pictures(size, batch) <= rest_;
    };
    if (batch > 1 && holding_.pictures(size, 1) <= rest_) {
      int64_t most = batch;
      while (holding_.pictures(size, most) > rest_) --most;
      return str("try --batch_size ", most * holding_.engine.layout.data, " or --enable_slicing");
    }
    if (with([](Holding& h) { h.engine.vae_tiling = true; }))
      return "make them smaller, or try --enable_tiling";
    return "make them smaller";
  }

  RunSpec& spec_;
  const Holding holding_;
  const int64_t there_, rest_;
};

}  // namespace

Room room_here(const DeviceChoice& device) {
  Room room{.host_bytes = report::available_host_bytes(),
            .cores = cluster::usable_cores(),
            .processes = processes_allowed()};
  // the engine keeps a sixteenth for buffers of other shapes
  if (device.device.is_cuda())
    room.device_bytes =
        16 * pipeline::kept_shapes_bytes({c10::kCUDA, std::max<c10::DeviceIndex>(0, device.device.index())});
  return room;
}

void check_ranks(int ranks, const Room& room) {
  const int by_cores = std::max(kLeastRanks, kRanksPerCore * room.cores);
  const auto refuse = [&](const std::string& why, int64_t most) {
    throw Error(Kind::kCapacity, str(ranks, " ranks were asked for, each a process on the CPU; ", why,
                                     " carry at most ", most, ": ask for fewer"));
  };
  if (ranks > by_cores) refuse(str(room.cores, room.cores == 1 ? " core" : " cores"), by_cores);
  if (ranks > 1 && room.host_bytes > 0 && ranks * kProcessBytes > room.host_bytes)
    refuse(mebibytes(room.host_bytes) + " of free memory",
           std::max<int64_t>(1, room.host_bytes / kProcessBytes));
  if (ranks > 1 && room.processes > 0 && int64_t{ranks} * kProcessThreads > room.processes)
    refuse(str(room.processes, " processes and threads that may be started"),
           std::max<int64_t>(1, room.processes / kProcessThreads));
}

void check_memory(RunSpec& spec, const ModelFacts& facts, const Room& room) {
  const int64_t there = spec.device.device.is_cuda() ? room.device_bytes : room.host_bytes;
  if (there == 0) return;
  Check check(spec, facts, there);
  check.weights();
  check.rows();
}

}  // namespace atelier::app
