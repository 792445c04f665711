#include "cluster/supervisor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cluster/channel.h"
#include "cluster/protocol.h"
#include "request/names.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::milliseconds kLook{100};          // between two looks at the clocks
constexpr std::chrono::milliseconds kFailureGrace{250};  // after one failure, for others that explain it
constexpr int kHopeless = 3;                             // pictures in a row that fail with all their tries
constexpr std::chrono::seconds kAsleep{3};  // a longer pause of this loop: it was us who did not run

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

Supervisor::Supervisor(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop,
                       Coordinator* coordinator)
    : job_(job),
      queue_(queue),
      events_(events),
      stop_(std::move(stop)),
      coordinator_(coordinator),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      retry_policy_(queue, plan::world_size(job.engine.layout) == job.engine.layout.data ? 1 : 2),
      groups_(static_cast<size_t>(job.engine.layout.data)) {}

RunResult Supervisor::run() {
  const std::stop_callback wake(stop_, [fd = stop_fd_.get()] {
    const uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
  });
  for (;;) {
    if (events_.on_phase) events_.on_phase("load");
    started_ = looked_ = Clock::now();
    is_ready_ = false;
    failures_.clear();
    workers_.emplace(job_, coordinator_, restarts_);
    ranks_.assign(static_cast<size_t>(workers_->size()), Rank{.heard = started_});
    const bool is_done = serve();
    if (is_done) {
      shutdown();
    } else {
      on_failures();
    }
    if (is_over()) break;
    ++restarts_;
    if (events_.on_restart) events_.on_restart(cause_);
  }
  RunResult outcome{.failures = queue_.failures(), .restarts = restarts_};
  for (auto& [rank, stats] : stats_) outcome.ranks.push_back(std::move(stats));
  return outcome;
}

bool Supervisor::serve() {
  for (;;) {
    if (stop_.stop_requested()) interrupt();
    for (const auto& event : workers_->wait(kLook, stop_fd_.get())) on_message(event);
    watch_clocks();
    if (!failures_.empty()) {
      if (Clock::now() - failed_at_ > kFailureGrace) return false;
      continue;
    }
    dispatch();
    if (is_over()) return true;
  }
}

bool Supervisor::is_over() const {
  const auto is_idle = [](const Group& g) { return g.in_flight.empty() && g.requeued.empty(); };
  return queue_.is_finished() && std::all_of(groups_.begin(), groups_.end(), is_idle);
}

void Supervisor::on_message(const WorkerGroup::WorkerEvent& event) {
  auto& rank = ranks_[static_cast<size_t>(event.rank)];
  if (!event.what.empty()) {
    add({event.rank, Severity::kGone, Kind::kPeer, event.what, 0, event.is_final, !rank.is_ready});
    return;
  }
  rank.heard = Clock::now();
  rank.has_spoken = true;
  const std::string kind = kind_of(event.message);
  const int group = group_of(event.rank);
  const bool leads = event.rank % ranks_per_group() == 0;
  if (kind == message::kAlive) {
    event.message.at("batch").get_to(rank.batch);
    event.message.at("phase").get_to(rank.phase);
    event.message.at("step").get_to(rank.step);
  } else if (kind == message::kReady || kind == message::kStats) {
    rank.is_ready = true;
    rank.phase = "idle";
    stats_[event.rank] = stats_from_json(event.message.at("stats"));
  } else if (kind == message::kStep && leads && events_.on_step) {
    events_.on_step(group, event.message.at("step").get<int>(), event.message.at("steps").get<int>());
  } else if (kind == message::kDrawn) {
    hear_drawn(group, event.message);
  } else if (kind == message::kPicture) {
    on_image_written(group, event.message);
  } else if (kind == message::kDone) {
    const auto batch = event.message.at("batch").get<int64_t>();
    queue_.done(batch);
    drop(group, batch);
    failed_starts_ = fruitless_ = 0;
  } else if (kind == message::kFailed) {
    on_worker_failed(event.rank, event.message);
  }
}

void Supervisor::hear_drawn(int group, const Json& message) {
  InFlightBatch* batch_in_flight = find(group, message.at("batch").get<int64_t>());
  if (!batch_in_flight) return;
  batch_in_flight->is_drawn = true, batch_in_flight->since = Clock::now();
  if (!events_.on_drawn) return;
  events_.on_drawn(group, {message.at("seconds").get<std::map<std::string, double>>(),
                           message.at("step_ms").get<std::vector<double>>()});
}

void Supervisor::on_image_written(int group, const Json& message) {
  InFlightBatch* batch_in_flight = find(group, message.at("batch").get<int64_t>());
  if (!batch_in_flight) return;
  const auto name = message.at("name").get<std::string>();
  auto& requests = batch_in_flight->batch.requests;
  const auto request = std::find_if(requests.begin(), requests.end(),
                                    [&](const request::Request& i) { return i.name == name; });
  if (request == requests.end()) return;
  const Finished finished{std::move(*request),
                          {message.at("sha256").get<std::string>(), message.at("bytes").get<uint64_t>(),
                           message.at("seconds").get<double>()}};
  requests.erase(request);
  queue_.request_done(batch_in_flight->batch.id, name);
  without_picture_ = 0;
  if (events_.on_picture) events_.on_picture(finished);
}

void Supervisor::on_worker_failed(int rank, const Json& message) {
  const auto kind = static_cast<Kind>(message.at("kind").get<int>());
  const auto reason = message.at("reason").get<std::string>(), phase = message.at("phase").get<std::string>();
  const auto batch = message.at("batch").get<int64_t>();
  const int group = group_of(rank);
  if (phase == "write" && RetryPolicy::ends_run(kind)) {
    workers_->end(kGrace);
    remove_temporaries();
    throw Error(kind, reason);
  }
  if (message.at("is_over").get<bool>()) {
    auto& r = ranks_[static_cast<size_t>(rank)];
    add({rank, kind == Kind::kPeer ? Severity::kPeer : Severity::kFailed, kind, reason, batch, false,
         !r.is_ready});
    return;
  }
  // this worker goes on
  log::warning(str("rank ", rank, " failed: ", reason));
  if (const InFlightBatch* batch_in_flight = find(group, batch))
    retry_policy_.on_failure(batch_in_flight->batch, kind, reason);
  drop(group, batch);
}

void Supervisor::add(WorkerFailure failure) {
  if (failures_.empty()) failed_at_ = Clock::now();
  const auto known = std::find_if(failures_.begin(), failures_.end(),
                                  [&](const WorkerFailure& t) { return t.rank == failure.rank; });
  if (known == failures_.end()) {
    failures_.push_back(std::move(failure));
    return;
  }
  known->is_final |= failure.is_final;
  // A closed connection is reported before the exit status: the status is the better reason. Any other failure has its reason already.
  if (known->severity == Severity::kGone) known->reason = failure.reason;
}

void Supervisor::watch_clocks() {
  const auto now = Clock::now();
  if (const auto pause = now - looked_; pause > kAsleep) {
    // This process was stopped, and its workers perhaps with it: their time did not run either.
    for (auto& r : ranks_) r.heard += pause;
    for (auto& g : groups_) {
      for (auto& batch_in_flight : g.in_flight) batch_in_flight.since += pause;
    }
    started_ += pause;
  }
  looked_ = now;
  for (int rank = 0; rank < workers_->size(); ++rank) {
    const auto& r = ranks_[static_cast<size_t>(rank)];
    // linking and loading a large program may take long before its first word
    const bool must_speak = r.has_spoken || (now - r.heard > kSilence && workers_->is_stopped(rank));
    if (must_speak && now - r.heard > kSilence) {
      add({rank, Severity::kSilent, Kind::kPeer,
           str("gave no sign of life for ", kSilence.count(), " s (in phase ", r.phase, ")"), 0, false,
           !r.is_ready});
    } else if (!r.is_ready && seconds_between(started_, now) > job_.pool.start_timeout_s) {
      const char* what = workers_->has_come(rank) ? "has not loaded" : "has not come";
      add({rank, Severity::kLate, Kind::kPeer,
           str(what, " within ", job_.pool.start_timeout_s, " s (in phase ", r.phase, ")"), 0, false, true});
    }
  }
  watch_in_flight(now);
}

void Supervisor::watch_in_flight(Clock::time_point now) {
  for (int group = 0; group < job_.engine.layout.data; ++group) {
    for (const auto& batch_in_flight : groups_[static_cast<size_t>(group)].in_flight) {
      if (seconds_between(batch_in_flight.since, now) <= job_.pool.batch_timeout_s) continue;
      const int rank = batch_in_flight.is_drawn ? group * ranks_per_group() : latest_rank(group);
      const auto& r = ranks_[static_cast<size_t>(rank)];
      const std::string where =
          batch_in_flight.is_drawn ? "while writing" : str("in phase ", r.phase, ", step ", r.step);
      add({rank, Severity::kLate, Kind::kPeer,
           str("is late: a batch took longer than ", job_.pool.batch_timeout_s, " s; it is ", where),
           batch_in_flight.batch.id, false, false});
    }
  }
}

int Supervisor::latest_rank(int group) const {
  const int first = group * ranks_per_group();
  const auto progress = [&](int rank) {
    const auto& r = ranks_[static_cast<size_t>(rank)];
    return std::tuple(r.batch,
                      r.phase == "idle"     ? 3
                      : r.phase == "decode" ? 2
                      : r.phase == "step"   ? 1
                                            : 0,
                      r.step);
  };
  int latest = first;
  for (int rank = first + 1; rank < first + ranks_per_group(); ++rank) {
    if (progress(rank) < progress(latest)) latest = rank;
  }
  return latest;
}

bool Supervisor::is_group_ready(int group) const {
  const auto first = ranks_.begin() + group * ranks_per_group();
  return std::all_of(first, first + ranks_per_group(), [](const Rank& r) { return r.is_ready; });
}

void Supervisor::dispatch() {
  bool are_ready = true;
  for (int group = 0; group < job_.engine.layout.data; ++group) {
    if (!is_group_ready(group)) {
      are_ready = false;
    } else {
      while (dispatch_to(group)) continue;
    }
  }
  if (are_ready && !is_ready_ && events_.on_phase) events_.on_phase("ready");
  is_ready_ = is_ready_ || are_ready;
}

// One batch is drawn while another one is written.
bool Supervisor::dispatch_to(int number) {
  auto& group = groups_[static_cast<size_t>(number)];
  const bool is_drawing = std::any_of(group.in_flight.begin(), group.in_flight.end(),
                                      [](const InFlightBatch& l) { return !l.is_drawn; });
  if (is_drawing || group.in_flight.size() >= 2) return false;
  std::optional<jobs::Batch> batch;
  if (!group.requeued.empty()) {
    batch = std::move(group.requeued.front());
    group.requeued.pop_front();
  } else {
    batch = queue_.take(number);
  }
  if (!batch) return false;
  Json message = message_of(message::kBatch);
  message["id"] = batch->id;
  message["attempt"] = batch->attempt;
  message["requests"] = Json::array();
  for (const auto& request : batch->requests) message["requests"].push_back(to_json(request));
  log::debug(str("group ", number, " draws ", batch->requests.size(), " pictures: batch ", batch->id,
                 ", attempt ", batch->attempt));
  for (int i = 0; i < ranks_per_group(); ++i) workers_->send(number * ranks_per_group() + i, message);
  group.in_flight.push_back({std::move(*batch), Clock::now(), false});
  return true;
}

Supervisor::InFlightBatch* Supervisor::find(int group, int64_t batch) {
  for (auto& batch_in_flight : groups_[static_cast<size_t>(group)].in_flight) {
    if (batch_in_flight.batch.id == batch) return &batch_in_flight;
  }
  return nullptr;
}

void Supervisor::drop(int group, int64_t batch) {
  std::erase_if(groups_[static_cast<size_t>(group)].in_flight,
                [&](const InFlightBatch& l) { return l.batch.id == batch; });
}

void Supervisor::on_failures() {
  const auto worst = std::max_element(
      failures_.begin(), failures_.end(), [](const WorkerFailure& a, const WorkerFailure& b) {
        return std::pair(a.is_final, a.severity) < std::pair(b.is_final, b.severity);
      });
  const WorkerFailure cause = *worst;
  for (const auto& t : failures_) {
    // The cause is told to the caller; others may say the same, and peers only met the others' end.
    if (t.reason == cause.reason || t.severity == Severity::kPeer) continue;
    log::error(str(workers_->name(t.rank), " ", t.reason));
  }
  const std::string who = workers_->name(cause.rank);
  workers_->end(kGrace);
  remove_temporaries();
  if (cause.is_final)
    throw Error(Kind::kPeer,
                str(who, ": ", cause.reason, "; start the run again, finished pictures are kept"));
  if (cause.is_loading) {
    check_start(cause);
  } else {
    attribute(cause);
  }
  // batches of groups that were not at fault are queued again, without counting as a failed attempt
  for (auto& group : groups_) {
    for (auto batch_in_flight = group.in_flight.rbegin(); batch_in_flight != group.in_flight.rend();
         ++batch_in_flight) {
      if (batch_in_flight->batch.requests.empty()) {
        queue_.done(batch_in_flight->batch.id);
      } else {
        group.requeued.push_front(std::move(batch_in_flight->batch));
      }
    }
    group.in_flight.clear();
  }
  cause_ = str(who, " ", cause.reason);
  if (++without_picture_ > kHopeless * (job_.pool.max_retries + 1)) {
    throw Error(Kind::kPeer, str("the workers were started ", without_picture_,
                                 " times without a picture, last because ", cause_));
  }
}

void Supervisor::check_start(const WorkerFailure& cause) {
  const bool is_refusal =
      cause.kind == Kind::kCheckpoint || cause.kind == Kind::kUsage || cause.kind == Kind::kCapacity;
  if (is_refusal) throw Error(cause.kind, str("rank ", cause.rank, " ", cause.reason));
  const bool is_accident = cause.severity == Severity::kGone || cause.severity == Severity::kSilent;
  const int limit = is_accident ? job_.pool.max_retries : 1;
  if (++failed_starts_ <= limit) return;
  throw Error(Kind::kPeer,
              str("rank ", cause.rank, " did not load, ", failed_starts_, " times in a row: ", cause.reason,
                  job_.engine.device == "cpu" ? ""
                                              : "; NCCL_DEBUG=INFO shows what its connections do, "
                                                "NCCL_IB_DISABLE=1 leaves InfiniBand out"));
}

void Supervisor::attribute(const WorkerFailure& cause) {
  auto& in_flight = groups_[static_cast<size_t>(group_of(cause.rank))].in_flight;
  auto attributed = std::find_if(in_flight.begin(), in_flight.end(),
                                 [&](const InFlightBatch& l) { return l.batch.id == cause.batch; });
  if (attributed == in_flight.end()) {
    attributed =
        std::find_if(in_flight.begin(), in_flight.end(), [](const InFlightBatch& l) { return !l.is_drawn; });
  }
  if (attributed == in_flight.end()) attributed = in_flight.begin();
  if (attributed == in_flight.end()) {
    if (++fruitless_ <= job_.pool.max_retries) return;
    throw Error(Kind::kPeer,
                str("rank ", cause.rank, " ended ", fruitless_, " times without work: ", cause.reason));
  }
  retry_policy_.on_failure(attributed->batch, cause.kind, str("rank ", cause.rank, " ", cause.reason));
  in_flight.erase(attributed);
}

void Supervisor::interrupt() {
  workers_->end(kGrace);
  remove_temporaries();
  throw Error(Kind::kInterrupted, "interrupted; pictures that are finished stay, run again for the rest");
}

void Supervisor::shutdown() {
  for (int rank = 0; rank < workers_->size(); ++rank) workers_->send(rank, message_of(message::kStop));
  const auto end = Clock::now() + kShutdownGrace;
  for (int left = workers_->size(); left > 0 && Clock::now() < end && !stop_.stop_requested();) {
    for (const auto& event : workers_->wait(kLook, stop_fd_.get())) {
      if (!event.what.empty()) {
        --left;
      } else if (kind_of(event.message) == message::kStats) {
        stats_[event.rank] = stats_from_json(event.message.at("stats"));
      }
    }
  }
  workers_->end(kGrace);
}

// What workers of this host had begun to write when they were ended. Their own cleaning comes with their next
// picture, which there may not be.
void Supervisor::remove_temporaries() const {
  std::set<fs::path> folders{job_.sink.folder};
  for (const auto& group : groups_) {
    for (const auto& batch_in_flight : group.in_flight) {
      for (const auto& request : batch_in_flight.batch.requests)
        folders.insert(job_.sink.folder / fs::path(request.name).parent_path());
    }
  }
  std::error_code ignored;
  for (const auto& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(request::kTemporaryPrefix)) continue;
      for (const pid_t id : workers_->processes()) {
        if (name.find(str("-", id, "-")) != std::string::npos) fs::remove(entry.path(), ignored);
      }
    }
  }
}

}  // namespace atelier::cluster
