#include "app/run/run_watch.h"

#include <torch/headeronly/version.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/quote.h"
#include "report/phases.h"

namespace atelier::app {
namespace {

constexpr double kBalanced = 1.15;  // fullest rank over emptiest

double slowest(const std::vector<cluster::RankStats>& ranks, const char* phase) {
  double most = 0;
  for (const auto& r : ranks) {
    const auto at = r.seconds.find(phase);
    if (at != r.seconds.end()) most = std::max(most, at->second);
  }
  return most;
}

// Empty where ranks hold about the same, or the GPUs do not tell.
std::string imbalance(const std::vector<cluster::RankStats>& ranks) {
  if (ranks.size() < 2) return {};
  const auto by_peak = [](const auto& a, const auto& b) { return a.peak_device_bytes < b.peak_device_bytes; };
  const auto [least, most] = std::minmax_element(ranks.begin(), ranks.end(), by_peak);
  if (least->peak_device_bytes == 0) return {};
  const double ratio =
      static_cast<double>(most->peak_device_bytes) / static_cast<double>(least->peak_device_bytes);
  if (ratio <= kBalanced) return {};
  return str("memory is not balanced: rank ", most->rank, " held ",
             report::bytes_text(most->peak_device_bytes), " at most and rank ", least->rank, " ",
             report::bytes_text(least->peak_device_bytes), ", ", std::round(100 * ratio) / 100,
             " times less; the first rank of a group also encodes, and decodes what ranks do not share ",
             "(--use_parallel_vae shares all of it, --offload model takes the encoders out)");
}

}  // namespace

void RunWatch::on_phase(const std::string& phase) {
  progress_.phase(phase == "load" ? "loading the model" : phase);
  if (phase != "ready") return;
  is_ready_ = true;
  start_s_ = since_start_.seconds();
  since_ready_.restart();
  since_generated_.restart();
  since_stored_.restart();
  log::debug(str("loaded after ", report::time_text(start_s_)));
}

void RunWatch::on_step(const cluster::StepDone& e) {
  auto& watch = step_watches_[e.group];
  if (e.step > 1) step_ms_[e.group] = watch.seconds() * 1000;  // before the first one the texts are encoded
  watch.restart();
  progress_.step({.group = e.group,
                  .done = e.step,
                  .total = e.steps,
                  .pictures = pictures_at_once_,
                  .ms = step_ms_[e.group]});
}

void RunWatch::on_note(const cluster::RequestNote& e) {
  const auto line = str(e.request.name, ": ", e.note);
  if (!told_.insert(line).second) return;
  progress_.clear();
  log::warning(line);
  report_.add_note(line);
}

void RunWatch::on_generated(const cluster::BatchGenerated& e) {
  report_.add_batch(e.group, e.times.seconds, e.times.step_ms);
  report_.add_step_cache(e.times.computed, e.times.reused);
  for (const auto& [phase, seconds] : e.times.seconds) group_seconds_[e.group][phase] += seconds;
  since_generated_.restart();
  since_stored_.restart();
  if (e.times.reread_bytes > 0)
    log::debug(str("group ", e.group, " read ", size_text(e.times.reread_bytes),
                   " of weights again for other adapters"));
}

void RunWatch::on_restart(const std::string& reason) {
  progress_.clear();
  log::warning("workers are started again: " + reason);
  report_.add_note("workers were started again: " + reason);
}

std::map<std::string, double> RunWatch::slowest_group() const {
  std::map<std::string, double> most;
  double longest = -1;
  for (const auto& [group, seconds] : group_seconds_) {
    double all = 0;
    for (const auto& [phase, s] : seconds) all += s;
    if (all > longest) longest = all, most = seconds;
  }
  return most;
}

void RunWatch::add_phases(const std::vector<cluster::RankStats>& ranks) {
  if (!is_ready_) {
    report_.add_phase("start", since_start_.seconds());
    return;
  }
  for (const auto& [name, s] :
       report::start_phases(start_s_, slowest(ranks, "connect"), slowest(ranks, "load")))
    report_.add_phase(name, s);
  const double ended = since_stored_.seconds(), written = since_generated_.seconds() - ended;
  for (const auto& [name, s] : report::draw_phases(since_ready_.seconds(), slowest_group(), written, ended))
    report_.add_phase(name, s);
}

void RunWatch::finish(const std::vector<cluster::RankStats>& ranks) {
  add_phases(ranks);
  report_.set_version("libtorch", TORCH_VERSION);
  for (const auto& r : ranks) {
    report_.add_peak(r.rank, {r.peak_host_bytes, r.peak_device_bytes, r.peak_reserved_bytes});
    for (const auto& kernel : r.used) report_.add_kernel(kernel);
  }
  const auto line = imbalance(ranks);
  if (line.empty()) return;
  log::warning(line);
  report_.add_note(line);
}

}  // namespace atelier::app
