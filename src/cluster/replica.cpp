#include "cluster/replica.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "cluster/step_gate.h"

namespace atelier::cluster {
namespace {

constexpr std::chrono::milliseconds kFailureGrace{250};

double seconds_between(Replica::Clock::time_point a, Replica::Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

int order_of(const std::string& phase) {
  return phase == "idle" ? 3 : phase == "decode" ? 2 : phase == "step" ? 1 : 0;
}

}  // namespace

PendingBatch InFlightBatch::rest() const {
  PendingBatch rest{batch.id, batch.attempts, {}, batch.call};
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!is_stored[i]) rest.requests.push_back(batch.requests[i]);
  }
  return rest;
}

Replica::Replica(const Job& job, Coordinator* coordinator, RankRange ranks)
    : job_(job), workers_(job, coordinator, ranks) {}

void Replica::start(int store_port) {
  started_ = Clock::now();
  ranks_.assign(static_cast<size_t>(workers_.ranks().count), Rank{.heard = started_});
  // whose process is gone cannot be started, whenever that was heard
  std::erase_if(failures_, [](const WorkerFailure& f) { return !f.is_final; });
  status_ = Status::kLoading;
  try {
    workers_.start(store_port);
  } catch (const Error& e) {  // no processes, no descriptors: others may end any moment, so it is no verdict
    int rank = workers_.ranks().first;
    while (workers_.has_come(rank) && rank + 1 < workers_.ranks().first + workers_.ranks().count) ++rank;
    fail({.rank = rank, .severity = WorkerFailure::Severity::kGone, .reason = e.what()});
  }
}

std::vector<InFlightBatch> Replica::end(Status next) {
  status_ = next;
  ended_ = Clock::now();
  workers_.end();
  is_cleaned_ = false;
  for (const auto& flight : in_flight_) {
    for (const auto& request : flight.batch.requests) unfinished_.push_back(request.name);
  }
  return std::exchange(in_flight_, {});
}

bool Replica::has_ended() {
  if (!workers_.has_ended()) return false;
  if (!std::exchange(is_cleaned_, true))
    remove_unfinished(job_.sink, std::exchange(unfinished_, {}), workers_.processes());
  return true;
}

bool Replica::is_stuck() const {
  return seconds_between(ended_, Clock::now()) > job_.pool.end_timeout_s;
}

bool Replica::can_take() const {
  const bool is_generating =
      std::any_of(in_flight_.begin(), in_flight_.end(), [](const auto& f) { return !f.is_generated; });
  // one batch is generated while another one is stored
  return status_ == Status::kServing && failures_.empty() && !is_generating && in_flight_.size() < 2;
}

void Replica::dispatch(PendingBatch batch, int64_t run) {
  Json message = message_of(batch.call ? message::kCall : message::kBatch, run);
  if (batch.call) {
    message["call"] = to_json(*batch.call);
  } else {
    message["requests"] = Json::array();
    for (const auto& request : batch.requests)
      message["requests"].push_back(fields_to_json(fields_of(request)));
    log::debug(str("group ", number(), " draws ", batch.requests.size(), " pictures: batch ", batch.id,
                   ", attempt ", batch.attempts.begun));
  }
  workers_.send_all(message);
  in_flight_.push_back({.run = run, .batch = std::move(batch), .since = Clock::now()});
  in_flight_.back().is_stored.resize(in_flight_.back().batch.requests.size());
}

void Replica::cancel(int64_t id) {
  for (auto& flight : in_flight_) {
    if (flight.batch.id != id || flight.is_generated || std::exchange(flight.is_cancelled, true)) continue;
    workers_.send_all(message_of(message::kCancel, flight.run));
  }
}

void Replica::on_event(const WorkerEvent& event, std::vector<PoolEvent>& events,
                       std::vector<Returned>& returned) {
  if (event.message.is_null()) {
    return fail({.rank = event.rank,
                 .severity = WorkerFailure::Severity::kGone,
                 .reason = event.what,
                 .is_final = event.is_final});
  }
  if (status_ == Status::kEnding || status_ == Status::kLost) return;
  try {
    on_message(event, events, returned);
  } catch (const std::exception& e) {  // Json::exception or Error: not what the protocol says
    fail({.rank = event.rank,
          .severity = WorkerFailure::Severity::kFailed,
          .reason = str("sent a message that cannot be understood: ", e.what())});
  }
}

void Replica::on_message(const WorkerEvent& event, std::vector<PoolEvent>& events,
                         std::vector<Returned>& returned) {
  const Json& message = event.message;
  auto& rank = at(event.rank);
  rank.heard = Clock::now();
  rank.has_spoken = true;
  const std::string kind = kind_of(message);
  if (kind == message::kAlive) return on_alive(rank, message);
  if (kind == message::kFailed) return on_failed(event.rank, message, returned);
  if (kind == message::kReady || kind == message::kStats) {
    stats_[event.rank] = stats_from_json(message.at("stats"));
    rank.phase = "idle";
    rank.is_ready = true;
    const bool are_ready =
        std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.is_ready; });
    if (are_ready && std::exchange(status_, Status::kServing) != Status::kServing)
      events.push_back(GroupReady{number()});
    return;
  }
  InFlightBatch* const flight = find(message.at("run").get<int64_t>());
  if (!flight) return;  // it has failed, or is done, and this rank did not know yet
  const int64_t id = flight->batch.id;
  if (kind != message::kHeld) flight->since = rank.heard;
  if (kind == message::kStep) {
    events.push_back(StepDone{id, number(), message.at("step").get<int>(), message.at("steps").get<int>()});
  } else if (kind == message::kNote) {
    const auto& requests = flight->batch.requests;
    events.push_back(RequestNote{id, requests.at(message.at("request").get<size_t>()),
                                 message.at("note").get<std::string>()});
  } else if (kind == message::kPreview) {
    const auto& data = message.at("data").get_binary();
    events.push_back(PreviewReady{id,
                                  flight->batch.requests.at(message.at("request").get<size_t>()),
                                  message.at("step").get<int>(),
                                  {data.begin(), data.end()}});
  } else if (kind == message::kHeld) {
    on_held(*flight, event.rank, message.at("step").get<int>());
  } else if (kind == message::kGenerated) {
    flight->is_generated = true;
    events.push_back(BatchGenerated{id, number(), times_from_json(message.at("times"))});
  } else if (kind == message::kPiece) {
    on_piece(*flight, message);
  } else if (kind == message::kStored) {
    on_stored(*flight, message, events);
  } else if (kind == message::kDone) {
    drop(flight->run);
  } else if (kind == message::kAnswered) {
    on_answered(*flight, message, events);
  } else {
    throw Error(Kind::kPeer, "unknown kind " + kind);
  }
}

// What makes progress is not late, however long all of it takes.
void Replica::on_alive(Rank& rank, const Json& message) {
  const auto before = std::tuple(rank.run, rank.phase, rank.step, rank.collectives);
  message.at("run").get_to(rank.run);
  message.at("phase").get_to(rank.phase);
  message.at("step").get_to(rank.step);
  message.at("collectives").get_to(rank.collectives);
  if (before == std::tuple(rank.run, rank.phase, rank.step, rank.collectives)) return;
  if (auto* const flight = find(rank.run)) flight->since = rank.heard;
}

void Replica::on_piece(InFlightBatch& flight, const Json& message) {
  const auto& data = message.at("data").get_binary();
  if (flight.received.size() + data.size() > kMostSentBytes)
    throw Error(Kind::kPeer, "an artifact is longer than any of ours");
  flight.received.append(data.begin(), data.end());
}

void Replica::on_stored(InFlightBatch& flight, const Json& message, std::vector<PoolEvent>& events) {
  const auto i = message.at("request").get<size_t>();
  if (i >= flight.is_stored.size()) throw Error(Kind::kPeer, str("the batch has no request ", i));
  if (flight.is_stored[i]) throw Error(Kind::kPeer, str("request ", i, " is stored twice"));
  SinkResult stored{{.sha256 = message.at("sha256").get<std::string>(),
                     .bytes = message.at("bytes").get<uint64_t>(),
                     .seconds = message.at("seconds").get<double>(),
                     .codec = message.value("codec", std::string())},
                    {},
                    message.value("store_seconds", 0.0)};
  if (message.contains("data")) on_piece(flight, message);
  stored.data = std::exchange(flight.received, {});
  flight.is_stored[i] = true;
  events.push_back(ArtifactStored{flight.batch.id, number(), flight.batch.requests[i], std::move(stored)});
}

// A call's memory is its caller's again when no rank reads it any more.
void Replica::on_answered(InFlightBatch& flight, const Json& message, std::vector<PoolEvent>& events) {
  if (const auto shape = message.at("shape").get<std::vector<int64_t>>(); !shape.empty())
    flight.shape = shape;
  if (++flight.answered < workers_.ranks().count) return;
  events.push_back(CallAnswered{flight.batch.id, number(), std::move(flight.shape)});
  drop(flight.run);
}

// When all have answered, the first step that none of them has begun is the first that none begins.
void Replica::on_held(InFlightBatch& flight, int rank, int step) {
  flight.held[rank] = step;
  if (std::ssize(flight.held) < workers_.ranks().count) return;
  Json verdict = message_of(message::kStopBefore, flight.run);
  const auto furthest = std::max_element(flight.held.begin(), flight.held.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  verdict["step"] = std::min(furthest->second, StepGate::kAllBegun - 1) + 1;
  workers_.send_all(verdict);
}

void Replica::on_failed(int rank, const Json& message, std::vector<Returned>& returned) {
  std::optional<Kind> kind;
  if (message.contains("kind")) kind = static_cast<Kind>(message.at("kind").get<int>());
  const auto reason = message.at("reason").get<std::string>(), phase = message.at("phase").get<std::string>();
  const auto run = message.at("run").get<int64_t>();
  if (message.at("is_over").get<bool>()) {
    using enum WorkerFailure::Severity;
    return fail({.rank = rank,
                 .severity = kind == Kind::kPeer ? kPeerLost : kFailed,
                 .kind = kind,
                 .reason = reason,
                 .run = run});
  }
  // this worker goes on
  const auto* const flight = find(run);
  if (!flight) return;  // heard from another rank already
  if (kind != Kind::kInterrupted) log::warning(str(workers_.name(rank), " failed: ", reason));
  returned.push_back({flight->rest(), kind, reason, phase});
  drop(run);
}

void Replica::fail(WorkerFailure failure) {
  failure.who = workers_.name(failure.rank);
  failure.is_loading = !at(failure.rank).is_ready;
  const auto known = std::find_if(failures_.begin(), failures_.end(),
                                  [&](const WorkerFailure& f) { return f.rank == failure.rank; });
  if (known == failures_.end()) {
    if (failures_.empty()) failed_ = Clock::now();
    failures_.push_back(std::move(failure));
    return;
  }
  known->is_final |= failure.is_final;
  // A closed connection is noticed before how the process ended. Other reasons explain the end that follows.
  if (known->severity == WorkerFailure::Severity::kGone) known->reason = failure.reason;
}

const std::vector<WorkerFailure>* Replica::failures() const {
  const bool is_running = status_ == Status::kLoading || status_ == Status::kServing;
  return is_running && !failures_.empty() && Clock::now() - failed_ > kFailureGrace ? &failures_ : nullptr;
}

void Replica::check_clocks(Clock::duration pause) {
  if (status_ == Status::kEnding || status_ == Status::kLost) return;
  for (auto& rank : ranks_) rank.heard += pause;
  for (auto& flight : in_flight_) flight.since += pause;
  started_ += pause;
  const auto now = Clock::now();
  for (int i = 0; i < workers_.ranks().count; ++i) check_rank(workers_.ranks().first + i, now);
  check_batches(now);
}

void Replica::check_rank(int rank, Clock::time_point now) {
  using enum WorkerFailure::Severity;
  const auto& r = at(rank);
  // linking and loading a large program may take long before its first word
  const bool must_speak = r.has_spoken || (now - r.heard > kSilence && workers_.is_stopped(rank));
  if (must_speak && now - r.heard > kSilence) {
    fail({.rank = rank,
          .severity = kSilent,
          .reason = str("gave no sign of life for ", kSilence.count(), " s (in phase ", r.phase, ")")});
  } else if (!r.is_ready && seconds_between(started_, now) > job_.pool.start_timeout_s) {
    fail({.rank = rank,
          .severity = kLate,
          .reason = str(workers_.has_come(rank) ? "has not loaded" : "has not come", " within ",
                        job_.pool.start_timeout_s, " s (in phase ", r.phase, ")")});
  }
}

void Replica::check_batches(Clock::time_point now) {
  const double limit = job_.pool.batch_timeout_s;
  for (const auto& flight : in_flight_) {
    if (seconds_between(flight.since, now) <= limit) continue;
    const auto late = flight.is_generated ? std::vector{workers_.ranks().first} : latest_ranks();
    const auto& r = at(late.front());
    std::string where = flight.is_generated ? "while storing" : str("in phase ", r.phase, ", step ", r.step);
    if (late.size() > 1) {
      where += ", as are";
      for (size_t i = 1; i < late.size(); ++i) where += str(i == 1 ? " " : ", ", workers_.name(late[i]));
    }
    fail({.rank = late.front(),
          .severity = WorkerFailure::Severity::kLate,
          .reason = str("is late: its batch has not got on for longer than ", limit, " s; it is ", where,
                        "; where a step takes as long, raise timeout"),
          .run = flight.run});
  }
}

// Those that have come least far, all of them: the others may only wait for them. Ranks that do the same
// steps at the same time take part in the same collectives; stages of a pipeline do not.
std::vector<int> Replica::latest_ranks() const {
  const bool is_lockstep = job_.engine.layout.pipeline == 1;
  const auto progress = [&](const Rank& r) {
    return std::tuple(r.run, order_of(r.phase), r.step, is_lockstep ? r.collectives : 0);
  };
  const auto least = std::min_element(
      ranks_.begin(), ranks_.end(), [&](const Rank& a, const Rank& b) { return progress(a) < progress(b); });
  std::vector<int> latest;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (progress(ranks_[i]) == progress(*least))
      latest.push_back(workers_.ranks().first + static_cast<int>(i));
  }
  return latest;
}

InFlightBatch* Replica::find(int64_t run) {
  const auto found =
      std::find_if(in_flight_.begin(), in_flight_.end(), [&](const auto& f) { return f.run == run; });
  return found == in_flight_.end() ? nullptr : &*found;
}

void Replica::drop(int64_t run) {
  std::erase_if(in_flight_, [&](const auto& f) { return f.run == run; });
}

}  // namespace atelier::cluster
