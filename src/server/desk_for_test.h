// A dispatcher with everything around it, for the tests of this room.
#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>

#include "base/scratch.h"
#include "server/dispatcher.h"
#include "server/testing.h"

namespace atelier::server {

struct Desk {
  Scratch scratch;
  StubMaker maker;
  Metrics metrics;
  StubEngine::Seen seen;
  std::unique_ptr<StoreFolder> folder;
  std::unique_ptr<JobStore> store;
  std::unique_ptr<Dispatcher> dispatcher;

  explicit Desk(StubEngine::Behaviour behaviour = {}, DispatcherOptions options = {.batch = {.most = 4}}) {
    start(std::move(behaviour), options);
  }
  void start(StubEngine::Behaviour behaviour, DispatcherOptions options = {.batch = {.most = 4}}) {
    stop();
    folder = std::make_unique<StoreFolder>(scratch.path());
    store = open_sqlite(*folder);
    dispatcher = std::make_unique<Dispatcher>(options, *store, 100, metrics, [this, behaviour] {
      return std::make_unique<StubEngine>(behaviour, &seen);
    });
  }
  void stop() {
    dispatcher.reset();
    store.reset();
    folder.reset();
  }

  JobRecord record(const std::string& prompt, int n = 1, int steps = 2) const {
    request::PromptRow row;
    row.request.prompt = prompt;
    row.request.num_inference_steps = steps;
    row.images = n;
    JobRecord job{.id = new_id("job_"), .kind = "images.generations", .format = "png"};
    job.created = unix_time();
    job.requests = maker.make(row, "png").requests;
    for (size_t i = 0; i < job.requests.size(); ++i) job.requests[i].name = str(job.id, "_", i, ".png");
    job.body_hash = prompt;
    return job;
  }
};

// How a job ended, for whoever waits.
struct Ended {
  JobRecord record;
  std::vector<std::string> pictures;
  bool is_interrupted = false;
  int steps = 0;
};
struct Waiter {
  std::shared_ptr<std::promise<Ended>> promise = std::make_shared<std::promise<Ended>>();
  std::shared_ptr<Ended> ended = std::make_shared<Ended>();
  std::shared_ptr<std::atomic<int>> steps = std::make_shared<std::atomic<int>>(0);  // so far
  Listener listener() const {
    return [promise = promise, ended = ended, steps = steps](const JobEvent& e) {
      *steps += e.kind == JobEvent::kStep;
      if (e.kind != JobEvent::kFinished && e.kind != JobEvent::kInterrupted) return;
      ended->record = e.record;
      ended->steps = *steps;
      ended->is_interrupted = e.kind == JobEvent::kInterrupted;
      for (const auto& bytes : e.pictures) ended->pictures.push_back(bytes ? *bytes : "");
      promise->set_value(*ended);
    };
  }
  Ended wait() const {
    auto future = promise->get_future();
    if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
      ADD_FAILURE() << "nobody answered";
      return {};
    }
    return future.get();
  }
};

inline void wait_until(const std::function<bool()>& is_true) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!is_true()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace atelier::server
