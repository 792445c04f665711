// A run's wall time as parts that add up to it, from what the leading process and its ranks measured.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace atelier::report {

using NamedSeconds = std::vector<std::pair<std::string, double>>;

// From the start of the workers until all groups were ready. connect_s, load_s: of the slowest rank. What is
// left is the start of the processes.
NamedSeconds start_phases(double start_s, double connect_s, double load_s);

// From there to the end. slowest: encode, denoise and decode of the group that took longest, over all its
// batches; written_s: from the last batch that was generated to its last file; ended_s: from there to the end
// of the workers. What is left is waiting: handing out, retries, other groups. Seconds of a part are cut
// where the parts before it leave less, so that the sum is draw_s.
NamedSeconds draw_phases(double draw_s, const std::map<std::string, double>& slowest, double written_s,
                         double ended_s);

}  // namespace atelier::report
