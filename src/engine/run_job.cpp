// Draws the queue of a run: one rank in this process, several as watched worker processes.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "engine/job.h"
#include "engine/studio.h"
#include "report/clock.h"

namespace atelier::engine {
namespace {

[[noreturn]] void throw_interrupted() {
  throw Error(Kind::kInterrupted, "interrupted; pictures that are finished stay, run again for the rest");
}

void give_up(jobs::Queue& queue, const jobs::Batch& batch, const std::string& reason) {
  for (const auto& item : batch.items) queue.give_up(batch.id, item.name, reason);
  queue.done(batch.id);
}

// One rank, in this process.
class Soloist {
 public:
  Soloist(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop)
      : queue_(queue),
        events_(events),
        stop_(std::move(stop)),
        studio_(job, device_named(job.device, 0), nullptr) {}

  void run() {
    while (const auto batch = queue_.take(0)) {
      if (stop_.stop_requested()) throw_interrupted();
      try {
        draw(*batch);
      } catch (const Error& e) {
        if (e.kind() == Kind::kInterrupted) throw_interrupted();
        settle(*batch, e);
      } catch (const std::exception& e) {
        if (!studio_.is_device_alive()) throw Error(Kind::kPeer, str("the device has failed: ", e.what()));
        queue_.failed(batch->id, e.what());
      }
    }
  }
  RankStats stats() const { return studio_.stats(); }

 private:
  void draw(const jobs::Batch& batch) {
    const report::Stopwatch watch;
    const int steps = batch.items.front().steps.value_or(0);
    const auto on_step = [&](int step) {
      if (events_.on_step) events_.on_step(0, step + 1, steps);
    };
    const auto pictures = studio_.draw(batch, {.on_step = on_step, .stop = stop_});
    const double seconds = watch.seconds() / static_cast<double>(pictures.size());
    for (size_t i = 0; i < pictures.size(); ++i) write(batch, batch.items[i], pictures[i], seconds);
    queue_.done(batch.id);
  }

  // A full disk or a vanished folder ends the run: the next picture would fare no better.
  void write(const jobs::Batch& batch, const jobs::Item& item, const media::Picture& picture,
             double seconds) {
    try {
      const int64_t bytes = studio_.write(item, picture);
      queue_.item_done(batch.id, item.name);
      if (events_.on_picture) events_.on_picture({item, bytes, seconds});
    } catch (const Error& e) {
      if (e.kind() != Kind::kItem) is_over_ = true;
      throw;
    }
  }

  void settle(const jobs::Batch& batch, const Error& e) {
    if (is_over_) throw e;
    const bool is_hopeless = e.kind() == Kind::kUsage || e.kind() == Kind::kCheckpoint ||
                             (e.kind() == Kind::kCapacity && batch.items.size() == 1);
    if (is_hopeless) {
      give_up(queue_, batch, e.what());
    } else {
      queue_.failed(batch.id, e.what());
    }
  }

  jobs::Queue& queue_;
  const Events& events_;
  std::stop_token stop_;
  Studio studio_;
  bool is_over_ = false;
};

}  // namespace

Outcome run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop) {
  if (queue.is_finished()) return {};
  if (const int world = parallel::world_size(job.degrees); world > 1) {
    throw Error(Kind::kUsage, str("a run on ", world, " ranks is not available yet"));
  }
  const auto phase = [&](const char* name) {
    if (events.on_phase) events.on_phase(name);
  };
  phase("load");
  Soloist soloist(job, queue, events, stop);
  phase("ready");
  soloist.run();
  Outcome outcome;
  outcome.ranks.push_back(soloist.stats());
  outcome.failures = queue.failures();
  return outcome;
}

}  // namespace atelier::engine
