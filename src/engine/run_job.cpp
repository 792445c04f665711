// Draws the queue of a run: one rank in this process, several as watched worker processes.
#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "engine/job.h"
#include "engine/judge.h"
#include "engine/launch.h"
#include "engine/printer.h"
#include "engine/studio.h"
#include "engine/supervisor.h"
#include "report/clock.h"

namespace atelier::engine {
namespace {

// One rank, in this process.
class Soloist {
 public:
  Soloist(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop)
      : queue_(queue),
        events_(events),
        stop_(std::move(stop)),
        judge_(queue, 1),
        studio_(job, device_named(job.device, 0), nullptr),
        printer_(
            {.write = [this](const auto& item, const auto& picture) { return studio_.write(item, picture); },
             .on_picture = [this](int64_t batch, const Finished& f) { on_picture(batch, f); },
             .on_end = [this](const jobs::Batch& batch,
                              std::exception_ptr error) { on_end(batch, error); }}) {}

  void run() {
    for (;;) {
      while (const auto batch = queue_.take(0)) draw(*batch);
      printer_.finish();  // what cannot be written may come back
      check();
      if (queue_.is_finished()) return;
    }
  }
  RankStats stats() const { return studio_.stats(); }

 private:
  void draw(const jobs::Batch& batch) {
    check();
    const report::Stopwatch watch;
    const int steps = batch.items.front().steps.value_or(0);
    const auto on_step = [&](int step) {
      const std::scoped_lock lock(mutex_);
      if (events_.on_step) events_.on_step(0, step + 1, steps);
    };
    std::vector<media::Picture> pictures;
    try {
      pictures = studio_.draw(batch, {.on_step = on_step, .stop = stop_});
    } catch (...) {
      if (!studio_.is_device_alive()) throw;
      settle(batch, std::current_exception());
      return;
    }
    printer_.submit(batch, std::move(pictures), watch.seconds() / static_cast<double>(batch.items.size()));
  }

  // Throws when the run is to end.
  void check() {
    const std::scoped_lock lock(mutex_);
    if (over_) std::rethrow_exception(over_);
    if (stop_.stop_requested()) {
      throw Error(Kind::kInterrupted, "interrupted; pictures that are finished stay, run again for the rest");
    }
  }

  void on_picture(int64_t batch, const Finished& finished) {
    queue_.item_done(batch, finished.item.name);
    const std::scoped_lock lock(mutex_);
    if (events_.on_picture) events_.on_picture(finished);
  }

  void on_end(const jobs::Batch& batch, std::exception_ptr error) {
    if (!error) {
      queue_.done(batch.id);
      return;
    }
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      if (Judge::ends_run(e.kind())) {
        const std::scoped_lock lock(mutex_);
        over_ = error;
        return;
      }
    } catch (const std::exception&) {
    }
    settle(batch, error);
  }

  void settle(const jobs::Batch& batch, std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      if (e.kind() == Kind::kInterrupted) throw;
      const std::scoped_lock lock(judging_);
      judge_.settle(batch, e.kind(), e.what());
    } catch (const std::exception& e) {
      queue_.failed(batch.id, reason_of(e));
    }
  }

  jobs::Queue& queue_;
  const Events& events_;
  std::stop_token stop_;
  std::mutex mutex_, judging_;
  std::exception_ptr over_;  // what ends the run
  Judge judge_;
  Studio studio_;
  Printer printer_;
};

}  // namespace

Outcome run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop) {
  if (queue.is_finished()) return {.failures = queue.failures()};
  if (parallel::world_size(job.degrees) > 1)
    return Supervisor(job, queue, events, std::move(stop), nullptr).run();
  const auto phase = [&](const char* name) {
    if (events.on_phase) events.on_phase(name);
  };
  phase("load");
  std::optional<Soloist> soloist;
  {
    // Loading does not look at `stop`, may take minutes and leaves nothing behind.
    const std::stop_callback on_stop(stop, [] { std::_Exit(exit_code(Kind::kInterrupted)); });
    soloist.emplace(job, queue, events, stop);
  }
  phase("ready");
  soloist->run();
  Outcome outcome;
  outcome.ranks.push_back(soloist->stats());
  outcome.failures = queue.failures();
  return outcome;
}

Outcome run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop,
                Rally& rally) {
  const auto& outer = rally.outer();
  if (const int world = parallel::world_size(job.degrees); world != outer.size) {
    throw Error(Kind::kUsage,
                str(outer.launcher, " has started ", outer.size, " ranks, the layout needs ",
                    parallel::product(job.degrees), "; start ", world, " or change the degrees"));
  }
  if (queue.is_finished()) return {.failures = queue.failures()};
  return Supervisor(job, queue, events, std::move(stop), &rally).run();
}

}  // namespace atelier::engine
