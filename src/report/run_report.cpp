// Collecting, summing up and writing the run report.
#include "report/run_report.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "report/memory_limit.h"

namespace atelier::report {
namespace {

// Three decimals: more would claim what was not measured.
double rounded(double value) {
  return std::round(value * 1000) / 1000;
}

}  // namespace

void Series::add(double value) {
  if (count_ == 0) first_ = min_ = max_ = value;
  if (count_ % stride_ == 0) samples_.push_back(value);
  ++count_;
  sum_ += value;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  if (samples_.size() < kSamples) return;
  for (size_t i = 0; 2 * i < samples_.size(); ++i) samples_[i] = samples_[2 * i];
  samples_.resize((samples_.size() + 1) / 2);
  stride_ *= 2;
}

double Series::quantile(double share) const {
  if (samples_.empty()) return 0;
  std::vector<double> sorted = samples_;
  std::sort(sorted.begin(), sorted.end());
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

double Series::median() const {
  return quantile(0.5);
}

Json Series::json() const {
  if (count_ == 0) return nullptr;
  return {{"count", count_},
          {"first", rounded(first_)},
          {"median", rounded(median())},
          {"p90", rounded(quantile(0.9))},
          {"p99", rounded(quantile(0.99))},
          {"min", rounded(min_)},
          {"max", rounded(max_)},
          {"mean", rounded(sum_ / static_cast<double>(count_))},
          {"kind", "measured"}};
}

namespace {

// A line of a file in /proc that counts KiB, in bytes; 0 where the system does not tell.
int64_t bytes_in(const char* file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key)) return 1024 * std::atoll(line.c_str() + key.size());
  }
  return 0;
}

}  // namespace

int64_t peak_host_bytes() {
  return bytes_in("/proc/self/status", "VmHWM:");
}
int64_t anonymous_host_bytes() {
  return bytes_in("/proc/self/status", "RssAnon:");
}
int64_t available_host_bytes() {
  const int64_t machine = bytes_in("/proc/meminfo", "MemAvailable:");
  const auto group = memory_left(kMembership, kMounts);
  if (!group) return machine;
  // 0 would mean that nobody knows
  return std::max<int64_t>(1, machine == 0 ? *group : std::min(machine, *group));
}

void RunReport::add_phase(const std::string& name, double seconds) {
  const std::scoped_lock lock(mutex_);
  const auto at =
      std::find_if(phases_.begin(), phases_.end(), [&](const Timed& p) { return p.name == name; });
  if (at == phases_.end()) {
    phases_.push_back({name, seconds});
  } else {
    at->seconds += seconds;
  }
}

void RunReport::add_batch(int group, const std::map<std::string, double>& seconds,
                          const std::vector<double>& step_ms) {
  const std::scoped_lock lock(mutex_);
  GroupWork& work = groups_[group];
  ++work.batches;
  for (const auto& [phase, s] : seconds) work.seconds[phase] += s;
  for (const double ms : step_ms) steps_.add(ms);
}

void RunReport::add_step_cache(int64_t computed, int64_t reused) {
  const std::scoped_lock lock(mutex_);
  computed_ += computed;
  reused_ += reused;
}

void RunReport::add_peak(int rank, const Peak& peak) {
  const std::scoped_lock lock(mutex_);
  Peak& kept = peaks_[rank];
  kept.host_bytes = std::max(kept.host_bytes, peak.host_bytes);
  kept.device_bytes = std::max(kept.device_bytes, peak.device_bytes);
  kept.reserved_bytes = std::max(kept.reserved_bytes, peak.reserved_bytes);
}

void RunReport::add_kernel(const std::string& name) {
  const std::scoped_lock lock(mutex_);
  kernels_.insert(name);
}

void RunReport::add_note(const std::string& note) {
  const std::scoped_lock lock(mutex_);
  if (notes_.size() < kListed && std::find(notes_.begin(), notes_.end(), note) == notes_.end())
    notes_.push_back(note);
}

void RunReport::add_picture(const std::string& name, double seconds) {
  const std::scoped_lock lock(mutex_);
  ++drawn_;
  picture_seconds_.add(seconds);
  if (pictures_.size() < kListed) pictures_.push_back({name, seconds});
}

void RunReport::add_failure(const std::string& name, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  ++failed_;
  if (failures_.size() < kListed) failures_.emplace_back(name, reason);
}

void RunReport::set_settings(const Json& settings) {
  const std::scoped_lock lock(mutex_);
  settings_ = settings;
}

void RunReport::set_version(const std::string& what, const std::string& version) {
  const std::scoped_lock lock(mutex_);
  versions_[what] = version;
}

void RunReport::set_skipped(int64_t pictures) {
  const std::scoped_lock lock(mutex_);
  skipped_ = pictures;
}

Json RunReport::pictures_json() const {
  Json list = Json::array(), failures = Json::array();
  for (const Timed& p : pictures_) list.push_back({{"name", p.name}, {"seconds", rounded(p.seconds)}});
  for (const auto& [name, reason] : failures_) failures.push_back({{"name", name}, {"reason", reason}});
  return {{"drawn", drawn_},     {"failed", failed_},
          {"skipped", skipped_}, {"seconds_each", picture_seconds_.json()},
          {"list", list},        {"failures", failures}};
}

Json RunReport::json() const {
  const std::scoped_lock lock(mutex_);
  Json phases = Json::array(), peaks = Json::array(), groups = Json::array();
  for (const Timed& p : phases_) phases.push_back({{"name", p.name}, {"seconds", rounded(p.seconds)}});
  for (const auto& [rank, peak] : peaks_) {
    peaks.push_back({{"rank", rank},
                     {"host_bytes", peak.host_bytes},
                     {"device_bytes", peak.device_bytes},
                     {"reserved_bytes", peak.reserved_bytes}});
  }
  for (const auto& [group, work] : groups_) {
    Json seconds = Json::object();
    for (const auto& [phase, s] : work.seconds) seconds[phase] = rounded(s);
    groups.push_back({{"group", group}, {"batches", work.batches}, {"seconds", seconds}});
  }
  Json cache;
  if (computed_ + reused_ > 0) cache = {{"computed", computed_}, {"reused", reused_}};
  return {{"schema", "atelier-run-2"},
          {"started", started_},
          {"seconds", rounded(total_.seconds())},
          {"phases", phases},
          {"groups", groups},
          {"ms_per_step", steps_.json()},
          {"step_cache", cache},
          {"peak_memory", peaks},
          {"kernels", kernels_},
          {"notes", notes_},
          {"leader_peak_host_bytes", peak_host_bytes()},
          {"settings", settings_},
          {"versions", versions_},
          {"pictures", pictures_json()}};
}

std::string RunReport::line(std::string_view noun) const {
  const std::scoped_lock lock(mutex_);
  const double seconds = total_.seconds();
  std::string text = str(drawn_, " ", noun, drawn_ == 1 ? " in " : "s in ", time_text(seconds));
  if (drawn_ > 1) text += str(" (", time_text(seconds / static_cast<double>(drawn_)), " each)");
  if (steps_.count() > 0) text += str(", ", rounded(steps_.median()), " ms/step");
  if (computed_ + reused_ > 0) text += str(", ", reused_, " of ", computed_ + reused_, " evaluations reused");
  Peak most;
  for (const auto& [rank, peak] : peaks_) {
    most.host_bytes = std::max(most.host_bytes, peak.host_bytes);
    most.device_bytes = std::max(most.device_bytes, peak.device_bytes);
  }
  if (most.host_bytes > 0) text += ", peak " + bytes_text(most.host_bytes) + " host";
  if (most.device_bytes > 0)
    text += (most.host_bytes > 0 ? ", " : ", peak ") + bytes_text(most.device_bytes) + " device";
  if (peaks_.size() > 1 && (most.host_bytes > 0 || most.device_bytes > 0)) text += " per rank";
  if (skipped_ > 0) text += str("; ", skipped_, skipped_ == 1 ? " was" : " were", " there already");
  if (failed_ > 0) text += str("; ", failed_, " failed");
  return text;
}

void RunReport::write(const std::filesystem::path& output_dir, const std::string& name) const {
  write_json(output_dir / name, json());
}

}  // namespace atelier::report
