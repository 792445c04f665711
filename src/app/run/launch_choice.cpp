// Launchers.
#include "app/run/launch_choice.h"

#include <algorithm>

#include "app/run/layout_choice.h"
#include "base/error.h"

namespace atelier::app {
namespace {

int ranks_of_span(const Resolved& resolved, int devices) {
  if (const int asked = asked_ranks(resolved); asked > 0) return asked;
  if (const int product = plan::world_size(degrees_of(resolved)); product > 1) return product;
  return resolved.settings.device.num_nodes * std::max(1, devices);
}

}  // namespace

std::optional<cluster::LauncherEnv> find_launch(const Resolved& resolved, const Environment& environment,
                                                int devices) {
  const auto variable = [&](const std::string& name) -> std::optional<std::string> {
    const auto at = environment.find(name);
    return at == environment.end() ? std::nullopt : std::optional(at->second);
  };
  const auto& d = resolved.settings.device;
  if (!d.span_nodes) return cluster::find_launcher_env(variable);
  return cluster::spanning({.node = d.node_rank,
                            .nodes = d.num_nodes,
                            .ranks = ranks_of_span(resolved, devices),
                            .host = d.master_addr,
                            .port = d.master_port,
                            .key = variable("ATELIER_CLUSTER_KEY").value_or("")});
}

}  // namespace atelier::app
