// Whether this process is one of several that somebody else has started for one run.
#pragma once
#include <optional>

#include "app/compat/environment.h"
#include "app/settings/resolve.h"
#include "cluster/launch/launch.h"

namespace atelier::app {

// torchrun, mpirun and srun by their variables; --span_nodes by its flags; none for a process that is alone.
// devices: GPUs of this machine. Throws Error(kUsage).
std::optional<cluster::LauncherEnv> find_launch(const Resolved& resolved, const Environment& environment,
                                                int devices);

}  // namespace atelier::app
