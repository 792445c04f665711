// The run itself.
#include "app/run/draw.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "app/compat/scripts.h"
#include "app/run/capacity.h"
#include "app/run/drawn.h"
#include "app/run/inspect.h"
#include "app/run/memory_table.h"
#include "app/run/picture_list.h"
#include "app/run/run_watch.h"
#include "app/run/seeds.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/quote.h"
#include "base/version.h"
#include "jobs/folder_claim.h"
#include "jobs/ledger.h"
#include "jobs/output_folder.h"
#include "jobs/resume.h"
#include "media/video.h"
#include "pipeline/device.h"
#include "plan/parallel_config.h"
#include "report/log_names.h"
#include "report/progress.h"
#include "report/run_report.h"
#include "request/work.h"

namespace atelier::app {
namespace {

// Lines of a run: on the terminal unless it is to be quiet, and in the log file. A verbose log shows them
// anyway.
void say(const Resolved& resolved, const std::string& line) {
  log::debug(line);
  if (resolved.settings.output.quiet || log::is_debug()) return;
  std::printf("%s\n", printable(line).c_str());
  std::fflush(stdout);
}

std::string samples_line(const std::vector<cluster::RankStats>& ranks) {
  std::string out = "samples through the denoiser, pictures x branches x steps, by rank:";
  for (const auto& rank : ranks) out += str(" ", rank.samples);
  return out;
}

class Session {
 public:
  Session(RunSpec spec, const Resolved& resolved)
      : spec_(std::move(spec)),
        resolved_(resolved),
        folder_(spec_.job.sink.folder),
        claim_(folder_.path(), node(), nodes()),
        ledger_(folder_.path() / jobs::kLedgerName),
        report_(spec_.clock) {
    if (resolved_.surface == kScripts) list_.emplace(list_file(resolved_), folder_.path(), has_gpus());
    open_log();
  }

  int run(const Interrupt& interrupt, const StartRun& start) {
    introduce();
    report_.add_phase("prepare", spec_.clock.seconds());
    phase_.restart();
    find_work();
    end_phase("scan");
    if (todo_.empty() && spec_.requests.requests.empty() && spec_.requests.bad.empty())
      say(resolved_, "nothing to draw");
    if (!todo_.empty()) draw(interrupt, start);
    return finish();
  }

 private:
  // Which share of the prompts this is.
  int nodes() const {
    const auto& d = resolved_.settings.device;
    return d.span_nodes ? 1 : d.num_nodes;
  }
  int node() const { return nodes() > 1 ? resolved_.settings.device.node_rank : 0; }

  bool has_gpus() const { return resolved_.settings.scripts.mode == "multi"; }

  int repeats() const {
    return resolved_.settings.output.warmup_calls + resolved_.settings.output.num_iterations;
  }

  void end_phase(const char* name) {
    report_.add_phase(name, phase_.seconds());
    phase_.restart();
  }

  void open_log() {
    const auto& s = resolved_.settings;
    if (s.output.log_dir.empty() && resolved_.surface == kRun && !s.engine.debug) return;
    const auto stamp = report::log_stamp(std::chrono::system_clock::now());
    const auto folder = report::log_folder(s.output.log_dir, s.output.output_dir, stamp);
    log::add_file(folder / report::log_file_name({.node = s.device.node_rank, .nodes = s.device.num_nodes}));
  }

  void introduce() {
    for (const auto& line : header(spec_, resolved_)) say(resolved_, line);
    Json settings = to_json(resolved_.settings);
    settings["record"] = spec_.job.sink.record;
    settings["layout"] = plan::to_string(spec_.layout.degrees);
    report_.set_settings(settings);
    report_.set_version("atelier", kVersion);
    for (const auto& note : resolved_.notes) report_.add_note(note);
    for (const auto& note : spec_.requests.notes) report_.add_note(note);
    for (const auto& bad : spec_.requests.bad) {
      log::error(str(bad.where, ": ", bad.reason));
      report_.add_failure(bad.where, bad.reason);
      ++failed_;
    }
  }

  jobs::ScanRules scan_rules() const {
    const auto& out = resolved_.settings.output;
    const bool draws_over = !out.resume && resolved_.is_set("resume");
    return {.resume = !out.resume        ? jobs::Resume::kOff
                      : out.keep_changed ? jobs::Resume::kKeepChanged
                                         : jobs::Resume::kRedoChanged,
            .foreign = draws_over ? jobs::Foreign::kOverwritten : jobs::Foreign::kRefused,
            .settings = [this](const request::Request& r) { return look(r); },
            .as_text = as_text,
            .inspect = inspect};
  }

  Json look(const request::Request& r) const { return request::look(r, spec_.job.sink.record); }

  // Which pictures are not there yet, and their seeds.
  void find_work() {
    auto scan = jobs::scan(spec_.requests.requests, folder_.path(), ledger_, scan_rules());
    if (!scan.summary.empty()) say(resolved_, scan.summary);
    if (ledger_.had_torn_tail()) log::warning("the ledger's last line was half written and has been cut off");
    report_.set_skipped(scan.skipped);
    for (auto& record : scan.adopted) ledger_.append(std::move(record));
    for (const auto& [request, reason] : scan.refused) {
      log::error(str(request.where.empty() ? request.name : request.where, " failed: ", reason));
      fail(request, reason);
    }
    if (scan.todo.empty()) return;
    check_disk(scan.todo);
    settle(scan.todo);
  }

  // Fills todo_: pictures that are to be drawn, with seeds.
  void settle(const request::RequestList& unseeded) {
    uint64_t random = 0;
    int64_t rows = 0;
    SeedFiller seeds([&] {
      ++rows;
      return random = random_seed();
    });
    for (request::Request request : unseeded) {
      seeds.fill(request);
      drawn_.expect(request.name);
      todo_.push_back(request);
    }
    const auto& seed = resolved_.settings.input.row.request.seed;
    if (rows == 1) report_.add_note(str("random seed ", random));
    if (rows > 1) report_.add_note("a random seed for each prompt, which the ledger keeps");
    say(resolved_, rows > 1   ? "seed     random for each prompt; the ledger and the pictures keep them"
                   : rows > 0 ? str("seed     ", random, " (random; --seed ", random, " repeats it)")
                              : str("seed     ",
                                    seed ? str(*seed, " (", resolved_.origin("seed").text, ")") : "per row"));
  }

  void fail(const request::Request& request, const std::string& reason) {
    report_.add_failure(request.name, reason);
    ledger_.append(jobs::failed_record(request, look(request), reason));
    ++failed_;
  }

  // Throws Error(kCapacity) where not even small files of all pictures find room.
  void check_disk(const request::RequestList& todo) const {
    constexpr int64_t kPixelsPerByte = 4;  // drawn pictures take more in every format
    int64_t need = 0;
    for (const auto& r : todo) need += int64_t{*r.height} * *r.width / kPixelsPerByte;
    std::error_code error;
    const auto space = std::filesystem::space(folder_.path(), error);
    if (error || space.capacity == 0 || static_cast<int64_t>(space.available) >= need) return;
    throw Error(Kind::kCapacity, str(todo.size(), " pictures take at least ", report::bytes_text(need),
                                     ", the disk of ", folder_.path().string(), " has ",
                                     report::bytes_text(static_cast<int64_t>(space.available)),
                                     " left; free some space or choose another output_dir"));
  }

  Batches batches() const {
    return {todo_, resolved_.settings.input.batch_size, spec_.job.engine.layout.data, repeats()};
  }

  void draw(const Interrupt& interrupt, const StartRun& start) {
    interrupt.begin_drawing();
    const auto& out = resolved_.settings.output;
    const auto style = report::style_for(stdout, out.quiet ? report::Noise::kQuiet : report::Noise::kNormal,
                                         std::getenv("TERM"));
    const int64_t pictures = static_cast<int64_t>(todo_.size()) * repeats();
    report::Progress progress(pictures, style, stdout);
    RunWatch watch(report_, progress, pictures_at_once());
    progress_ = &progress;
    const cluster::RunEvents events{
        .on_phase =
            [&](const std::string& phase) {
              watch.on_phase(phase);
              if (phase == "ready") iteration_.restart();
            },
        .on_step = [&](const cluster::StepDone& e) { watch.on_step(e); },
        .on_preview = [this](const cluster::PreviewReady& e) { on_preview(e); },
        .on_note = [&](const cluster::RequestNote& e) { watch.on_note(e); },
        .on_generated = [&](const cluster::BatchGenerated& e) { watch.on_generated(e); },
        .on_stored =
            [&](const cluster::ArtifactStored& e) {
              watch.on_stored();
              on_stored(e);
            },
        .on_restart = [&](const std::string& reason) { watch.on_restart(reason); }};
    try {
      const auto outcome = start(spec_.job, batches(), events, interrupt.token());
      progress.clear();
      watch.finish(outcome.ranks);
      take(outcome);
    } catch (const std::exception& e) {
      progress.finish();
      progress_ = nullptr;
      watch.finish({});
      report_unfinished(e);
      throw;
    }
    progress.finish();
    progress_ = nullptr;
  }

  int pictures_at_once() const {
    return std::max(1, std::min(resolved_.settings.input.batch_size / spec_.job.engine.layout.data,
                                static_cast<int>(todo_.size())));
  }

  // Each takes the place of the one before.
  void on_preview(const cluster::PreviewReady& e) {
    auto name = std::filesystem::path("previews") / e.request.name;
    const auto format = media::format_of(e.request.name);
    if (format != media::Format::kPng && format != media::Format::kJpeg) name.replace_extension(".webp");
    folder_.write(name.string(), e.data);
  }

  void on_stored(const cluster::ArtifactStored& e) {
    const auto& stored = e.stored.record;
    progress_->picture((folder_.path() / e.request.name).string(), stored.seconds);
    report_.add_picture(e.request.name, stored.seconds);
    if (list_) groups_[e.request.name] = e.group;
    last_drawn_ = e.request.name;
    if (!stored.codec.empty() && codecs_.insert(stored.codec).second)
      report_.add_note(str("videos are written as ", stored.codec));
    if (drawn_.add(e.request.name) == 1)
      ledger_.append(jobs::done_record(e.request, look(e.request), stored));
    if (++stored_ % static_cast<int64_t>(todo_.size()) == 0) {
      timings_.push_back(iteration_.seconds());
      iteration_.restart();
    }
  }

  void take(const cluster::RunResult& outcome) {
    for (const auto& failure : outcome.failures) {
      progress_->clear();
      log::error(str(failure.request.name, " failed after ", failure.attempts,
                     failure.attempts == 1 ? " try: " : " tries: ", failure.reason));
      fail(failure.request, failure.reason);
      if (failure.kind == Kind::kCapacity) advise_for_memory(failure.request);
    }
    if (list_) memory_ = memory_lines(spec_, outcome.ranks);
    for (const auto& line : chunk_lines(outcome.ranks)) memory_.push_back(line);
    if (outcome.ranks.size() > 1) report_.add_note(samples_line(outcome.ranks));
    if (outcome.restarts > 0)
      report_.add_note(str("workers were started again ", outcome.restarts, " times"));
  }

  // Once: the other pictures would be told the same.
  void advise_for_memory(const request::Request& request) {
    if (std::exchange(has_advised_, true)) return;
    const auto line =
        "out of memory; try " + advice_for_memory(spec_, resolved_, request, pictures_at_once());
    log::error(line);
    report_.add_note(line);
  }

  void write_report() {
    report_.write(folder_.path(), nodes() > 1 ? str("report_node", node(), ".json") : report::kReportName);
  }

  // All pictures of the run that are there, with those of runs before.
  void write_list() {
    if (!list_) return;
    const int ranks = spec_.layout.ranks / spec_.job.engine.layout.data;
    for (const auto& request : spec_.requests.requests) {
      const auto group = groups_.find(request.name);
      if (drawn_.is_expected(request.name) && !drawn_.has(request.name)) continue;
      list_->add(request, group == groups_.end()
                              ? ""
                              : gpu_of(resolved_, spec_.device.device.is_cuda(), group->second * ranks));
    }
    list_->write();
  }

  // Files that were finished while nobody was left to hear of it.
  void record_unheard() {
    const auto unheard = todo_.only([this](const request::Request& r) { return !drawn_.has(r.name); });
    auto rules = scan_rules();
    rules.resume = jobs::Resume::kRedoChanged;
    for (auto& record : jobs::scan(unheard, folder_.path(), ledger_, rules).adopted) {
      report_.add_picture(record.name, record.seconds);
      drawn_.add(record.name);
      ledger_.append(std::move(record));
    }
  }

  // After a failure, whose own error is what counts: on a full disk there may be no room for a report.
  void report_unfinished(const std::exception& why) {
    const auto* error = dynamic_cast<const Error*>(&why);
    const bool is_failure = !error || error->kind() != Kind::kInterrupted;
    try {
      record_unheard();
    } catch (const Error& e) {
      log::debug(e.what());
    }
    for (const auto& request : todo_) {
      if (is_failure && !drawn_.has(request.name)) report_.add_failure(request.name, why.what());
    }
    if (!is_failure) report_.add_note("interrupted: what is not drawn is drawn by the next run");
    try {
      write_report();
      write_list();
    } catch (const Error& e) {
      log::debug(e.what());
    }
  }

  void write_timings() {
    const size_t warmup =
        std::min(static_cast<size_t>(resolved_.settings.output.warmup_calls), timings_.size());
    write_json(folder_.path() / "timings.json",
               Json(std::vector<double>(timings_.begin() + static_cast<int64_t>(warmup), timings_.end())));
  }

  int finish() {
    for (const auto& line : memory_) report_.add_note(line);
    write_report();
    write_list();
    if (resolved_.surface == kRun) write_timings();
    const std::string noun = spec_.model.folder.draws_videos() ? "video" : "picture";
    say(resolved_, report_.line(noun));
    for (const auto& line : memory_) say(resolved_, line);
    if (drawn_.count() == 1) say(resolved_, "wrote " + (folder_.path() / last_drawn_).string());
    if (drawn_.count() > 1)
      say(resolved_, str("wrote ", drawn_.count(), " ", noun, "s to ", folder_.path().string()));
    return failed_ > 0 ? 1 : 0;
  }

  RunSpec spec_;
  const Resolved& resolved_;
  jobs::OutputFolder folder_;
  jobs::FolderClaim claim_;
  jobs::Ledger ledger_;
  report::RunReport report_;
  std::optional<PictureList> list_;
  std::vector<std::string> memory_;  // what it took, for people
  report::Progress* progress_ = nullptr;
  report::Stopwatch iteration_, phase_;
  request::RequestList todo_;
  DrawnNames drawn_;
  std::string last_drawn_;             // its name
  std::map<std::string, int> groups_;  // by name, for the list
  std::set<std::string> codecs_;       // of videos, as they are told
  std::vector<double> timings_;        // s, of every repetition
  int64_t stored_ = 0, failed_ = 0;
  bool has_advised_ = false;  // what to change where memory ran out
};

}  // namespace

int draw(RunSpec spec, const Resolved& resolved, const Interrupt& interrupt, const StartRun& start) {
  return Session(std::move(spec), resolved).run(interrupt, start);
}

}  // namespace atelier::app
