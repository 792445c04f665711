// atelier monitor: what the GPUs do right now, again and again.
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "app/doctor/gpus.h"
#include "app/doctor/readings.h"
#include "app/run/interrupt.h"
#include "base/error.h"

namespace atelier::app {

int monitor_command(const Arguments& arguments) {
  CLI::App app(
      "Shows memory, load, power and NVLink traffic of every GPU, as the driver tells them, until Ctrl-C.",
      "atelier monitor");
  double interval = 1;
  int count = 0;
  bool is_csv = false;
  app.add_option("--interval", interval, "seconds between two readings (1)")->check(CLI::Range(0.05, 3600.0));
  app.add_option("--count", count, "readings to take (0: until Ctrl-C)")->check(CLI::Range(0, 1000000000));
  app.add_flag("--csv", is_csv, "one line per GPU and reading, with a header");
  if (!parse_arguments(app, arguments)) return 0;
  std::string reason;
  const auto nvml = open_nvml(reason);
  if (!nvml) throw Error(Kind::kItem, "GPUs are not readable here: " + reason);
  if (nvml->count() == 0) throw Error(Kind::kItem, "GPUs are not readable here: the driver knows of none");
  const Interrupt interrupt;
  interrupt.begin_drawing();  // it ends by itself
  const auto stop = interrupt.token();
  std::mutex mutex;
  std::condition_variable_any wake;
  Readings readings(*nvml);
  if (is_csv) std::cout << csv_header() << std::endl;
  for (int taken = 0; !stop.stop_requested() && (count == 0 || taken < count); ++taken) {
    if (taken > 0) {
      std::unique_lock lock(mutex);
      wake.wait_for(lock, stop, std::chrono::duration<double>(interval), [] { return false; });
      if (stop.stop_requested()) break;
    }
    for (const auto& line : is_csv ? readings.csv_lines() : readings.text_lines()) std::cout << line << "\n";
    std::cout << std::flush;
  }
  return 0;
}

}  // namespace atelier::app
