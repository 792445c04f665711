// What the engine tells.
#include <algorithm>
#include <charconv>

#include "base/digest.h"
#include "base/log.h"
#include "server/dispatcher.h"

namespace atelier::server {
namespace {

constexpr int kMostWaits = 5;  // for memory, of one picture

}  // namespace

// A request is named "<job>_<picture>.<suffix>".
Dispatcher::LiveJob* Dispatcher::job_of(const request::Request& request, int& index) {
  const size_t end = request.name.rfind('.'), bar = request.name.rfind('_', end);
  if (end == std::string::npos || bar == std::string::npos) return nullptr;
  std::from_chars(request.name.data() + bar + 1, request.name.data() + end, index);
  const auto at = live_.find(request.name.substr(0, bar));
  if (at == live_.end() || index < 0 || index >= std::ssize(at->second->pictures)) return nullptr;
  return at->second.get();
}

void Dispatcher::on(const cluster::GroupReady& e) {
  ready_groups_.insert(e.group);
  is_ready_ = true;
  log::info(str("group ", e.group, " is ready"));
}

void Dispatcher::on(const cluster::StepDone& e) {
  const auto at = open_.find(e.batch);
  if (at == open_.end()) return;
  OpenBatch& batch = at->second;
  batch.group = e.group;
  batch.step = e.step;
  batch.steps = e.steps;
  std::set<std::string> told;
  for (const auto& picture : batch.pictures) {
    LiveJob& job = *live_.at(picture.job);
    if (is_final(job.record.state) || !told.insert(picture.job).second) continue;
    tell(job, {.kind = JobEvent::kStep,
               .record = job.record,
               .step = e.step,
               .steps = e.steps,
               .seconds_left = seconds_left(job)});
  }
}

void Dispatcher::on(const cluster::PreviewReady& e) {
  int index = 0;
  LiveJob* const job = job_of(e.request, index);
  if (!job || is_final(job->record.state)) return;
  const auto batch = open_.find(e.batch);
  tell(*job, {.kind = JobEvent::kPreview,
              .record = job->record,
              .step = e.step,
              .steps = batch == open_.end() ? 0 : batch->second.steps,
              .picture = index,
              .pictures = {std::make_shared<const std::string>(e.data)}});
}

void Dispatcher::on(const cluster::RequestNote& e) {
  int index = 0;
  LiveJob* const job = job_of(e.request, index);
  if (!job || is_final(job->record.state)) return;
  auto& notes = job->record.notes;
  if (std::find(notes.begin(), notes.end(), e.note) != notes.end()) return;
  notes.push_back(e.note);
  tell(*job, {.kind = JobEvent::kNote, .record = job->record, .note = e.note});
}

void Dispatcher::on(const cluster::BatchGenerated& e) {
  const auto at = open_.find(e.batch);
  if (at == open_.end()) return;
  at->second.is_generated = true;
  double seconds = 0;
  for (const auto& [phase, took] : e.times.seconds) seconds += took;
  std::vector<request::Request> requests;
  for (const auto& picture : at->second.pictures) requests.push_back(picture.request);
  costs_.learn(requests, e.times.seconds);
  metrics_.observe("atelier_batch_seconds", "of the engine for a batch", seconds);
  metrics_.count("atelier_batches_total", "batches that were drawn");
}

void Dispatcher::on(const cluster::ArtifactStored& e) {
  int index = 0;
  LiveJob* const job = job_of(e.request, index);
  metrics_.count("atelier_pictures_total", "pictures that were drawn");
  if (!job || is_final(job->record.state)) return;
  auto& slot = job->pictures[static_cast<size_t>(index)];
  if (slot) return;
  slot = std::make_shared<const std::string>(e.stored.data);
  tell(*job, {.kind = JobEvent::kPicture,
              .record = job->record,
              .picture = index,
              .pictures = {slot},
              .seconds_left = seconds_left(*job)});
  job->seconds[static_cast<size_t>(index)] = e.stored.record.seconds;
  if (!std::all_of(job->pictures.begin(), job->pictures.end(),
                   [](const Bytes& bytes) { return bytes != nullptr; }))
    return;
  for (size_t i = 0; i < job->pictures.size(); ++i) {
    const auto& request = job->record.requests[i];
    job->record.pictures.push_back({.name = str(i, ".", job->record.format),
                                    .sha256 = sha256(*job->pictures[i]),
                                    .bytes = job->pictures[i]->size(),
                                    .seconds = job->seconds[i],
                                    .seed = request.seed.value_or(0)});
  }
  job->record.state = JobState::kDone;
  finish(*job);
}

void Dispatcher::on(const cluster::RequestFailed& e) {
  int index = 0;
  LiveJob* const job = job_of(e.request, index);
  if (!job) return;
  log::error(str("job=", job->record.id, " request=", job->record.request_id, " picture=", index,
                 " failed after ", e.attempts, " tries: ", e.reason));
  if (is_final(job->record.state)) return;
  if (e.kind == Kind::kCapacity && try_later(*job, e.batch, index)) return;
  give_up(*job, JobState::kFailed, 500, "generation_failed", "the picture could not be drawn");
  command([this](Engine& engine) { drop_batches(engine); });  // its other pictures
}

// Memory that is short now may be there in a while: after 1, 2, 4, 8 and 16 s.
bool Dispatcher::try_later(LiveJob& job, int64_t batch, int index) {
  const auto open = open_.find(batch);
  const int round = job.waits_for_memory / static_cast<int>(job.record.requests.size());
  if (open == open_.end() || round >= kMostWaits) return false;
  auto& pictures = open->second.pictures;
  const auto at = std::find_if(pictures.begin(), pictures.end(), [&](const WaitingPicture& p) {
    return p.job == job.record.id && p.index == index;
  });
  if (at == pictures.end()) return false;
  ++job.waits_for_memory;
  later_.emplace_back(std::chrono::steady_clock::now() + std::chrono::seconds(1 << round), *at);
  pictures.erase(at);
  return true;
}

void Dispatcher::take_later() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(later_, [&](const auto& entry) {
    if (now < entry.first) return false;
    const auto at = live_.find(entry.second.job);
    if (at != live_.end() && !is_final(at->second->record.state)) batcher_.add_first(entry.second);
    return true;
  });
}

// What was cancelled beside what nobody wants any more is drawn again.
void Dispatcher::on(const cluster::BatchDone& e) {
  const auto at = open_.find(e.batch);
  if (at == open_.end()) return;
  const auto batch = std::move(at->second);
  open_.erase(at);
  for (auto picture = batch.pictures.rbegin(); picture != batch.pictures.rend(); ++picture) {
    const LiveJob& job = *live_.at(picture->job);
    if (is_final(job.record.state) || job.pictures[static_cast<size_t>(picture->index)]) continue;
    batcher_.add_first(*picture);
  }
}

void Dispatcher::on(const cluster::GroupRestarted& e) {
  ready_groups_.erase(e.group);
  is_ready_ = !ready_groups_.empty();
  metrics_.count("atelier_group_restarts_total", "times that workers were started again",
                 str("group=\"", e.group, "\""));
  log::warning(str("the workers of group ", e.group, " are started again: ", e.reason));
}

void Dispatcher::on(const cluster::GroupLost& e) {
  ready_groups_.erase(e.group);
  is_ready_ = !ready_groups_.empty();
  lost_groups_.insert(e.group);
  log::error(str("group ", e.group, " is given up: ", e.reason));
}

void Dispatcher::update_gauges(Engine& engine) {
  metrics_.set("atelier_waiting_pictures", "that no group draws yet", static_cast<double>(batcher_.size()));
  metrics_.set("atelier_open_jobs", "jobs that are not on the disk yet", static_cast<double>(live_.size()));
  metrics_.set("atelier_groups_ready", "groups whose workers are loaded",
               static_cast<double>(ready_groups_.size()));
  const auto drawing =
      std::count_if(open_.begin(), open_.end(), [](const auto& open) { return !open.second.is_generated; });
  metrics_.set("atelier_groups_busy", "groups that draw", static_cast<double>(drawing));
  for (const auto& rank : engine.stats()) {
    const std::string labels = str("rank=\"", rank.rank, "\"");
    // on a CPU nothing counts these
    if (rank.weight_bytes > 0)
      metrics_.set("atelier_weight_bytes", "of a rank's part of the model",
                   static_cast<double>(rank.weight_bytes), labels);
    if (rank.peak_device_bytes > 0)
      metrics_.set("atelier_peak_device_bytes", "of a rank's GPU",
                   static_cast<double>(rank.peak_device_bytes), labels);
    metrics_.set("atelier_host_bytes", "of a rank's process", static_cast<double>(rank.host_bytes), labels);
  }
}

}  // namespace atelier::server
