#include "cluster/batch_run.h"

#include <set>
#include <utility>

#include "base/log.h"

namespace atelier::cluster {
namespace {

constexpr int64_t kQueued = 8;  // batches for each group

class BatchRun {
 public:
  BatchRun(const Job& job, const RunEvents& events, const std::stop_token& stop, Coordinator* coordinator)
      : events_(events), stop_(stop), groups_(job.engine.layout.data), pool_(job, coordinator) {}

  RunResult run(const BatchSource& batches) {
    const std::stop_callback wake(stop_, [this] { pool_.wake(); });
    submit(batches);
    if (open_ > 0) tell(events_.on_phase, std::string("load"));
    while (open_ > 0) {
      if (stop_.stop_requested()) {
        throw Error(Kind::kInterrupted,
                    "interrupted; pictures that are finished stay, run again for the rest");
      }
      for (const auto& event : pool_.poll(std::chrono::seconds(1)))
        std::visit([this](const auto& e) { on(e); }, event);
      submit(batches);
    }
    pool_.shut_down(stop_);
    result_.ranks = pool_.stats();
    result_.restarts = pool_.restarts();
    return std::move(result_);
  }

 private:
  // Keeps the pool's queue longer than what groups take at once.
  void submit(const BatchSource& batches) {
    while (!is_out_ && open_ < kQueued * groups_) {
      auto batch = batches();
      is_out_ = batch.empty();
      if (is_out_) return;
      pool_.submit(std::move(batch));
      ++open_;
    }
  }

  template <class Handler, class Event>
  static void tell(const Handler& handler, const Event& event) {
    if (handler) handler(event);
  }

  void on(const GroupReady& e) {
    if (ready_.insert(e.group).second && std::ssize(ready_) == groups_)
      tell(events_.on_phase, std::string("ready"));
  }
  void on(const StepDone& e) { tell(events_.on_step, e); }
  void on(const PreviewReady& e) { tell(events_.on_preview, e); }
  void on(const RequestNote& e) { tell(events_.on_note, e); }
  void on(const BatchGenerated& e) { tell(events_.on_generated, e); }
  void on(const ArtifactStored& e) { tell(events_.on_stored, e); }
  void on(const CallAnswered&) {}  // it makes no calls
  void on(const CallFailed&) {}
  void on(const RequestFailed& e) { result_.failures.push_back(e); }
  void on(const BatchDone&) { --open_; }
  void on(const GroupRestarted& e) { tell(events_.on_restart, e.reason); }
  void on(const GroupLost& e) {
    log::error(str("group ", e.group, " is given up, the others go on: ", e.reason));
  }

  const RunEvents& events_;
  const std::stop_token stop_;
  const int groups_;
  std::set<int> ready_;  // once
  int64_t open_ = 0;
  bool is_out_ = false;  // no batch is left to submit
  RunResult result_;
  WorkerPool pool_;
};

}  // namespace

RunResult run_batches(const Job& job, const BatchSource& batches, const RunEvents& events,
                      const std::stop_token& stop, Coordinator* coordinator) {
  return BatchRun(job, events, stop, coordinator).run(batches);
}

RunResult run_batches(const Job& job, std::vector<std::vector<request::Request>> batches,
                      const RunEvents& events, const std::stop_token& stop, Coordinator* coordinator) {
  std::erase_if(batches, [](const auto& batch) { return batch.empty(); });
  size_t next = 0;
  const BatchSource source = [&] {
    return next < batches.size() ? std::move(batches[next++]) : std::vector<request::Request>{};
  };
  return run_batches(job, source, events, stop, coordinator);
}

}  // namespace atelier::cluster
