// A pool as a server has it, with what it has told so far.
#pragma once
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cluster/testing.h"
#include "cluster/worker_pool.h"

namespace atelier::cluster {

struct HeardPool {
  Trial trial;
  Variable fake{kFakeVariable, "1"}, where{kFolderVariable, trial.folder.path()};
  std::optional<WorkerPool> pool;
  std::map<int64_t, BatchDone> done;
  std::map<int64_t, std::vector<ArtifactStored>> stored;
  std::vector<RequestFailed> failed;
  std::set<int> ready;  // groups
  int restarts = 0, lost = 0;
  std::function<void(const StepDone&)> on_step;

  explicit HeardPool(int data = 1, int ulysses = 1) : trial(0, data, ulysses) {}

  void start() {
    trial.config.sink.folder = trial.folder.path();
    pool.emplace(trial.config, nullptr);
  }
  int64_t submit(const std::vector<std::string>& prompts, int steps = 3) {
    if (!pool) start();
    std::vector<request::Request> requests;
    for (const auto& prompt : prompts) {
      trial.prompts.push_back(prompt);
      requests.push_back(trial.request(trial.prompts.size() - 1));
      requests.back().num_inference_steps = steps;
    }
    return pool->submit(std::move(requests));
  }
  void poll() {
    for (const auto& event : pool->poll(std::chrono::seconds(1))) {
      if (const auto* e = std::get_if<BatchDone>(&event)) done[e->batch] = *e;
      if (const auto* e = std::get_if<ArtifactStored>(&event)) stored[e->batch].push_back(*e);
      if (const auto* e = std::get_if<RequestFailed>(&event)) failed.push_back(*e);
      if (const auto* e = std::get_if<StepDone>(&event); e && on_step) on_step(*e);
      if (const auto* e = std::get_if<GroupReady>(&event)) ready.insert(e->group);
      lost += std::holds_alternative<GroupLost>(event);
      restarts += std::holds_alternative<GroupRestarted>(event);
    }
  }
  void wait_for(int64_t batch) {
    const auto begin = std::chrono::steady_clock::now();
    while (done.count(batch) == 0 && seconds_since(begin) < 30) poll();
    ASSERT_EQ(done.count(batch), 1u) << "batch " << batch << " is not done";
  }
  void end() {
    pool.reset();
    trial.expect_nothing_left();
  }
};

}  // namespace atelier::cluster
