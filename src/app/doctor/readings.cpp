#include "app/doctor/readings.h"

#include <cmath>

#include "base/error.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

constexpr double kGiga = 1e9;

double rounded(double value, double to) {
  return std::round(value / to) * to;
}

template <class T>
std::string cell(const std::optional<T>& value) {
  return value ? str(*value) : "";
}
std::string mebibytes(const std::optional<int64_t>& bytes) {
  return bytes ? str(*bytes >> 20) : "";
}
std::string gigabytes(const std::optional<double>& rate) {
  return rate ? str(rounded(*rate / kGiga, 0.01)) : "";
}

std::optional<double> rate(const std::optional<int64_t>& now, const std::optional<int64_t>& before,
                           double seconds) {
  if (!now || !before || seconds <= 0 || *now < *before) return std::nullopt;
  return static_cast<double>(*now - *before) / seconds;
}

}  // namespace

std::string csv_header() {
  return "timestamp,index,name,memory.used [MiB],memory.total [MiB],utilization.gpu [%],utilization.memory "
         "[%],"
         "power.draw [W],enforced.power.limit [W],clocks.sm [MHz],clocks.max.sm [MHz],nvlink.sent [GB/s],"
         "nvlink.received [GB/s]";
}

Readings::Readings(const machine::Nvml& nvml, DateNow clock) : nvml_(nvml), clock_(std::move(clock)) {}

std::vector<Readings::Row> Readings::take() {
  time_ = clock_();
  const double seconds = std::chrono::duration<double>(time_ - last_time_).count();
  std::vector<Row> rows;
  for (int gpu = 0; gpu < nvml_.count(); ++gpu) {
    Row row{gpu, nvml_.identity(gpu).name, nvml_.read(gpu), {}, {}};
    if (const auto before = last_.find(gpu); before != last_.end()) {
      row.sent = rate(row.now.nvlink_sent, before->second.nvlink_sent, seconds);
      row.received = rate(row.now.nvlink_received, before->second.nvlink_received, seconds);
    }
    last_[gpu] = row.now;
    rows.push_back(std::move(row));
  }
  last_time_ = time_;
  return rows;
}

std::vector<std::string> Readings::csv_lines() {
  std::vector<std::string> out;
  for (const auto& r : take()) {
    out.push_back(str(report::utc_text(time_), ",", r.gpu, ",", r.name, ",", mebibytes(r.now.memory_used),
                      ",", mebibytes(r.now.memory_total), ",", cell(r.now.load), ",", cell(r.now.memory_load),
                      ",", cell(r.now.power), ",", cell(r.now.power_limit), ",", cell(r.now.clock), ",",
                      cell(r.now.most_clock), ",", gigabytes(r.sent), ",", gigabytes(r.received)));
  }
  return out;
}

std::vector<std::string> Readings::text_lines() {
  const bool is_first = last_.empty();
  std::vector<std::string> out;
  for (const auto& r : take()) {
    const auto or_not = [](const std::string& text, const char* unit) {
      return text.empty() ? std::string("not readable here") : text + unit;
    };
    std::string links = r.now.nvlink_sent ? "from the next reading on" : "not readable here";
    if (!is_first && r.sent) links = str(gigabytes(r.sent), " GB/s out, ", gigabytes(r.received), " GB/s in");
    out.push_back(str(report::utc_text(time_), "  GPU ", r.gpu, " ", r.name, ": memory ",
                      or_not(mebibytes(r.now.memory_used), ""), " of ",
                      or_not(mebibytes(r.now.memory_total), " MiB"), ", load ",
                      or_not(cell(r.now.load), " %"), ", power ", or_not(cell(r.now.power), " W"),
                      ", NVLink ", links));
  }
  return out;
}

}  // namespace atelier::app
