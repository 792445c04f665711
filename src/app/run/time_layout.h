// Timing one layout by drawing with it.
#pragma once
#include <filesystem>

#include "app/compat/environment.h"
#include "app/run/interrupt.h"
#include "app/settings/resolve.h"
#include "base/json.h"

namespace atelier::app {

// Draws the pictures of the settings with their strategy, on workers that stay loaded, in counted rounds
// (--num_iterations, 5) after others (--warmup_calls, 2). Pictures go to a folder of the layout's name below
// `folder`. Returns a row: a run report with what verify::bench_layout adds, the model, the size and the
// layout. Prints the head of the run unless it is to be quiet. Throws what making and loading a run throws.
Json time_layout(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt,
                 const std::filesystem::path& folder);

}  // namespace atelier::app
