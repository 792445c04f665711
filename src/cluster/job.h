// One run as data: what the command line resolved, what the supervisor hands to its workers, what comes back.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "jobs/queue.h"
#include "media/image.h"
#include "pipeline/model_repo.h"
#include "pipeline/pipeline.h"
#include "plan/parallel_config.h"

namespace atelier::cluster {

// Where the weights come from; exactly one of folder and preset is set.
struct ModelSpec {
  std::filesystem::path folder;       // diffusers folder
  std::filesystem::path single_file;  // a denoiser in its original naming, the rest from `folder`
  std::string preset;                 // built-in configuration with dummy weights
  uint64_t dummy_seed = 0;
};
pipeline::ModelRepo open_model(const ModelSpec& spec);

struct Job {
  ModelSpec model;
  std::string device = "cpu";  // cpu, cuda, cuda:N (one rank only)
  std::string denoiser_dtype = "float32", encoder_dtype = "float32", vae_dtype = "float32";
  std::string attention = "auto";  // auto, cudnn, flash, efficient, math
  bool vae_slicing = false, vae_tiling = false, tf32 = true, graphs = true, debug = false;
  plan::ParallelConfig degrees;
  std::vector<int> stage_blocks;  // --attn_layer_num_for_pp; empty: by cost
  double true_cfg = 1;            // of items with a negative prompt
  int64_t max_sequence_length = 0;
  std::filesystem::path output;
  media::Format format = media::Format::kPng;
  int quality = 95;
  int max_retries = 3;
  double item_timeout_s = 300;   // a batch that takes longer counts as hung
  double start_timeout_s = 600;  // loading
};
Json to_json(const Job& job);
Job job_from_json(const Json& json);  // throws Error(kUsage)

// A finished picture, as its writer reports it.
struct Finished {
  request::Item item;  // fully resolved
  int64_t bytes = 0;
  double seconds = 0;  // of its batch, divided by the batch's pictures
};

// What the caller sees while pictures are drawn; called on one thread at a time.
struct Events {
  std::function<void(const std::string& phase)> on_phase;  // "load", "ready"
  std::function<void(int group, int step, int steps)> on_step;
  std::function<void(const Finished&)> on_picture;
  std::function<void(const std::string& reason)> on_restart;  // workers died and start again
};

struct RankStats {
  int rank = 0;
  std::string device;
  int64_t weight_bytes = 0, peak_device_bytes = 0, peak_host_bytes = 0;
  std::map<std::string, double> seconds;  // by phase
  std::vector<double> step_ms;            // of the last batch
  std::set<std::string> used;             // kernels and strategies that really ran
};
struct RunResult {
  std::vector<RankStats> ranks;
  std::vector<jobs::FailedItem> failures;
  int restarts = 0;
};

// Turns a batch of resolved items into a request; throws Error(kUsage) if an item lacks a value.
pipeline::Request request_of(const Job& job, const std::vector<request::Item>& items);
pipeline::LoadOptions load_options(const Job& job, c10::Device device);

// Draws everything in the queue and writes the pictures. One rank: in this process. Several: a worker process
// per rank, watched and restarted. Throws Error(kCheckpoint, kUsage, kCapacity) when loading fails for good,
// Error(kInterrupted) after a stop request; items that fail are in the outcome.
RunResult run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop);

}  // namespace atelier::cluster
