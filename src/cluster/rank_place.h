// Where a rank is: its device, its group, and with whom it shares what.
#pragma once
#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "cluster/job.h"
#include "cluster/protocol.h"
#include "comm/comm.h"
#include "plan/parallel_config.h"

namespace atelier::cluster {

// Meets the other ranks of the group; null: there are none. Throws Error(kPeer) when they do not come,
// Error(kUsage) for GPUs in a build without them.
std::unique_ptr<comm::Transport> connect(const PoolOptions& pool, const RankInfo& info, c10::Device device);
// "cpu", "cuda" (by the rank; a launcher may show each process one device only) or "cuda:N". Throws
// Error(kUsage) for one that the host does not have.
c10::Device device_of(const std::string& name, const RankInfo& info);
// Lines for a log: the groups of a layout as global ranks.
std::vector<std::string> topology(const plan::ParallelConfig& layout, const RankInfo& info);

}  // namespace atelier::cluster
