// What stands for a model in the tests of this room, and in the server that load tests run against.
#pragma once
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/error.h"
#include "request/work.h"
#include "server/engine.h"
#include "server/request_maker.h"

namespace atelier::server {

// Draws nothing: a step takes step_time, a picture is its request's prompt and seed.
class StubEngine : public Engine {
 public:
  struct Behaviour {
    int groups = 1;
    std::chrono::microseconds step_time{0};
    std::string data = {};    // of every picture; empty: its prompt and seed
    int breaks_at = 0;        // the engine breaks down in this batch, counted from 1; 0: never
    std::string fails = {};   // requests with this prompt fail
    int finds_no_memory = 0;  // so many pictures fail at first
    int loses = 0;            // the last groups, which are given up when the others are ready
  };
  // What the tests look at afterwards; outlives the engine.
  struct Seen {
    std::mutex mutex;
    std::vector<std::vector<request::Request>> batches;
    std::vector<int64_t> cancelled;
  };
  StubEngine(Behaviour behaviour, Seen* seen = nullptr) : behaviour_(std::move(behaviour)), seen_(seen) {}

  int groups() const override { return behaviour_.groups; }
  int64_t submit(std::vector<request::Request> requests) override {
    if (seen_) {
      const std::scoped_lock lock(seen_->mutex);
      seen_->batches.push_back(requests);
    }
    const int64_t number = ++last_;
    const int steps = requests.front().num_inference_steps.value_or(1);
    waiting_.push_back({number, std::move(requests), steps});
    return number;
  }
  void cancel(int64_t batch) override {
    if (seen_) {
      const std::scoped_lock lock(seen_->mutex);
      seen_->cancelled.push_back(batch);
    }
    for (auto* list : {&waiting_, &drawn_}) {
      for (auto& b : *list) b.is_cancelled = b.is_cancelled || b.number == batch;
    }
  }

  std::vector<cluster::PoolEvent> poll(std::chrono::milliseconds time) override {
    std::vector<cluster::PoolEvent> events;
    if (!std::exchange(is_ready_, true)) {
      for (int g = 0; g < groups() - behaviour_.loses; ++g) events.push_back(cluster::GroupReady{g});
      for (int g = groups() - behaviour_.loses; g < groups(); ++g)
        events.push_back(cluster::GroupLost{g, "no memory"});
    }
    while (!waiting_.empty() && std::ssize(drawn_) < groups()) {
      drawn_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      drawn_.back().since = Clock::now();
      if (drawn_.back().number == behaviour_.breaks_at) {
        waiting_.clear(), drawn_.clear();
        throw Error(Kind::kPeer, "the stub breaks down at /secret/path");
      }
    }
    if (drawn_.empty() && events.empty()) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, time, [this] { return is_woken_; });
      is_woken_ = false;
      return events;
    }
    if (behaviour_.step_time.count() > 0)
      std::this_thread::sleep_for(std::min<std::chrono::microseconds>(behaviour_.step_time, time));
    for (auto batch = drawn_.begin(); batch != drawn_.end();)
      batch = go_on(*batch, events) ? drawn_.erase(batch) : batch + 1;
    return events;
  }
  void wake() override {
    {
      const std::scoped_lock lock(mutex_);
      is_woken_ = true;
    }
    changed_.notify_one();
  }
  void shut_down() override {}
  std::vector<cluster::RankStats> stats() const override {
    cluster::RankStats rank;
    rank.device = "stub";
    rank.weight_bytes = 1;
    return {rank};
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Drawn {
    int64_t number = 0;
    std::vector<request::Request> requests;
    int steps = 0, step = 0;
    bool is_cancelled = false;
    Clock::time_point since = {};
  };

  // True when nothing more is heard of it.
  bool go_on(Drawn& batch, std::vector<cluster::PoolEvent>& events) {
    const int count = static_cast<int>(batch.requests.size());
    if (batch.is_cancelled) {
      events.push_back(cluster::BatchDone{batch.number, count});
      return true;
    }
    if (Clock::now() - batch.since < behaviour_.step_time * (batch.step + 1)) return false;
    ++batch.step;
    events.push_back(cluster::StepDone{batch.number, 0, batch.step, batch.steps});
    for (const auto& request : batch.requests) {
      if (request::preview_due(batch.step, batch.steps, request.partial_images))
        events.push_back(cluster::PreviewReady{batch.number, request, batch.step, "preview"});
    }
    if (batch.step < batch.steps) return false;
    const double seconds = std::chrono::duration<double>(Clock::now() - batch.since).count();
    events.push_back(cluster::BatchGenerated{batch.number, 0, {}});
    std::get<cluster::BatchGenerated>(events.back()).times.seconds["denoise"] = seconds;
    for (const auto& request : batch.requests) {
      if (!behaviour_.fails.empty() && request.prompt == behaviour_.fails) {
        events.push_back(cluster::RequestFailed{
            .batch = batch.number, .request = request, .reason = "it failed at /secret/path", .attempts = 1});
        continue;
      }
      if (shortages_++ < behaviour_.finds_no_memory) {
        events.push_back(cluster::RequestFailed{batch.number, request, "no memory", 1, Kind::kCapacity});
        continue;
      }
      std::string data =
          behaviour_.data.empty() ? str(request.prompt, " ", request.seed.value_or(0)) : behaviour_.data;
      events.push_back(cluster::ArtifactStored{
          batch.number, 0, request, {{.sha256 = "", .bytes = data.size(), .seconds = seconds}, data}});
    }
    events.push_back(cluster::BatchDone{batch.number, 0});
    return true;
  }

  const Behaviour behaviour_;
  Seen* const seen_;
  std::deque<Drawn> waiting_, drawn_;
  int64_t last_ = 0;
  int shortages_ = 0;
  bool is_ready_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_woken_ = false;
};

// Takes every size that is a multiple of 16.
class StubMaker : public RequestMaker {
 public:
  MadeRequests make(request::PromptRow row, const std::string& format) const override {
    auto& r = row.request;
    if (!r.width) r.width = card_.width;
    if (!r.height) r.height = card_.height;
    for (const int side : {*r.width, *r.height}) {
      if (side % 16 != 0)
        throw Error(Kind::kUsage, str("height and width must be multiples of 16, and ", side, " is none"));
    }
    if (!r.num_inference_steps) r.num_inference_steps = card_.steps;
    if (!r.guidance_scale) r.guidance_scale = card_.guidance;
    if (!r.max_sequence_length) r.max_sequence_length = 16;
    if (r.image && !r.strength) r.strength = 0.5;
    MadeRequests out;
    if (r.image && r.width != r.height)
      out.notes.push_back(str(*r.image, " changes its shape: --width and --height keep it"));
    request::Prompts prompts;
    prompts.rows.push_back(std::move(row));
    for (const auto& request : request::expand(prompts, {.seed = 7, .suffix = "." + format}))
      out.requests.push_back(request);
    return out;
  }
  const ModelCard& card() const override { return card_; }

 private:
  const ModelCard card_{.id = "stub/model",
                        .family = "stub",
                        .tier = "exact",
                        .attention_dtype = "auto",
                        .layout = "single",
                        .dtype = "float32",
                        .device = "cpu",
                        .width = 64,
                        .height = 64,
                        .steps = 4,
                        .groups = 1,
                        .batch = 4,
                        .guidance = 1};
};

}  // namespace atelier::server
