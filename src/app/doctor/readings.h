// Readings of GPUs as lines, with rates from what counters did since the last one.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "machine/nvml.h"

namespace atelier::app {

// Names of the columns, as nvidia-smi's --query-gpu has them where it has them. What cannot be read is
// an empty cell.
std::string csv_header();

class Readings {
 public:
  using DateNow = std::function<std::chrono::system_clock::time_point()>;
  explicit Readings(const machine::Nvml& nvml, DateNow clock = std::chrono::system_clock::now);

  // A reading of every GPU, one line each; the second and later ones know the rates of the links.
  std::vector<std::string> csv_lines();
  std::vector<std::string> text_lines();

 private:
  struct Row {
    int gpu = 0;
    std::string name;
    machine::GpuReading now;
    std::optional<double> sent, received;  // bytes/s
  };
  std::vector<Row> take();

  const machine::Nvml& nvml_;
  DateNow clock_;
  std::map<int, machine::GpuReading> last_;
  std::chrono::system_clock::time_point last_time_, time_;
};

}  // namespace atelier::app
