#include "app/run/protocol_run.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/doctor/gpus.h"
#include "app/run/bench_machine.h"
#include "app/run/interrupt.h"
#include "app/run/plan_query.h"
#include "app/run/planned_model.h"
#include "app/run/protocol_pictures.h"
#include "app/run/protocol_rows.h"
#include "base/error.h"
#include "base/files.h"
#include "base/version.h"
#include "bench/checks.h"
#include "bench/cited.h"
#include "bench/output.h"
#include "bench/progress.h"
#include "bench/protocol.h"
#include "bench/protocol_page.h"
#include "bench/result.h"
#include "pipeline/device.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

constexpr int kGpuRuns = 20, kCpuRuns = 3, kGpuWarmups = 2, kCpuWarmups = 1, kCpuRanks = 2;
constexpr const char* kInside =
    "text encoding, denoising and decoding of a batch; pictures per second also holds encoding, hashing and "
    "writing the files";

struct Here {
  bool is_gpu = false;
  int ranks = 1;  // that may be used
};

Here ranks_here(const Resolved& resolved) {
  const int gpus = pipeline::cuda_devices();
  const bool is_gpu = choose_device(resolved.settings.device.device, gpus).device.is_cuda();
  const int wanted = asked_ranks(resolved);
  if (!is_gpu) return {false, wanted > 0 ? wanted : kCpuRanks};
  return {true, wanted > 0 ? std::min(wanted, gpus) : gpus};
}

// With what a protocol leaves to itself filled in.
Resolved settled(Resolved resolved, bool is_gpu) {
  auto& output = resolved.settings.output;
  const auto set = [&](const char* name, int& slot, int value) {
    if (resolved.is_set(name)) return;
    slot = value;
    resolved.origins[name] = {Precedence::kFlag, str("--", name)};
  };
  set("num_iterations", output.num_iterations, is_gpu ? kGpuRuns : kCpuRuns);
  set("warmup_calls", output.warmup_calls, is_gpu ? kGpuWarmups : kCpuWarmups);
  output.quiet = true;
  return resolved;
}

class ProtocolRun {
 public:
  ProtocolRun(const Resolved& resolved, const Environment& variables, const ProtocolOptions& options)
      : here_(ranks_here(resolved)),
        resolved_(settled(resolved, here_.is_gpu)),
        options_(options),
        folder_(resolved.settings.output.output_dir),
        is_loud_(!resolved.settings.output.quiet),
        nvml_(open_nvml(no_nvml_)),
        model_(resolved_, variables),
        rows_({resolved_, variables, model_, nvml_.get(), here_.ranks, here_.is_gpu, hardware()}) {
    describe();
    list_ = bench::measurements(query());
  }

  int run() {
    resume();
    note_.done[bench::kSetUp] = true;
    note_.done[bench::kDetected] = here_.is_gpu && here_.ranks > 1;
    for (size_t i = 0; i < list_.size(); ++i) {
      const auto& m = list_[i];
      if (is_known(m)) continue;
      say(str("measuring ", m.id, " (", i + 1, " of ", list_.size(), ")"));
      try {
        keep(m);
      } catch (const Error& e) {
        if (e.kind() == Kind::kInterrupted) say("interrupted; the same command goes on");
        throw;
      }
    }
    finish();
    refuse_if_nothing_fits();
    return exit_code();
  }

 private:
  std::optional<plan::Hardware> hardware() const {
    if (options_.hardware) return options_.hardware;
    return hardware_here(choose_device(resolved_.settings.device.device, pipeline::cuda_devices()));
  }

  void describe() {
    const auto pictures = model_.requests({});
    const auto& first = pictures.requests.front();
    const auto& work = pictures.extent.work;
    height_ = *first.height, width_ = *first.width;
    result_ = {{"schema", bench::kSchema},
               {"protocol", options_.name},
               {"atelier", kVersion},
               {"command", options_.command},
               {"started", report::utc_text(std::chrono::system_clock::now())},
               {"inside", kInside},
               {"asked",
                {{"model", model_.model().folder.label()},
                 {"device", here_.is_gpu ? "cuda" : "cpu"},
                 {"ranks", here_.ranks},
                 {"height", height_},
                 {"width", width_},
                 {"steps", *first.num_inference_steps},
                 {"batch", 1},
                 {"pictures", pictures.requests.size()},
                 {"dtype", rows_.dtype()},
                 {"tier", resolved_.settings.engine.tier},
                 {"attention_dtype", resolved_.settings.engine.attention_dtype},
                 {"deterministic", resolved_.settings.engine.deterministic},
                 {"sampler", first.sampler.value_or("the folder's")},
                 {"seed", first.seed.value_or(0)},
                 {"prompt", first.prompt},
                 {"text_tokens", work.text_tokens},
                 {"branches", work.branches},
                 {"sizes", sizes()},
                 {"batches", batches()},
                 {"runs", resolved_.settings.output.num_iterations},
                 {"warmups", resolved_.settings.output.warmup_calls},
                 {"random_weights", !resolved_.settings.model.dummy.empty()}}},
               {"machine", machine_facts(nvml_.get(), no_nvml_, here_.is_gpu ? pipeline::cuda_devices() : 0,
                                         !here_.is_gpu)},
               {"rows", Json::array()},
               {"traffic", Json::array()},
               {"quality", Json::array()}};
  }

  std::vector<int> sizes() const {
    if (!options_.sizes.empty()) return options_.sizes;
    return here_.is_gpu ? std::vector{height_, 2 * height_, 4 * height_}
                        : std::vector{height_ / 2, height_, height_ * 3 / 2};
  }
  std::vector<int> batches() const {
    if (!options_.batches.empty()) return options_.batches;
    return here_.is_gpu ? std::vector{1, 2, 4, 8} : std::vector{1, 2, 4};
  }

  bench::ProtocolQuery query() const {
    const auto limits = model_.layout_query({});
    return {.name = options_.name,
            .gpus = here_.ranks,
            .height = height_,
            .width = width_,
            .sizes = sizes(),
            .batches = batches(),
            .branches = limits.work.branches,
            .is_gpu = here_.is_gpu,
            .is_unet = limits.model.has_convolution_mixer};
  }

  // What an earlier run into this folder has measured, if it was the same run.
  void resume() {
    const auto file = folder_ / bench::kResultName;
    const bool begins_anew = resolved_.is_set("resume") && !resolved_.settings.output.resume;
    if (begins_anew || !std::filesystem::exists(file)) return;
    const Json earlier = read_json(file);
    const bool is_same =
        earlier.value("schema", "") == bench::kSchema && earlier.value("protocol", "") == options_.name &&
        earlier.value("asked", Json()) == result_["asked"] && earlier.value("atelier", "") == kVersion;
    if (!is_same)
      throw Error(
          Kind::kUsage,
          str(file.string(), " is of another run: --no_resume begins anew, another --output_dir keeps it"));
    for (const auto* key : {"started", "rows", "traffic"}) result_[key] = earlier.at(key);
    std::erase_if(result_["rows"].get_ref<Json::array_t&>(),
                  [](const Json& row) { return row["status"] == bench::status::kFailed; });
  }

  bool is_known(const bench::Measurement& m) const { return bench::row_named(result_, m.id) != nullptr; }

  void keep(const bench::Measurement& m) {
    auto measured = rows_.measure(m, folder_);
    if (is_loud_) std::cout << line_of(measured.row) << std::endl;
    lacking_ += measured.lacks_room;
    result_["rows"].push_back(std::move(measured.row));
    if (!measured.traffic.is_null()) result_["traffic"].push_back(std::move(measured.traffic));
    write_file_atomically(folder_ / bench::kResultName, bench::to_text(result_));
  }

  static std::string line_of(const Json& row) {
    std::string out = str(row["id"].get<std::string>(), ": ");
    if (!bench::is_measured(row)) return out + row["status"].get<std::string>() + ", " + row.value("why", "");
    return out + str(bench::measured(row, "ms_per_step").value_or(0), " ms/step, ",
                     bench::measured(row, "picture_s").value_or(0), " s, ",
                     bench::measured(row, "pictures_per_second").value_or(0), " pictures per second");
  }

  int64_t count(std::string_view status) const {
    const auto& rows = result_["rows"];
    return std::count_if(rows.begin(), rows.end(), [&](const Json& row) { return row["status"] == status; });
  }

  // Throws Error(kCapacity) where nothing could be measured because nothing fits.
  void refuse_if_nothing_fits() const {
    const auto failed = count(bench::status::kFailed);
    if (failed == 0 || lacking_ < failed || count(bench::status::kMeasured) > 0) return;
    for (const auto& row : result_["rows"]) {
      if (row["status"] == bench::status::kFailed)
        throw Error(Kind::kCapacity, str("nothing of the protocol fits; ", row["id"].get<std::string>(), ": ",
                                         row["why"].get<std::string>()));
    }
  }

  // Rewrites progress.md.
  void say(const std::string& now) {
    const auto known = [&](bench::Topic topic) {
      return std::all_of(list_.begin(), list_.end(),
                         [&](const auto& m) { return !m.is_for(topic) || is_known(m); });
    };
    const auto several = [&](bench::Topic topic) {
      const auto rows = bench::rows_for(result_, topic);
      return std::any_of(rows.begin(), rows.end(), [](const Json* row) {
        return bench::is_measured(*row) && bench::gpus_of(*row) > 1;
      });
    };
    using bench::Topic;
    const bool is_whole = options_.name == bench::kWholeProtocol;
    const bool is_over = std::all_of(list_.begin(), list_.end(), [&](const auto& m) { return is_known(m); });
    note_.done[bench::kInstalled] = bench::baseline(result_) != nullptr;
    note_.done[bench::kStrategiesTested] =
        is_whole && known(Topic::kStrategies) && several(Topic::kStrategies);
    note_.done[bench::kScalingMeasured] = is_whole && known(Topic::kScaling) && several(Topic::kScaling);
    note_.done[bench::kBenchmarked] = is_over && count(bench::status::kMeasured) > 0;
    note_.remark[bench::kInstalled] = str("atelier ", kVersion, " in its place");
    if (!here_.is_gpu)
      note_.remark[bench::kDetected] = str("no GPU: ", here_.ranks, " ranks on the CPU stand in");
    else if (here_.ranks < 2)
      note_.remark[bench::kDetected] = "one GPU is here";
    note_.now = str(
        now, "; of ", list_.size(), " measurements ", count(bench::status::kMeasured), " are done",
        count(bench::status::kFailed) > 0 ? str(", ", count(bench::status::kFailed), " failed") : "", ".");
    note_.issues.clear();
    for (const auto& row : result_["rows"]) {
      if (row["status"] == bench::status::kFailed)
        note_.issues.push_back(str(row["id"].get<std::string>(), ": ", row.value("why", "")));
    }
    if (!here_.is_gpu)
      note_.issues.push_back(
          "There is no GPU here: speeds of CPU ranks, which share the cores, say nothing about GPUs.");
    const auto missing =
        std::count_if(list_.begin(), list_.end(), [&](const auto& m) { return m.gpus > here_.ranks; });
    if (missing > 0)
      note_.issues.push_back(str(missing, " measurements need more ", here_.is_gpu ? "GPUs" : "ranks",
                                 " than there are; they are listed as not measured here."));
    const auto next = std::find_if(list_.begin(), list_.end(), [&](const auto& m) { return !is_known(m); });
    note_.next =
        next == list_.end()
            ? note_.done[bench::kDocumented]
                  ? "Read report.html; atelier compare A B holds a later run against this one."
                  : "Compare pictures, judge the criteria, write the report."
            : str("Measure ", next->id, "; then compare pictures, judge the criteria, write the report.");
    write_file_atomically(folder_ / "progress.md", bench::progress_text(note_));
  }

  void finish() {
    say("comparing pictures");
    const auto pictures = compare_pictures(result_, folder_);
    result_["cited"] = Json::array();
    for (const auto& figure : bench::cited_figures()) result_["cited"].push_back(bench::to_json(figure));
    result_["bound"] = bench::bound_by(result_);
    result_["checks"] = Json::array();
    for (const auto& c : bench::success_checks(result_))
      result_["checks"].push_back({{"what", c.what},
                                   {"verdict", bench::name_of(c.verdict)},
                                   {"found", c.found},
                                   {"threshold", c.threshold},
                                   {"kind", "measured"}});
    const auto page = bench::protocol_page(result_, pictures);
    auto problems = bench::schema_problems(result_);
    for (const auto& p : bench::unlabelled(page)) problems.push_back(p);
    if (!problems.empty()) throw Error(Kind::kItem, "the result breaks its own schema: " + problems.front());
    write_file_atomically(folder_ / bench::kResultName, bench::to_text(result_));
    bench::write_document(page, folder_);
    note_.done[bench::kDocumented] = true;
    say("done");
    if (!is_loud_) return;
    for (const auto& c : bench::success_checks(result_))
      std::cout << c.what << ": " << bench::name_of(c.verdict) << " (" << c.found << ")\n";
    std::cout << "bound by " << bench::bound_by(result_) << "\n"
              << (folder_ / "report.html").string() << std::endl;
  }

  int exit_code() const {
    const auto failed = [](const Json& row) { return row["status"] == bench::status::kFailed; };
    const auto differs = [](const Json& q) { return q.value("verdict", "") == "differs"; };
    const auto &rows = result_["rows"], &quality = result_["quality"];
    return std::any_of(rows.begin(), rows.end(), failed) ||
                   std::any_of(quality.begin(), quality.end(), differs)
               ? 1
               : 0;
  }

  const Here here_;
  const Resolved resolved_;
  const ProtocolOptions options_;
  const std::filesystem::path folder_;
  const bool is_loud_;
  std::string no_nvml_;
  const std::unique_ptr<machine::Nvml> nvml_;
  PlannedModel model_;
  ProtocolRows rows_;
  int height_ = 0, width_ = 0;
  std::vector<bench::Measurement> list_;
  Json result_;
  bench::ProgressNote note_;
  int64_t lacking_ = 0;  // measurements that failed for want of memory
};

}  // namespace

int run_protocol(const Resolved& resolved, const Environment& variables, const ProtocolOptions& options) {
  return ProtocolRun(resolved, variables, options).run();
}

}  // namespace atelier::app
