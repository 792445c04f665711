// What of a run decides how its pictures look.
#pragma once
#include "app/run/find_model.h"
#include "app/settings/resolve.h"
#include "base/json.h"
#include "pipeline/engine_config.h"

namespace atelier::app {

// The run's share of what decides how its pictures look.
Json record_of(const Resolved& resolved, const FoundModel& model, const pipeline::EngineConfig& engine);

}  // namespace atelier::app
