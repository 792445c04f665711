// Elapsed time by the monotonic clock, and how times and sizes are shown.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace atelier::report {

class Stopwatch {
 public:
  double seconds() const;
  void restart();

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// "0.42 s", "12.3 s", "3:05", "1:02:03".
std::string time_text(double seconds);
// "512 B", "3.4 KiB", "23.8 GiB".
std::string bytes_text(int64_t bytes);
// Of the wall clock, for people and files: "2025-01-31T23:59:59Z".
std::string utc_text(std::chrono::system_clock::time_point time);

}  // namespace atelier::report
