// What a family's performance page holds besides measurements: the hardware of the report, modelled.
#pragma once
#include <string>

#include "app/compat/environment.h"
#include "bench/family_page.h"

namespace atelier::app {

// Those that a page can be about, "a, b or c".
std::string families_of_report();

// The beginning of the names of a family's models: "HunyuanDiT". Throws Error(kUsage) with the families
// that there are.
std::string model_prefix(const std::string& family);

// Of the family's usual size with random weights, at 1024 and 2048 px: every hardware of the report under
// every layout of 1, 2, 4 and 8 GPUs that the report speaks of. Only where the report is of this family;
// else no rows.
bench::FamilyQuery family_query(const std::string& family, const Environment& variables);

}  // namespace atelier::app
