// Settings that somebody gave and that a run has no use for: told, never ignored silently.
#pragma once
#include <string>
#include <vector>

#include "app/run/run_spec.h"
#include "app/settings/resolve.h"

namespace atelier::app {

// One sentence each, naming who gave the setting. The plan's job need not be filled in.
std::vector<std::string> idle_settings(const Resolved& resolved, const Plan& plan);

}  // namespace atelier::app
