// The planner's question, from a model, its pictures and what they are computed in.
#pragma once
#include <optional>
#include <string>

#include "app/run/device_choice.h"
#include "app/run/find_model.h"
#include "app/run/requests.h"
#include "base/model_facts.h"
#include "pipeline/engine_config.h"
#include "plan/planner.h"

namespace atelier::app {

// The hardware of the planner that this machine's GPUs are, with their memory; none for the CPU and for GPUs
// that nobody has measured or cited.
std::optional<plan::Hardware> hardware_here(const DeviceChoice& device);

// The preset that --hardware asks for. Throws Error(kUsage) with the names that there are.
const plan::Hardware& hardware_named(const std::string& name);

// Throws Error(kUsage) for a tier, or attention, in eight bits where this hardware computes none.
void check_hardware(const plan::Hardware& hardware, const pipeline::EngineConfig& engine);

// What a GPU's memory keeps for the driver, the libraries and their workspaces, in bytes.
int64_t kept_by_libraries();

// Of the part that the layout does not decide. facts: of ModelRepo::check. height, width: pixels.
plan::MemoryQuery memory_query(const pipeline::ModelRepo& folder, const ModelFacts& facts,
                               const pipeline::EngineConfig& engine, bool is_device, int64_t height,
                               int64_t width);

// For the pictures of a run: limits of the least of them, time and memory of the largest. `hardware` computes
// as the engine's tier says.
plan::PlanQuery plan_query(const pipeline::ModelRepo& folder, const ModelFacts& facts, const ModelWork& work,
                           const RequestSet& pictures, const pipeline::EngineConfig& engine,
                           const plan::Hardware& hardware);

}  // namespace atelier::app
