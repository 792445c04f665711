// Several ranks as threads of this process, on the CPU: for verify --strategy and tests.
#pragma once
#include "engine/pipeline.h"
#include "parallel/strategy.h"

namespace atelier::engine {

// Loads the model on every rank of the layout and draws one request. Pictures of the writing rank of replica 0. With
// one rank the device of `load` is used; several ranks need the CPU. Throws what the first failing rank threw.
std::vector<media::Picture> draw_on_ranks(const ModelFolder& folder, const parallel::Degrees& degrees,
                                          const LoadOptions& load, const Request& request, Collector* taps);

}  // namespace atelier::engine
