// What a run took of memory, part by part, beside what the SDXL guide says of each.
#pragma once
#include <string>
#include <vector>

#include "app/run/run_spec.h"
#include "cluster/protocol.h"

namespace atelier::app {

// For people. Weights: bytes of the fullest rank's tensors by their numbers and types; buffers: its peak
// without its weights, measured. Empty where no rank has told anything.
std::vector<std::string> memory_lines(const RunSpec& spec, const std::vector<cluster::RankStats>& ranks);

// What computing MLPs by chunks of tokens has saved on the ranks, or that it had no effect. Empty where
// nobody asked for it.
std::vector<std::string> chunk_lines(const std::vector<cluster::RankStats>& ranks);

}  // namespace atelier::app
