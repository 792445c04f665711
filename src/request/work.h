// From rows to pictures to batches.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "request/prompts.h"

namespace atelier::request {

struct PromptDefaults {
  int images = 1;                // num_images_per_prompt of rows that do not say
  std::optional<uint64_t> seed;  // of rows that do not say; unset stays unset
  std::string suffix = ".png";
};

// One request per picture, in order. Picture s of a row has seed + s. A row whose name is refused, or is also
// the name of an earlier row's picture, goes to prompts.bad. Throws Error(kUsage) for more than ten million
// pictures.
std::vector<Request> expand(Prompts& prompts, const PromptDefaults& defaults);

// The rows that node `node` of `nodes` draws: runs whose sizes differ by at most one, longer ones first. Cut
// before anything is skipped, so that every node cuts alike.
std::vector<PromptRow> rows_of_node(const std::vector<PromptRow>& rows, int node, int nodes);

// Runs of neighbours with equal batch keys, at most batch_size >= 1 each.
std::vector<std::vector<Request>> batches(const std::vector<Request>& requests, int batch_size);

}  // namespace atelier::request
