#include "server/metrics.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "base/error.h"

namespace atelier::server {
namespace {

constexpr std::array<double, 13> kBounds{0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5,
                                         1,     2.5,    5,     10,   30,   120};  // s

// The shortest text that is this number: a counter that is rounded stands still.
std::string exact(double value) {
  std::array<char, 32> text;
  const bool is_whole = value > -1e15 && value < 1e15 && std::floor(value) == value;
  const auto end = is_whole ? std::to_chars(text.begin(), text.end(), static_cast<int64_t>(value))
                            : std::to_chars(text.begin(), text.end(), value);
  return {text.begin(), end.ptr};
}

}  // namespace

void Metrics::count(const std::string& name, const std::string& help, const std::string& labels, double by) {
  const std::scoped_lock lock(mutex_);
  auto& series = all_[name];
  if (series.help.empty()) series.help = help;
  series.values[labels] += by;
}

void Metrics::set(const std::string& name, const std::string& help, double value, const std::string& labels) {
  const std::scoped_lock lock(mutex_);
  auto& series = all_[name];
  series.type = "gauge";
  if (series.help.empty()) series.help = help;
  series.values[labels] = value;
}

void Metrics::observe(const std::string& name, const std::string& help, double seconds) {
  const std::scoped_lock lock(mutex_);
  auto& series = all_[name];
  series.type = "histogram";
  if (series.help.empty()) series.help = help;
  series.buckets.resize(kBounds.size());
  for (size_t i = 0; i < kBounds.size(); ++i) series.buckets[i] += seconds <= kBounds[i];
  series.sum += seconds;
  ++series.total;
}

std::string Metrics::text() const {
  const std::scoped_lock lock(mutex_);
  std::string out;
  for (const auto& [name, series] : all_) {
    out += str("# HELP ", name, " ", series.help, "\n# TYPE ", name, " ", series.type, "\n");
    for (const auto& [labels, value] : series.values)
      out += str(name, labels.empty() ? "" : "{" + labels + "}", " ", exact(value), "\n");
    if (series.buckets.empty()) continue;
    for (size_t i = 0; i < kBounds.size(); ++i)
      out += str(name, "_bucket{le=\"", kBounds[i], "\"} ", series.buckets[i], "\n");
    out += str(name, "_bucket{le=\"+Inf\"} ", series.total, "\n", name, "_sum ", exact(series.sum), "\n",
               name, "_count ", series.total, "\n");
  }
  return out;
}

}  // namespace atelier::server
