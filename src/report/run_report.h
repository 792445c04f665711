// What a run did and what it took: collected while it runs, written as report.json, summed up in one line.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "report/clock.h"

namespace atelier::report {

inline constexpr const char* kReportName = "report.json";

// Times of one kind: exact count, sum, least, greatest; the median from at most kSamples of them, evenly
// thinned.
class Series {
 public:
  void add(double value);
  int64_t count() const { return count_; }
  double median() const;  // 0 when empty
  // {"count", "first", "median", "p90", "min", "max", "mean", "kind": "measured"}; null when empty.
  Json json() const;

  static constexpr size_t kSamples = 4096;

 private:
  double quantile(double share) const;
  int64_t count_ = 0, stride_ = 1;
  double first_ = 0, sum_ = 0, min_ = 0, max_ = 0;
  std::vector<double> samples_;  // every stride-th value
};

struct Peak {
  int64_t host_bytes = 0, device_bytes = 0;
  int64_t reserved_bytes = 0;  // of the device, with what its allocator keeps
};

// Most host memory this process has held so far, in bytes; 0 where the system does not tell.
int64_t peak_host_bytes();
// What it holds now that is no file's: the page cache of mapped weights does not count.
int64_t anonymous_host_bytes();
// What programs may still take of this machine's or this container's memory; 0 where nobody tells.
int64_t available_host_bytes();

// Any thread may add to it.
class RunReport {
 public:
  RunReport() = default;
  // since: runs from when the run's time counts.
  explicit RunReport(const Stopwatch& since) : total_(since) {}
  // A part of the run's own time, as the leading process sees it. Adds up when a name comes more than once;
  // names stay in the order of their first coming.
  void add_phase(const std::string& name, double seconds);
  // A batch that a group of ranks has drawn: its phases (encode, denoise, decode) and steps.
  void add_batch(int group, const std::map<std::string, double>& seconds, const std::vector<double>& step_ms);
  // Under a step cache: pictures x branches x steps that were computed, and that reused what
  // blocks added before.
  void add_step_cache(int64_t computed, int64_t reused);
  // Keeps the greatest of what a rank reports.
  void add_peak(int rank, const Peak& peak);
  void add_kernel(const std::string& name);
  // Something was done otherwise than asked, in one sentence.
  void add_note(const std::string& note);
  void add_picture(const std::string& name, double seconds);
  void add_failure(const std::string& name, const std::string& reason);
  void set_settings(const Json& settings);
  void set_version(const std::string& what, const std::string& version);
  // Pictures that were there already.
  void set_skipped(int64_t pictures);

  // Pictures' names are listed up to kListed; their number is always exact.
  Json json() const;
  // "4 pictures in 12.3 s (3.08 s each), 101.2 ms/step, peak 1.2 GiB host, 23.8 GiB device; 1 failed"
  std::string line(std::string_view noun = "picture") const;
  // Writes <output_dir>/<name>. Throws what write_json throws.
  void write(const std::filesystem::path& output_dir, const std::string& name = kReportName) const;

  static constexpr size_t kListed = 10000;

 private:
  struct Timed {
    std::string name;
    double seconds = 0;
  };
  struct GroupWork {
    int64_t batches = 0;
    std::map<std::string, double> seconds;
  };
  Json pictures_json() const;

  mutable std::mutex mutex_;
  Stopwatch total_;
  std::string started_ = utc_text(std::chrono::system_clock::now());
  std::vector<Timed> phases_, pictures_;
  std::vector<std::pair<std::string, std::string>> failures_;
  int64_t drawn_ = 0, failed_ = 0, skipped_ = 0;
  int64_t computed_ = 0, reused_ = 0;  // evaluations under a step cache
  Series steps_, picture_seconds_;
  std::map<int, Peak> peaks_;
  std::map<int, GroupWork> groups_;
  std::set<std::string> kernels_;
  std::vector<std::string> notes_;
  std::map<std::string, std::string> versions_;
  Json settings_ = Json::object();
};

}  // namespace atelier::report
