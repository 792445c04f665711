// Rounds of batches through worker processes, some of them uncounted.
#include "verify/bench.h"

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cluster/batch_run.h"
#include "report/clock.h"

namespace atelier::verify {
namespace {

// Counts what comes after the warm-up.
class Tally {
 public:
  Tally(report::RunReport& report, int64_t batches, int64_t pictures)
      : report_(report), batches_(batches), pictures_(pictures) {}

  void generated(int group, const cluster::BatchTimes& times) {
    if (batches_ > 0) {
      if (--batches_ == 0) clock_.restart();
      return;
    }
    report_.add_batch(group, times.seconds, times.step_ms);
    report_.add_step_cache(times.computed, times.reused);
    double whole = 0;
    for (const auto& [phase, seconds] : times.seconds) {
      phases_[phase].add(seconds);
      whole += seconds;
    }
    phases_["picture"].add(whole);
  }
  void stored(const cluster::ArtifactStored& e) {
    if (pictures_-- > 0) return;
    report_.add_picture(e.request.name, e.stored.record.seconds);
    phases_["store"].add(e.stored.store_seconds);
    counted_ = clock_.seconds();
    ++drawn_;
  }

  void add_to(Json& row) const {
    for (const auto& [phase, series] : phases_) row[phase + "_s"] = series.json();
    row["pictures_per_second"] = counted_ > 0 ? static_cast<double>(drawn_) / counted_ : 0;
  }

 private:
  report::RunReport& report_;
  int64_t batches_, pictures_;  // that do not count and are still to come
  report::Stopwatch clock_;
  double counted_ = 0;  // seconds from the end of the warm-up to the last picture
  int64_t drawn_ = 0;
  std::map<std::string, report::Series> phases_;
};

// Of about the same length: what is remembered of a text would not be timed.
std::vector<request::Request> with_other_texts(std::vector<request::Request> batch, size_t number) {
  for (auto& r : batch) r.prompt += str(" ", number);
  return batch;
}

}  // namespace

Json bench_layout(const BenchOptions& o, report::RunReport& report, const std::stop_token& stop) {
  std::vector<std::vector<request::Request>> batches;
  for (int i = 0; i < o.warmups + o.runs; ++i) {
    for (const auto& batch : o.round) batches.push_back(with_other_texts(batch, batches.size()));
  }
  int64_t pictures = 0;
  size_t batch = 0;
  for (const auto& b : o.round) pictures += std::ssize(b), batch = std::max(batch, b.size());
  Tally tally(report, o.warmups * std::ssize(o.round), o.warmups * pictures);
  auto job = o.job;
  job.engine.settles_after = o.warmups > 0 ? 1 : 0;
  const auto result = cluster::run_batches(
      job, std::move(batches),
      {.on_generated = [&](const cluster::BatchGenerated& e) { tally.generated(e.group, e.times); },
       .on_stored = [&](const cluster::ArtifactStored& e) { tally.stored(e); },
       .on_restart =
           [&](const std::string& reason) { report.add_note("workers were started again: " + reason); }},
      stop);
  Json row{{"ranks", plan::world_size(o.job.engine.layout)},
           {"batch", batch},
           {"warmups", o.warmups},
           {"runs", o.runs},
           {"weight_bytes", Json::array()}};
  for (const auto& failure : result.failures) {
    report.add_failure(failure.request.name, failure.reason);
    row["problem"] = failure.reason;
  }
  for (const auto& rank : result.ranks) {
    report.add_peak(rank.rank, {rank.peak_host_bytes, rank.peak_device_bytes, rank.peak_reserved_bytes});
    for (const auto& kernel : rank.used) report.add_kernel(kernel);
    row["weight_bytes"].push_back(rank.weight_bytes);
    row["device"] = rank.device;
    if (const auto load = rank.seconds.find("load"); load != rank.seconds.end())
      row["load_s"] = std::max(row.value("load_s", 0.0), load->second);
  }
  tally.add_to(row);
  return row;
}

}  // namespace atelier::verify
