// Which runs are deterministic: one seed gives the same bits on every layout that is not refused here, in a
// batch of any size (nn/ordered.h).
#pragma once
#include <string>

#include "pipeline/engine_config.h"
#include "request/request.h"

namespace atelier::pipeline {

// What keeps this engine from it, and what to take in its place; empty: nothing does.
std::string deterministic_problem(const EngineConfig& engine);
// The same of a request.
std::string deterministic_problem(const request::Request& r);

}  // namespace atelier::pipeline
