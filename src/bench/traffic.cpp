#include "bench/traffic.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace atelier::bench {
namespace {

// The number behind `key` in a line of log; 0: there is none.
int64_t number_after(std::string_view line, std::string_view key) {
  const size_t at = line.find(key);
  if (at == std::string_view::npos) return 0;
  int64_t value = 0;
  std::from_chars(line.data() + at + key.size(), line.data() + line.size(), value);
  return value;
}

std::string_view word_after(std::string_view line, std::string_view key) {
  const size_t at = line.find(key);
  if (at == std::string_view::npos) return {};
  const auto rest = line.substr(at + key.size());
  return rest.substr(0, rest.find(' '));
}

// What is sent from one to another, whatever asks for it: NCCL has one kernel for it, Gloo its sends.
constexpr std::string_view kPassed = "passed";
// What a kernel's or a call's name says it does.
constexpr std::pair<std::string_view, std::string_view> kCollectives[] = {{"allreduce", "all_reduce"},
                                                                          {"allgather", "all_gather"},
                                                                          {"alltoall", "all_to_all"},
                                                                          {"broadcast", "broadcast"},
                                                                          {"sendrecv", kPassed},
                                                                          {"send", kPassed},
                                                                          {"recv", kPassed}};

std::string verb_of(const std::string& name) {
  std::string plain;
  for (const char c : lower(name)) {
    if (c != '_') plain += c;
  }
  if (!plain.starts_with("nccl") && !plain.starts_with("gloo:")) return {};
  for (const auto& [part, verb] : kCollectives) {
    if (plain.find(part) != std::string::npos) return std::string(verb);
  }
  return {};
}

}  // namespace

double covered(std::vector<std::pair<double, double>> spans) {
  std::sort(spans.begin(), spans.end());
  double sum = 0, until = -1e300;
  for (const auto& [begin, end] : spans) {
    sum += std::max(0., end - std::max(begin, until));
    until = std::max(until, end);
  }
  return sum;
}

void Traffic::add_log(int rank, std::string_view log) {
  const auto lines = split_lines(log);
  size_t first = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].find("batch run=") != std::string_view::npos) first = i + 1;
  }
  for (size_t i = first; i < lines.size(); ++i) {
    const auto verb = word_after(lines[i], "collective=");
    if (verb.empty() || verb == "barrier") continue;
    auto& v = verbs_[std::string(verb)];
    const int64_t bytes = number_after(lines[i], "bytes=");
    ++v.calls;
    v.bytes += bytes;
    if (rank == 0) v.first_bytes += bytes;
  }
}

void Traffic::add_trace(const Json& trace) {
  std::vector<TimeSpan> passed;
  for (const auto& event : trace.value("traceEvents", Json::array())) {
    if (event.value("ph", "") != "X" || !event.contains("dur")) continue;
    const auto verb = verb_of(event.value("name", ""));
    if (verb.empty()) continue;
    const double begin = event.at("ts").get<double>();
    (verb == kPassed ? passed : verbs_[verb].spans)
        .emplace_back(begin, begin + event.at("dur").get<double>());
  }
  Verb* only = sole_sender();
  auto& place = only ? only->spans : untold_;
  place.insert(place.end(), passed.begin(), passed.end());
}

// Of the verbs that no event names, the one that sends nearly everything; null: there is none.
Traffic::Verb* Traffic::sole_sender() {
  constexpr double kNearly = 0.9;
  Verb* most = nullptr;
  int64_t all = 0;
  for (auto& [name, v] : verbs_) {
    if (!v.spans.empty()) continue;
    all += v.bytes;
    if (!most || v.bytes > most->bytes) most = &v;
  }
  return most && static_cast<double>(most->bytes) >= kNearly * static_cast<double>(all) ? most : nullptr;
}

Json Traffic::json(double batch_ms) const {
  Json out{{"kind", "measured"}, {"collectives", Json::array()}, {"batch_ms", batch_ms}};
  std::vector<TimeSpan> all = untold_;
  for (const auto& [verb, v] : verbs_) {
    Json row{{"verb", verb}, {"calls", v.calls}, {"bytes", v.bytes}};
    if (!v.spans.empty()) {
      const double us = covered(v.spans);
      row["ms"] = us / 1e3;
      if (us > 0) row["gb_per_s"] = static_cast<double>(v.first_bytes) / us / 1e3;
    }
    all.insert(all.end(), v.spans.begin(), v.spans.end());
    out["collectives"].push_back(std::move(row));
  }
  if (all.empty()) return out;
  out["under_way_ms"] = covered(all) / 1e3;
  if (batch_ms > 0) out["share"] = covered(all) / 1e3 / batch_ms;
  return out;
}

}  // namespace atelier::bench
