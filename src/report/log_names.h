// Where the log files of a run go. The stamp is chosen once, by the leading process, and handed
// to every rank.
#pragma once
#include <chrono>
#include <filesystem>
#include <string>

namespace atelier::report {

// Local time as YYYYmmdd_HHMM.
std::string log_stamp(std::chrono::system_clock::time_point now);

// log_dir itself if it is given, else <output_dir>/logs/<stamp>, else ./logs/<stamp>.
std::filesystem::path log_folder(const std::filesystem::path& log_dir,
                                 const std::filesystem::path& output_dir, const std::string& stamp);

struct ProcessIndex {
  int node = 0, nodes = 1;
  int process = 0, processes = 1;  // on this node
};

// "process_0.log" for one process in all, else "node1_process3.log".
std::string log_file_name(const ProcessIndex& process);

}  // namespace atelier::report
