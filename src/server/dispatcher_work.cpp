// The dispatcher's own thread: what it hands to the engine, and what it makes of its events.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/log.h"
#include "server/dispatcher.h"

namespace atelier::server {
namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr auto kPoll = 100ms;    // at most
constexpr auto kBreath = 500ms;  // before an engine that broke down is started again
constexpr auto kLook = 100ms;    // between two looks at deadlines
constexpr auto kKeepAgain = 1s;  // after the store has failed
constexpr int kMostTries = 3;    // of a picture whose engine broke down

// What one of them meets is no other's business.
void call(const Listener& listener, const JobEvent& event) {
  try {
    listener(event);
  } catch (const std::exception& e) {
    log::error(str("job=", event.record.id, " could not be told of: ", e.what()));
  }
}

bool is_hopeless(Kind kind) {
  return kind == Kind::kUsage || kind == Kind::kCheckpoint || kind == Kind::kCapacity;
}

}  // namespace

void Dispatcher::work() {
  const auto engine = make_engine_();
  {
    const std::scoped_lock lock(command_mutex_);
    engine_ = engine.get();
  }
  {
    const std::scoped_lock lock(mutex_);
    groups_ = engine->groups();
  }
  while (!is_over_) {
    try {
      turn(*engine);
    } catch (const std::exception& e) {  // what is open stays so, and is looked at again
      log::error(str("the queue met an error, and goes on: ", e.what()));
      std::this_thread::sleep_for(kBreath);
    }
    const std::scoped_lock lock(mutex_);
    if (is_draining_ && !is_drained_ && (is_idle() || fatal_ || Steady::now() >= drain_end_)) {
      for (auto& [id, job] : live_) {
        if (!is_final(job->record.state)) tell(*job, {.kind = JobEvent::kInterrupted, .record = job->record});
      }
      is_drained_ = true;
      changed_.notify_all();
    }
  }
  {
    const std::scoped_lock lock(command_mutex_);
    engine_ = nullptr;
  }
  engine->shut_down();
}

// Nothing is being drawn.
bool Dispatcher::is_idle() const {
  return open_.empty();
}

void Dispatcher::turn(Engine& engine) {
  std::vector<cluster::PoolEvent> events;
  std::chrono::milliseconds patience = kPoll;
  {
    const std::scoped_lock lock(mutex_);
    take_commands(engine);
    if (Steady::now() - looked_ >= kLook) {
      looked_ = Steady::now();
      check_deadlines(engine);
      keep_again();
      take_later();
      forget_kept();
      update_gauges(engine);
    }
  }
  try {
    {
      const std::scoped_lock lock(mutex_);
      const double now = steady_seconds();
      if (!is_draining_ && !fatal_) dispatch(engine);
      if (const auto ripe = batcher_.ripe_at(now))
        patience = std::min(
            patience,
            std::chrono::milliseconds(static_cast<int>(std::ceil(1e3 * std::clamp(*ripe - now, 0.0, 1.0)))));
    }
    if (fatal_) {
      std::this_thread::sleep_for(kPoll);
    } else {
      events = engine.poll(patience);
    }
  } catch (const Error& e) {
    on_broken(e);
    return;
  }
  const std::scoped_lock lock(mutex_);
  for (const auto& event : events) std::visit([this](const auto& e) { on(e); }, event);
  stats_ = engine.stats();
}

void Dispatcher::take_commands(Engine& engine) {
  std::vector<std::function<void(Engine&)>> commands;
  {
    const std::scoped_lock lock(command_mutex_);
    commands = std::exchange(commands_, {});
  }
  for (const auto& run : commands) run(engine);
}

void Dispatcher::check_deadlines(Engine& engine) {
  const auto now = Steady::now();
  bool has_dropped = false;
  for (auto& [id, job] : live_) {
    const double seconds = std::chrono::duration<double>(now - job->since).count();
    if (is_final(job->record.state) || job->record.timeout <= 0 || seconds < job->record.timeout) continue;
    give_up(*job, JobState::kFailed, 504, "timeout", "the time that the request may take is over");
    has_dropped = true;
  }
  if (has_dropped) drop_batches(engine);
}

FrontEndWatch::Calls Dispatcher::calls_of_watch() {
  return {.may_adopt = [this] { return !is_draining_ && !is_over_; },
          .adopted =
              [this](JobRecord record) {
                log::info(str("job=", record.id, " is taken over from a front end that is gone"));
                command([this, record = std::move(record)](Engine&) { take_up(record); });
              },
          .cancel_asked =
              [this](const std::string& id) {
                {
                  const std::scoped_lock lock(command_mutex_);
                  if (!open_ids_.contains(id)) return;  // it ends just now
                }
                cancel(id);
              },
          .ended =
              [this](EndedJob job) {
                command([this, job = std::make_shared<const EndedJob>(std::move(job))](Engine&) {
                  tell_remote(*job);
                });
              }};
}

void Dispatcher::tell_remote(const EndedJob& job) {
  std::vector<Bytes> pictures;
  for (const auto& bytes : job.pictures)
    pictures.push_back(bytes ? std::make_shared<const std::string>(*bytes) : nullptr);
  std::vector<Listener> listeners;
  std::erase_if(remote_listeners_, [&](auto& entry) {
    if (entry.second.first != job.id) return false;
    listeners.push_back(std::move(entry.second.second));
    return true;
  });
  if (!job.record) return;
  for (const auto& listener : listeners)
    call(listener, {.kind = JobEvent::kFinished, .record = *job.record, .pictures = pictures});
}

void Dispatcher::dispatch(Engine& engine) {
  const auto drawing =
      std::count_if(open_.begin(), open_.end(), [](const auto& open) { return !open.second.is_generated; });
  for (auto free = live_groups() - drawing; free > 0; --free) {
    std::vector<std::string> running;
    for (const auto& [id, batch] : open_) {
      for (const auto& picture : batch.pictures) running.push_back(picture.job);
    }
    auto pictures = batcher_.next(steady_seconds(), running);
    if (pictures.empty()) return;
    std::vector<request::Request> requests;
    for (const auto& picture : pictures) {
      requests.push_back(picture.request);
      LiveJob& job = *live_.at(picture.job);
      metrics_.observe("atelier_queue_seconds", "from arrival to the engine",
                       std::max(0.0, steady_seconds() - picture.since));
      if (job.record.state == JobState::kRunning) continue;
      job.record.state = JobState::kRunning;
      job.record.started = unix_time();
      tell(job, {.kind = JobEvent::kStarted, .record = job.record, .seconds_left = seconds_left(job)});
    }
    int64_t number = 0;
    try {
      number = engine.submit(std::move(requests));
    } catch (...) {  // it broke down: they wait again
      for (auto picture = pictures.rbegin(); picture != pictures.rend(); ++picture)
        batcher_.add_first(*picture);
      throw;
    }
    open_[number] = {.pictures = std::move(pictures), .since = steady_seconds()};
  }
}

// Nothing that was handed out comes back; who waits longest for a picture that always breaks the engine
// is given up.
void Dispatcher::on_broken(const Error& error) {
  log::error(str("the engine broke down: ", error.what()));
  metrics_.count("atelier_engine_failures_total", "times that all workers were lost");
  {
    const std::scoped_lock lock(mutex_);
    is_ready_ = false;
    ready_groups_.clear();
    lost_groups_.clear();  // the next engine begins with all of them
    if (is_hopeless(error.kind())) {
      fatal_ = error;
      return;
    }
    auto lost = std::exchange(open_, {});
    for (auto batch = lost.rbegin(); batch != lost.rend(); ++batch) {
      for (auto picture = batch->second.pictures.rbegin(); picture != batch->second.pictures.rend();
           ++picture) {
        LiveJob& job = *live_.at(picture->job);
        if (is_final(job.record.state) || job.pictures[static_cast<size_t>(picture->index)]) continue;
        if (++job.tries >= kMostTries * std::ssize(job.record.requests)) {
          give_up(job, JobState::kFailed, 500, "engine_lost", "the picture could not be drawn");
        } else {
          batcher_.add_first(*picture);
        }
      }
    }
  }
  std::this_thread::sleep_for(kBreath);
}

void Dispatcher::queue(LiveJob& job) {
  job.is_queued = true;
  for (size_t i = 0; i < job.record.requests.size(); ++i) {
    batcher_.add({.job = job.record.id,
                  .index = static_cast<int>(i),
                  .priority = job.record.priority,
                  .since = steady_seconds(),
                  .request = job.record.requests[i]});
  }
}

void Dispatcher::accept(const std::string& id, const std::string& error) {
  const auto at = live_.find(id);
  if (at == live_.end()) return;
  LiveJob& job = *at->second;
  job.is_accepted = error.empty();
  if (is_final(job.record.state)) return;  // cancelled meanwhile, or drawn
  if (!error.empty() && job.is_queued) return;
  if (!error.empty())
    return give_up(job, JobState::kFailed, 503, "store", "the server cannot keep jobs at the moment");
  if (!job.is_queued) queue(job);
  tell(job, {.kind = JobEvent::kAccepted, .record = job.record, .seconds_left = seconds_left(job)});
}

void Dispatcher::give_up(LiveJob& job, JobState state, int status, const std::string& code,
                         const std::string& message) {
  batcher_.remove(job.record.id);
  job.record.state = state;
  job.record.error_status = status;
  job.record.error_code = code;
  job.record.error_message = message;
  finish(job);
}

// The client hears of it at once; it stays in memory until it is on the disk.
void Dispatcher::finish(LiveJob& job) {
  const std::string id = job.record.id;
  job.record.finished = unix_time();
  metrics_.count("atelier_jobs_total", "finished jobs", str("state=\"", state_name(job.record.state), "\""));
  if (!job.record.error_code.empty())
    metrics_.count("atelier_failures_total", "jobs that gave no pictures",
                   str("kind=\"", job.record.error_code, "\""));
  metrics_.observe("atelier_job_seconds", "from arrival to the last picture",
                   std::chrono::duration<double>(Steady::now() - job.since).count());
  tell(job, {.kind = JobEvent::kFinished, .record = job.record, .pictures = job.pictures});
  {
    const std::scoped_lock lock(command_mutex_);
    open_ids_.erase(id);
  }
  log::info(str("job=", id, " request=", job.record.request_id, " state=", state_name(job.record.state),
                " pictures=", job.record.pictures.size(),
                " seconds=", job.record.finished - job.record.created,
                job.record.error_code.empty() ? "" : " error=" + job.record.error_code));
  keep(job);
}

void Dispatcher::keep(LiveJob& job) {
  const std::string id = job.record.id;
  std::vector<JobWriter::Picture> pictures;
  for (size_t i = 0; i < job.record.pictures.size(); ++i)
    pictures.push_back({id, job.record.pictures[i].name, *job.pictures[i]});
  writer_->write(job.record, std::move(pictures), [this, id](const std::string& error) {
    command([this, id, error](Engine&) { on_kept(id, error); });
  });
}

void Dispatcher::on_kept(const std::string& id, const std::string& error) {
  const auto at = live_.find(id);
  if (at == live_.end()) return;
  LiveJob& job = *at->second;
  // It stays in memory, and open in the store, where the next process finds it: whatever happens, it is not
  // lost. One that was never accepted is nobody's loss, and leaves nothing.
  if (!error.empty() && job.is_accepted) {
    job.keep_again = Steady::now() + kKeepAgain;
    return;
  }
  job.is_kept = true;
  job.is_stored = error.empty();
  if (!job.is_stored) writer_->remove(id, nullptr);
  forget_kept();
}

// A full disk has room again some time.
void Dispatcher::keep_again() {
  for (auto& [id, job] : live_) {
    if (!job->keep_again || Steady::now() < *job->keep_again) continue;
    job->keep_again.reset();
    keep(*job);
  }
}

// Jobs that are on the disk, unless pictures that are still being drawn name them.
void Dispatcher::forget_kept() {
  std::set<std::string> drawn;
  for (const auto& [number, batch] : open_) {
    for (const auto& picture : batch.pictures) drawn.insert(picture.job);
  }
  std::erase_if(live_, [&](const auto& entry) {
    LiveJob& job = *entry.second;
    if (!job.is_kept || drawn.contains(entry.first)) return false;
    if (job.is_unwanted && job.is_stored) {
      if (!job.is_being_removed && Steady::now() >= job.remove_after) remove_unwanted(job);
      return false;  // when it is gone from the store
    }
    if (!job.record.idempotency.empty()) idempotent_.erase({job.record.owner, job.record.idempotency});
    return true;
  });
}

// By the writer: the store may be slow, or fail for a while.
void Dispatcher::remove_unwanted(LiveJob& job) {
  const std::string id = job.record.id;
  job.is_being_removed = true;
  writer_->remove(id, [this, id](const std::string& error) {
    command([this, id, error](Engine&) {
      const auto at = live_.find(id);
      if (at == live_.end()) return;
      at->second->is_being_removed = false;
      at->second->is_stored = !error.empty();
      at->second->remove_after = Steady::now() + kKeepAgain;
    });
  });
}

// Batches of which nobody wants a picture any more are stopped; others go on, and what nobody wants of
// them is dropped.
void Dispatcher::drop_batches(Engine& engine) {
  for (const auto& [number, batch] : open_) {
    const bool is_wanted =
        std::any_of(batch.pictures.begin(), batch.pictures.end(),
                    [&](const auto& picture) { return !is_final(live_.at(picture.job)->record.state); });
    if (!is_wanted) engine.cancel(number);
  }
}

void Dispatcher::tell(LiveJob& job, JobEvent event) {
  for (const auto& [number, listener] : job.listeners) call(listener, event);
  for (const auto& [number, listener] : all_listeners_) call(listener, event);
}

}  // namespace atelier::server
