// Everything a user can set, one struct per concern. Each struct lists its fields once, in fields(); flags,
// files, the environment, `config show` and equality all go through that list. Nothing but app/ sees these.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/compat/unsupported.h"
#include "base/field.h"
#include "request/prompts.h"

namespace atelier::app {

enum Surface : unsigned {
  kT2i = 1,  // Diffgentor's flags
  kRun = 2,  // xDiT's flags
  kBoth = kT2i | kRun,
  kScripts = 4,  // flags of the three SDXL scripts
  kVideo = 8,    // xDiT's flags, for models of videos
  kXditFlags = kRun | kVideo,
  kEvery = kBoth | kVideo,
  kServe = 16,  // flags of the resident server
};

struct ModelSettings {
  std::string backend = "xdit", model_name, model_type, revision, base_model, transformer_2, cache_dir, dummy;
  std::optional<uint64_t> dummy_seed;
  bool download = false, hash_model = false;
  std::string save_dummy;
  void fields(const Visit& visit);
};

struct DeviceSettings {
  std::string device = "auto", num_gpus = "auto", torch_dtype;
  bool use_fp16 = false, use_bf16 = false, enable_tf32 = true;
  double gpu_memory_fraction = 1;
  int num_nodes = 1, node_rank = 0;
  bool span_nodes = false;
  std::string master_addr;
  int master_port = 29500;
  void fields(const Visit& visit);
};

// The degrees, under the keys that configurations of Diffgentor's backend have.
struct BackendSettings {
  int data_parallel_degree = 1, ulysses_degree = 1, kv_gather_degree = 1, ring_degree = 1;
  int pipefusion_degree = 1, pipeline_parallel_size = 1;
  bool use_cfg_parallel = false;
  int tensor_parallel_degree = 1;
  std::string strategy;
  int warmup_steps = 1;
  std::optional<int> num_pipeline_patch;
  std::vector<int> attn_layer_num_for_pp;
  bool pipefusion_sync = false, shard_dit = false, overlap_p2p_comm = true;
  std::optional<bool> use_parallel_vae;  // unset: where a picture is worth it
  int fully_shard_degree = 1;
  void fields(const Visit& visit);
};

struct InputSettings {
  // Every text of a request by its name: one for all prompts, or one for each.
  std::map<std::string, std::vector<std::string>, std::less<>> texts;
  request::PromptRow row;  // its other fields: what rows and prompts take that do not say
  std::string prompts_file, dataset_path, output_name_column;
  std::optional<int> limit;
  int batch_size = 1;
  double lora_scale = 1;
  void fields(const Visit& visit);
  const std::vector<std::string>& texts_of(std::string_view name) const;  // none: empty
};

struct EngineSettings {
  std::string attention_backend;
  bool enable_xformers = false;
  std::optional<bool> use_flash_attention, use_sdpa;
  std::string tier = "exact", attention_dtype = "auto";
  bool use_fp8_gemms = false, deterministic = false;
  bool use_teacache = false, use_fbcache = false;
  std::optional<bool> enable_compile;
  std::string gemm_cache;  // "": the user's cache folder
  bool enable_activation_checkpointing = false;
  bool shard_t5_encoder = false;
  std::string memory = "given";
  bool enable_vae_slicing = false, enable_vae_tiling = false;
  std::string offload = "none";
  bool enable_cpu_offload = false, enable_model_cpu_offload = false;
  bool enable_sequential_cpu_offload = false, enable_group_offloading = false;
  std::string optimize;
  int max_retries = 3;
  double timeout = 300, start_timeout = 600;  // s
  bool debug = false;
  bool profile = false;
  std::optional<int> profile_wait, profile_warmup, profile_active;
  void fields(const Visit& visit);
};

struct OutputSettings {
  std::string output_dir = "./output", output_format = "png";
  int quality = 95;
  bool resume = true, keep_changed = false;
  std::string log_dir;
  bool verbose = false, quiet = false;
  int num_iterations = 1, warmup_calls = 0;
  void fields(const Visit& visit);
};

// What the SDXL scripts have in place of other settings; settle_scripts gives those their values.
struct ScriptSettings {
  std::string mode = "multi";
  std::string prompts, output;     // "": not given
  std::vector<std::string> seeds;  // of every prompt
  std::optional<int> steps, max_workers;
  std::vector<int> gpu_ids;
  void fields(const Visit& visit);
};

// The resident server: where it listens, who may ask, and for how much.
struct ServeSettings {
  std::string host = "127.0.0.1";
  int port = 8000, max_concurrent = 0;
  std::vector<std::string> api_key, cors_origins, allowed_hosts;
  std::string api_key_file, tls_cert, tls_key, public_url;
  std::string data_dir, database, lora_dir;
  bool keep_on_disconnect = false;
  int max_body_mb = 32, max_steps = 200, max_n = 4, max_frames = 161, max_prompt_bytes = 32768,
      max_adapters = 8;
  int64_t max_pixels = 4 << 20;
  int max_queue = 256, max_per_key = 64, keep_jobs = 1000;
  int batch_wait_ms = 0;
  double request_timeout = 600, grace = 30;  // s
  int num_inference_steps = 0;               // 0: not set
  double guidance_scale = 0;                 // 0: not set
  std::string debug_log;
  void fields(const Visit& visit);
};

struct Settings {
  ModelSettings model;
  DeviceSettings device;
  BackendSettings backend;
  InputSettings input;
  EngineSettings engine;
  OutputSettings output;
  ScriptSettings scripts;
  ServeSettings serve;
  UnsupportedSettings unsupported;

  using VisitSection = std::function<void(const std::string& section, const Field&, FieldRef)>;
  void fields(const VisitSection& visit);
};

const char* cpu_offload(Surface surface);  // the kind of offload that --enable_cpu_offload stands for
const char* half_type(Surface surface);    // of the denoiser on a GPU, unless another type is asked for
// What holds on this surface when nobody says otherwise.
Settings defaults_for(Surface surface);
// {section: {key: value}}; unset values are null, or absent where this build refuses the setting.
Json to_json(Settings settings);
bool equal(const Settings& a, const Settings& b);

}  // namespace atelier::app
