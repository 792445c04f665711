#include "cluster/rank_place.h"

#include <algorithm>

#include "base/error.h"
#include "cluster/model_runner.h"
#include "pipeline/device.h"
#include "plan/mesh.h"

namespace atelier::cluster {

std::unique_ptr<comm::Transport> connect(const PoolOptions& pool, const RankInfo& info, c10::Device device) {
  if (info.group_size == 1) return nullptr;
  comm::Rendezvous rendezvous;
  rendezvous.file = info.rendezvous_file;
  rendezvous.host = info.rendezvous_host;
  rendezvous.port = info.rendezvous_port;
  rendezvous.name = info.rendezvous_name;
  rendezvous.rank = info.group_rank;
  rendezvous.size = info.group_size;
  // the pool notices ranks that hang, with knowledge of all of them: its time-outs come first
  const double patience_s = std::max(pool.start_timeout_s, pool.batch_timeout_s) + 60;
  rendezvous.timeout = std::chrono::milliseconds(static_cast<int64_t>(patience_s * 1000));
#ifdef ATELIER_CUDA
  if (device.is_cuda()) return comm::connect_nccl(rendezvous);
#endif
  if (device.is_cuda()) throw Error(Kind::kUsage, "this build knows no GPUs; use device cpu");
  return comm::connect_gloo(rendezvous);
}

c10::Device device_of(const std::string& name, const RankInfo& info) {
  if (name == "cpu") return c10::kCPU;
  const int devices = pipeline::cuda_devices();
  const bool is_named = name != "cuda";  // "cuda:1", which one rank may ask for
  const int by_rank = devices == 1 ? 0 : info.local_rank;
  const int number = is_named ? device_named(name, 0).index() : by_rank;
  if (number >= devices) {
    throw Error(Kind::kUsage,
                str("rank ", info.rank, " needs device ", number, " of its host, which has ", devices,
                    " GPUs that this process may use; give num_gpus ", devices, " or fewer"));
  }
  return device_named("cuda", number);
}

std::vector<std::string> topology(const plan::ParallelConfig& layout, const RankInfo& info) {
  auto sizes = plan::mesh_sizes(layout);
  sizes[static_cast<int>(plan::Axis::kData)] = 1;
  const plan::Mesh mesh(sizes, info.group_rank);
  const int first = info.rank - info.group_rank;
  std::vector<std::string> lines{
      str("topology rank=", info.rank, " group=", info.group, " layout=\"", plan::to_string(layout), "\"")};
  for (int i = 0; i < plan::kAxes; ++i) {
    const auto axis = static_cast<plan::Axis>(i);
    if (mesh.size(axis) == 1) continue;
    std::string ranks;
    for (const int peer : mesh.peers({axis})) ranks += str(ranks.empty() ? "" : ",", first + peer);
    lines.push_back(str("topology axis=", plan::axis_name(axis), " index=", mesh.index(axis),
                        " of=", mesh.size(axis), " ranks=", ranks));
  }
  return lines;
}

}  // namespace atelier::cluster
