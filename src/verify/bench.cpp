#include "verify/bench.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "base/error.h"
#include "pipeline/device.h"
#include "report/run_report.h"

namespace atelier::verify {
namespace {

Json spread(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  if (v.empty()) return nullptr;
  return {{"median", v[v.size() / 2]}, {"min", v.front()}, {"max", v.back()}};
}

struct Measured {
  std::vector<double> denoise, picture, decode, encode;  // seconds, per run; the slowest rank's
  std::vector<int64_t> weights, peak;                    // per rank
  double load = 0;
  std::set<std::string> used;
  std::mutex mutex;

  void slowest(std::vector<double>& all, size_t run, double value) {
    if (all.size() <= run) all.resize(run + 1, 0);
    all[run] = std::max(all[run], value);
  }
};

// The most anonymous memory of this process while the object lives, looked at every 10 ms.
class HostPeak {
 public:
  HostPeak()
      : thread_([this](const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            peak_ = std::max(peak_.load(), report::anonymous_host_bytes());
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
        }) {}
  int64_t bytes() const { return peak_; }

 private:
  std::atomic<int64_t> peak_ = 0;
  std::jthread thread_;
};

void measure(pipeline::Pipeline& pipeline, int rank, const BenchOptions& o, Measured& m) {
  const double load = pipeline.timing().seconds.at("load");
  auto before = pipeline.timing().seconds;
  for (int run = -o.warmups; run < o.runs; ++run) {
    pipeline.generate(o.batch, {});
    const auto now = pipeline.timing().seconds;
    const auto took = [&](const char* phase) {
      const auto b = std::as_const(before).find(phase), n = now.find(phase);
      return (n == now.end() ? 0 : n->second) - (b == before.end() ? 0 : b->second);
    };
    if (run >= 0) {
      const std::scoped_lock lock(m.mutex);
      const auto i = static_cast<size_t>(run);
      m.slowest(m.denoise, i, took("denoise"));
      m.slowest(m.encode, i, took("encode"));
      m.slowest(m.decode, i, took("decode"));
      m.slowest(m.picture, i, took("encode") + took("denoise") + took("decode"));
    }
    before = now;
  }
  const std::scoped_lock lock(m.mutex);
  m.load = std::max(m.load, load);
  m.weights[static_cast<size_t>(rank)] = pipeline.weight_bytes();
  m.peak[static_cast<size_t>(rank)] = pipeline::peak_bytes(pipeline.device());
  const auto used = pipeline.used();
  m.used.insert(used.begin(), used.end());
}

}  // namespace

Json bench_layout(const pipeline::ModelRepo& folder, const std::string& layout, const BenchOptions& o) {
  const auto degrees = plan::parse_strategy(layout);
  const int ranks = plan::world_size(degrees);
  const auto& r = o.batch.front();
  Json row{{"model", folder.label()},
           {"layout", layout},
           {"ranks", ranks},
           {"height", *r.height},
           {"width", *r.width},
           {"steps", *r.num_inference_steps},
           {"batch", o.batch.size()},
           {"branches", request::branches(r)},
           {"text_tokens", *r.max_sequence_length},
           {"runs", o.runs},
           {"warmups", o.warmups}};
  Measured m;
  m.weights.resize(static_cast<size_t>(ranks));
  m.peak.resize(static_cast<size_t>(ranks));
  std::optional<HostPeak> loading(std::in_place);
  try {
    std::atomic<int> loaded = 0;
    on_ranks(folder, degrees, o.load, [&](pipeline::Pipeline& p, int rank) {
      if (++loaded == ranks) row["load_anonymous_host_bytes"] = loading->bytes(), loading.reset();
      measure(p, rank, o, m);
    });
  } catch (const std::exception& e) {
    row["problem"] = e.what();
    return row;
  }
  std::vector<double> per_step;
  for (const double s : m.denoise) per_step.push_back(s * 1000 / *r.num_inference_steps);
  row["ms_per_step"] = spread(per_step);
  row["picture_s"] = spread(m.picture);
  row["encode_s"] = spread(m.encode);
  row["decode_s"] = spread(m.decode);
  row["load_s"] = m.load;
  row["weight_bytes"] = m.weights;
  row["peak_bytes"] = m.peak;
  row["used"] = m.used;
  row["device"] = pipeline::device_name(o.load.device);
  return row;
}

}  // namespace atelier::verify
