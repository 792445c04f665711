// What workers are told before their first batch: the model, how it is spread, where results go. As data, so
// that it travels to their processes.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/field.h"
#include "pipeline/engine_config.h"

namespace atelier::cluster {

// What concerns the workers and not what they compute.
struct PoolOptions {
  int max_retries = 3;
  double batch_timeout_s = 300;  // a batch that does not get on for longer counts as hung
  double start_timeout_s = 600;  // loading
  double end_timeout_s = 30;     // until a worker that was killed is left behind
  void fields(const Visit& visit);
};

// Where results go, and what is written into them.
struct SinkConfig {
  std::filesystem::path folder;
  std::string format = "png";  // of names that do not say
  int quality = 95;
  bool returns_bytes = false;    // to the pool, in place of files
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

}  // namespace atelier::cluster
