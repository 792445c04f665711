// One run as data: what the command line resolved, what the supervisor hands to its workers, what comes back.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "jobs/ledger.h"
#include "jobs/queue.h"
#include "pipeline/engine_config.h"

namespace atelier::cluster {

// What concerns the workers and not what they compute.
struct PoolOptions {
  int max_retries = 3;
  double batch_timeout_s = 300;  // a batch that takes longer counts as hung
  double start_timeout_s = 600;  // loading
  void fields(const Visit& visit);
};

// Where results go, and what is written into them.
struct SinkConfig {
  std::filesystem::path folder;
  std::string format = "png";  // of names that do not say
  int quality = 95;
  Json record = Json::object();  // the run's share of what decides how its pictures look; see request::look
  void fields(const Visit& visit);  // all but the record
};

struct Job {
  pipeline::EngineConfig engine;
  PoolOptions pool;
  SinkConfig sink;
};
Json to_json(const Job& job);
Job job_from_json(const Json& json);  // throws Error(kUsage)

struct Finished {
  request::Request request;  // fully resolved
  jobs::Stored stored;       // seconds: of its batch, divided by the batch's pictures, and of writing
};

// What one batch took on the rank that leads its group.
struct BatchTimes {
  std::map<std::string, double> seconds;  // by phase: encode, denoise, decode
  std::vector<double> step_ms;
};

// What the caller sees while pictures are drawn; called on one thread at a time.
struct Events {
  std::function<void(const std::string& phase)> on_phase;  // "load", "ready"
  std::function<void(int group, int step, int steps)> on_step;
  std::function<void(int group, const BatchTimes&)> on_drawn;  // a batch; its pictures are not written yet
  std::function<void(const Finished&)> on_picture;
  std::function<void(const std::string& reason)> on_restart;  // workers died and start again
};

struct RankStats {
  int rank = 0;
  std::string device;
  int64_t weight_bytes = 0, peak_device_bytes = 0, peak_host_bytes = 0;
  std::map<std::string, double> seconds;  // by phase, of all batches
  std::set<std::string> used;             // kernels and strategies that really ran
};
struct RunResult {
  std::vector<RankStats> ranks;
  std::vector<jobs::FailedItem> failures;
  int restarts = 0;
};

// Draws everything in the queue and writes the pictures. One rank: in this process. Several: a worker process
// per rank, watched and restarted. Throws Error(kCheckpoint, kUsage, kCapacity) when loading fails for good,
// Error(kInterrupted) after a stop request; requests that fail are in the outcome.
RunResult run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop);

}  // namespace atelier::cluster
