// Names of log folders and files.
#include "report/log_names.h"

#include <ctime>

#include "base/error.h"

namespace atelier::report {

std::string log_stamp(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d_%H%M", &parts);
  return text;
}

std::filesystem::path log_folder(const std::filesystem::path& log_dir,
                                 const std::filesystem::path& output_dir, const std::string& stamp) {
  if (!log_dir.empty()) return log_dir;
  return (output_dir.empty() ? std::filesystem::path(".") : output_dir) / "logs" / stamp;
}

std::string log_file_name(const ProcessIndex& process) {
  if (process.nodes <= 1 && process.processes <= 1) return "process_0.log";
  return str("node", process.node, "_process", process.process, ".log");
}

}  // namespace atelier::report
