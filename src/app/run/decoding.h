// Who decodes the pictures of a run.
#pragma once
#include <string>

#include "app/run/run_spec.h"

namespace atelier::app {

// For the head of a run: "decoded by all ranks, each its rows", or by whom else and why. Empty: every group
// has one rank, or nothing is decoded.
std::string decoding_line(const RunSpec& spec);

}  // namespace atelier::app
