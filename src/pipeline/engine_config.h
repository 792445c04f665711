// What an engine loads, and how it computes: everything about a run that is not one request's. As data, so
// that it travels to worker processes; one function makes the options of a Pipeline from it, whoever asks.
#pragma once
#include <c10/core/Device.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/field.h"
#include "pipeline/model_repo.h"
#include "pipeline/pipeline.h"
#include "plan/parallel_config.h"

namespace atelier::pipeline {

// Where the weights come from; exactly one of folder and preset is set, or neither where parts is "denoiser"
// and single_file says all.
struct ModelSpec {
  std::filesystem::path folder;       // diffusers folder
  std::filesystem::path single_file;  // of a denoiser, perhaps of more; the rest from `folder`
  std::filesystem::path second_file;  // beside it: that of the second expert
  std::string preset;                 // built-in configuration with dummy weights
  uint64_t dummy_seed = 0;
  std::string parts = "all";  // that are loaded: all, denoiser, vae
};
ModelRepo open_model(const ModelSpec& spec);

// Bytes of a number in "float64", "float32", or in one of the half types.
inline int64_t bytes_of_type(const std::string& dtype) {
  if (dtype == "float64") return 8;
  return dtype == "float32" ? 4 : 2;
}

// "float32", "bfloat16", "float16" of each component; "float64" where references are compared.
struct Precision {
  std::string denoiser = "float32", encoders = "float32", vae = "float32";
};

struct EngineConfig {
  ModelSpec model;
  std::string device = "cpu";  // cpu, cuda, cuda:N (one rank only)
  Precision precision;
  std::string attention = "auto";        // auto, cudnn, flash, flash3, efficient, math
  std::string offload = "none";          // none, encoders, model, sequential, group
  std::string tier = "exact";            // exact, fast, fast-strict: nn::Tier of the denoiser
  std::string attention_dtype = "auto";  // auto, fp8_e4m3: nn::AttentionDtype of the denoiser
  bool deterministic = false;            // one seed is one picture to the bit, see nn/ordered.h
  bool shard_t5_encoder = false;
  bool vae_slicing = false, vae_tiling = false, tf32 = true, graphs = true, debug = false;
  std::filesystem::path profile;        // folder of Traces; empty: none are made
  int profiled_from = 0, profiled = 2;  // the first of an engine's batches that is traced, and how many are
  bool chunked_forward = false;         // MLPs by chunks of tokens
  double memory_fraction = 1;           // of a GPU: see cap_memory
  std::filesystem::path gemm_cache;     // folder of nn::TunedProducts; empty: products are not measured
  int settles_after = 0;                // batches, then all that is measured is waited for; 0: nothing is
  plan::ParallelConfig layout;
  std::vector<std::string> adapters;  // of the first request: merged while the model loads

  void fields(const Visit& visit);  // all but the layout, whose text is plan::to_string
};
Json to_json(const EngineConfig& config);
EngineConfig engine_config_from_json(const Json& json);  // throws Error(kUsage)

// Throws Error(kUsage) for a name that is unknown.
nn::Tier tier_named(const std::string& name);
nn::AttentionDtype attention_dtype_named(const std::string& name);
// Throws Error(kUsage) for names of number types, attention kernels or tiers that are unknown.
LoadOptions load_options(const EngineConfig& config, c10::Device device);

}  // namespace atelier::pipeline
