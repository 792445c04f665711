// Settings that somebody gave and that a run has no use for: told, never ignored silently.
#pragma once
#include <string>
#include <vector>

#include "app/run/run_spec.h"
#include "app/settings/resolve.h"

namespace atelier::app {

// Nothing of these pictures depends on guidance_scale.
bool is_guidance_idle(const pipeline::ModelRepo& model, const RequestSet& requests);

// One sentence each, naming who gave the setting. The plan's job need not be filled in.
std::vector<std::string> unused_settings(const Resolved& resolved, const RunSpec& spec);

}  // namespace atelier::app
