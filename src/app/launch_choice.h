// Whether this process is one of several that somebody else has started for one run.
#pragma once
#include <optional>

#include "app/environment.h"
#include "app/resolve.h"
#include "engine/launch.h"

namespace atelier::app {

// torchrun, mpirun and srun by their variables; --span_nodes by its flags; none for a process that is alone.
// devices: GPUs of this machine. Throws Error(kUsage).
std::optional<engine::Outer> find_launch(const Resolved& resolved, const Environment& environment,
                                         int devices);

}  // namespace atelier::app
