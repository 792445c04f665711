#include "server/dispatcher.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "server/api_error.h"

namespace atelier::server {
namespace {

constexpr int kMostAhead = 256;  // jobs, open or not on the disk yet

}  // namespace

Dispatcher::Dispatcher(DispatcherOptions options, JobStore& store, int keep_finished, Metrics& metrics,
                       MakeEngine make_engine)
    : options_(options),
      store_(store),
      metrics_(metrics),
      make_engine_(std::move(make_engine)),
      batcher_(options.batch),
      writer_(std::make_unique<JobWriter>(store, keep_finished)) {
  for (auto& record : store_.take_open()) take_up(std::move(record));
  if (!live_.empty()) log::info(str(live_.size(), " jobs that were not finished go on"));
  if (store_.is_shared()) watch_ = std::make_unique<FrontEndWatch>(store_, calls_of_watch());
  thread_ = std::thread([this] { work(); });
}

// What another process has accepted; its events begin here.
void Dispatcher::take_up(JobRecord record) {
  if (live_.contains(record.id)) return;
  record.state = JobState::kQueued;
  record.pictures.clear();
  auto& job = *(live_[record.id] = std::make_unique<LiveJob>());
  job.pictures.resize(record.requests.size());
  job.seconds.resize(record.requests.size());
  job.record = std::move(record);
  job.is_accepted = true;
  if (!job.record.idempotency.empty())
    idempotent_[{job.record.owner, job.record.idempotency}] = job.record.id;
  {
    const std::scoped_lock lock(command_mutex_);
    open_ids_.insert(job.record.id);
  }
  queue(job);
}

Dispatcher::~Dispatcher() {
  is_over_ = true;
  command([](Engine&) {});
  thread_.join();
  watch_.reset();
  writer_.reset();
}

// The job that the client has asked for by the same name before; empty: none. stored: what the store has
// under it; what is in memory is newer.
std::string Dispatcher::earlier_id(const JobRecord& record, const std::optional<JobRecord>& stored) const {
  if (record.idempotency.empty()) return {};
  const auto at = idempotent_.find({record.owner, record.idempotency});
  const JobRecord* earlier = stored ? &*stored : nullptr;
  if (at != idempotent_.end()) {
    if (live_.at(at->second)->is_unwanted)
      throw ApiError(409, "being_forgotten", "the job of this Idempotency-Key is being forgotten: try again");
    earlier = &live_.at(at->second)->record;
  }
  if (!earlier) return {};
  if (earlier->body_hash != record.body_hash)
    throw ApiError(422, "idempotency_key_reused", "this Idempotency-Key belongs to another request");
  return earlier->id;
}

std::string Dispatcher::submit(JobRecord record, Listener listener, Acceptance acceptance) {
  // before the lock: a store may be slow
  std::optional<JobRecord> stored;
  if (!record.idempotency.empty()) stored = store_.find_idempotent(record.owner, record.idempotency);
  const std::scoped_lock lock(mutex_);
  if (is_draining_) {
    ApiError error(503, "draining", "the server is ending: try again in a moment");
    error.retry_after_s = 2;
    throw error;
  }
  if (auto earlier = earlier_id(record, stored); !earlier.empty()) return earlier;
  admit(record);
  const std::string id = record.id;
  auto& job = *(live_[id] = std::make_unique<LiveJob>());
  job.pictures.resize(record.requests.size());
  job.seconds.resize(record.requests.size());
  job.record = std::move(record);
  if (listener) job.listeners[++last_listener_] = std::move(listener);
  if (!job.record.idempotency.empty()) idempotent_[{job.record.owner, job.record.idempotency}] = id;
  {
    const std::scoped_lock commands(command_mutex_);
    open_ids_.insert(id);
  }
  writer_->write(job.record, {}, [this, id](const std::string& error) {
    command([this, id, error](Engine&) { accept(id, error); });
  });
  // the disk may be late, but not by ever more
  if (acceptance == Acceptance::kAtOnce && std::ssize(live_) <= kMostAhead) {
    queue(job);
    command([](Engine&) {});  // wakes it
  }
  return id;
}

bool Dispatcher::cancel(const std::string& id) {
  {
    // the command's own look decides; this one answers the client
    const std::scoped_lock lock(command_mutex_);
    if (!open_ids_.contains(id)) {
      if (watch_) watch_->ask_cancel(id);
      return watch_ != nullptr;
    }
  }
  command([this, id](Engine& engine) {
    const auto at = live_.find(id);
    if (at == live_.end() || is_final(at->second->record.state)) return;
    give_up(*at->second, JobState::kCancelled, 499, "cancelled", "the job was cancelled");
    drop_batches(engine);
  });
  return true;
}

// A job of which something is still to be written is removed when that has been done.
void Dispatcher::forget(const std::string& id) {
  {
    const std::scoped_lock lock(mutex_);
    if (const auto at = live_.find(id); at != live_.end()) {
      at->second->is_unwanted = true;
      cancel(id);
      return;
    }
  }
  const auto record = store_.find(id);
  if (!record) return;
  if (is_final(record->state) || !watch_) return store_.remove(id);
  // another front end draws it, and writes once more when it has stopped
  listen(id, [this, id](const JobEvent& e) {
    if (e.kind == JobEvent::kFinished) watch_->remove(id);
  });
  watch_->ask_cancel(id);
}

double Dispatcher::progress(const std::string& id) const {
  const std::scoped_lock lock(mutex_);
  const auto at = live_.find(id);
  if (at == live_.end()) return 0;
  double done = 0;
  for (const auto& picture : at->second->pictures) done += picture != nullptr;
  for (const auto& [number, batch] : open_) {
    for (const auto& picture : batch.pictures) {
      if (picture.job == id && batch.steps > 0 && !at->second->pictures[static_cast<size_t>(picture.index)])
        done += static_cast<double>(batch.step) / batch.steps;
    }
  }
  return done / static_cast<double>(std::max<size_t>(1, at->second->pictures.size()));
}

int64_t Dispatcher::listen(const std::string& id, Listener listener) {
  {
    const std::scoped_lock lock(mutex_);
    const int64_t number = ++last_listener_;
    if (const auto at = live_.find(id); at != live_.end()) {
      LiveJob& job = *at->second;
      if (is_final(job.record.state)) {
        listener({.kind = JobEvent::kFinished, .record = job.record, .pictures = job.pictures});
      } else {
        job.listeners[number] = std::move(listener);
      }
      return number;
    }
  }
  const auto record = store_.find(id);
  if (!record) return 0;
  if (!is_final(record->state)) {
    const std::scoped_lock lock(mutex_);
    remote_listeners_[++last_listener_] = {id, std::move(listener)};
    if (watch_) watch_->follow(id);
    return last_listener_;
  }
  tell_stored(*record, listener);
  const std::scoped_lock lock(mutex_);
  return ++last_listener_;
}

void Dispatcher::tell_stored(const JobRecord& record, const Listener& listener) const {
  std::vector<Bytes> pictures;
  for (const auto& picture : record.pictures) {
    const auto bytes = store_.picture(record.id, picture.name);
    pictures.push_back(bytes ? std::make_shared<const std::string>(*bytes) : nullptr);
  }
  listener({.kind = JobEvent::kFinished, .record = record, .pictures = std::move(pictures)});
}

int64_t Dispatcher::listen_all(Listener listener) {
  const std::scoped_lock lock(mutex_);
  all_listeners_[++last_listener_] = std::move(listener);
  return last_listener_;
}

void Dispatcher::unlisten(int64_t number) {
  command([this, number](Engine&) {
    all_listeners_.erase(number);
    remote_listeners_.erase(number);
    for (auto& [id, job] : live_) job->listeners.erase(number);
  });
}

std::optional<JobRecord> Dispatcher::find(const std::string& id) const {
  {
    const std::scoped_lock lock(mutex_);
    if (const auto at = live_.find(id); at != live_.end())
      return at->second->is_unwanted ? std::nullopt : std::optional(at->second->record);
  }
  return store_.find(id);
}

// What is in memory is newer than what is stored.
JobPage Dispatcher::list(JobQuery query) const {
  const int most = query.most++;  // one more tells whether there are more
  JobPage out;
  for (;;) {
    const auto stored = store_.list(query);
    const std::scoped_lock lock(mutex_);
    for (const auto& record : stored) {
      query.before = record.id;
      const auto at = live_.find(record.id);
      if (at != live_.end() && at->second->is_unwanted) continue;
      if (std::ssize(out.records) == most) {
        out.has_more = true;
        return out;
      }
      out.records.push_back(at == live_.end() ? record : at->second->record);
    }
    if (std::ssize(stored) < query.most) return out;
  }
}

std::optional<std::string> Dispatcher::picture(const JobRecord& record, size_t index) const {
  {
    const std::scoped_lock lock(mutex_);
    if (const auto at = live_.find(record.id); at != live_.end()) {
      const auto& pictures = at->second->pictures;
      if (index < pictures.size() && pictures[index]) return *pictures[index];
    }
  }
  if (index >= record.pictures.size()) return std::nullopt;
  return store_.picture(record.id, record.pictures[index].name);
}

std::optional<Error> Dispatcher::fatal() const {
  const std::scoped_lock lock(mutex_);
  return fatal_;
}

Json Dispatcher::status() const {
  const std::scoped_lock lock(mutex_);
  Json groups = Json::array(), ranks = Json::array();
  for (int g = 0; g < groups_; ++g) {
    Json group{
        {"group", g}, {"ready", ready_groups_.contains(g)}, {"busy", false}, {"step", 0}, {"steps", 0}};
    for (const auto& [id, batch] : open_) {
      if (batch.group != g || batch.is_generated) continue;
      group["busy"] = true;
      group["step"] = batch.step;
      group["steps"] = batch.steps;
      group["pictures"] = batch.pictures.size();
    }
    groups.push_back(std::move(group));
  }
  const auto known = [](int64_t bytes) { return bytes > 0 ? Json(bytes) : Json(nullptr); };
  for (const auto& rank : stats_) {
    ranks.push_back({{"rank", rank.rank},
                     {"device", rank.device},
                     {"weight_bytes", known(rank.weight_bytes)},
                     {"peak_device_bytes", known(rank.peak_device_bytes)},
                     {"peak_host_bytes", rank.peak_host_bytes}});
  }
  return {{"ready", is_ready_ && !is_draining_},
          {"draining", is_draining_.load()},
          {"waiting", batcher_.size()},
          {"open_batches", open_.size()},
          {"wait_seconds", predicted_wait(0, &CostModel::seconds)},
          {"groups", std::move(groups)},
          {"ranks", std::move(ranks)}};
}

void Dispatcher::drain(std::chrono::milliseconds grace) {
  {
    const std::scoped_lock lock(mutex_);
    drain_end_ = std::chrono::steady_clock::now() + grace;
    is_draining_ = true;
  }
  command([](Engine&) {});
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_drained_; });
}

void Dispatcher::command(std::function<void(Engine&)> work) {
  const std::scoped_lock lock(command_mutex_);
  commands_.push_back(std::move(work));
  if (engine_) engine_->wake();
}

}  // namespace atelier::server
