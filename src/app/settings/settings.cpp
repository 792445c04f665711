// The lists of fields, one per concern.
#include "app/settings/settings.h"

#include <nlohmann/json.hpp>

namespace atelier::app {
namespace {

constexpr double kMany = 1e9;

Field number(std::string_view name, std::string_view help, double least, double most) {
  return {.name = name, .help = help, .least = least, .most = most};
}

// Of ranks, which the environment may say too.
Field degree(std::string_view name, std::string_view variable, std::string_view help,
             std::string_view aliases = {}) {
  return {.name = name, .help = help, .aliases = aliases, .variable = variable, .least = 1, .most = 1e4};
}

}  // namespace

void ModelSettings::fields(const Visit& visit) {
  visit({"model_name",
         "model: mini, mini-video, a diffusers folder, a .safetensors file, an id such as "
         "black-forest-labs/FLUX.1-schnell, or "
         "dummy:FLUX.1-schnell for random weights",
         "model"},
        &model_name);
  visit({"model_type", "family of the model; read from its files, so only a check"}, &model_type);
  visit({.name = "backend",
         .help = "xdit or diffusers: both mean the engine of this program",
         .choices = "xdit diffusers"},
        &backend);
  visit({"revision", "branch, tag or commit of a model from the hub"}, &revision);
  visit({"base_model",
         "for a single .safetensors or .gguf file: the diffusers folder that everything else comes from"},
        &base_model);
  visit({.name = "transformer_2",
         .help = "for a model of two experts in two single files: that of low noise; --model_name names that "
                 "of high noise"},
        &transformer_2);
  visit({"download", "fetch the model if it is not on this machine (HF_ENDPOINT, HF_TOKEN, HF_HOME)"},
        &download);
  visit({"cache_dir", "where models from the hub are kept; default: as HF_HUB_CACHE and HF_HOME say",
         "download_dir"},
        &cache_dir);
  visit(
      {"dummy",
       "random weights in the sizes of a published model, such as FLUX.1-schnell or sdxl; doctor lists them"},
      &dummy);
  visit({"dummy_seed", "seed of random weights; default 0"}, &dummy_seed);
  visit({"hash_model",
         "know the model again by every byte of its files; default: of large ones by header, size and date"},
        &hash_model);
  visit({"save_dummy", "write the random weights as a diffusers folder and end"}, &save_dummy);
}

void DeviceSettings::fields(const Visit& visit) {
  visit({"device", "auto (a GPU if there is one), cpu, cuda, or cuda:N"}, &device);
  visit({"num_gpus",
         "ranks that draw together: a number, or auto (the product of the degrees, else every GPU)"},
        &num_gpus);
  visit({.name = "torch_dtype",
         .help = "of the denoiser: bfloat16 (default on a GPU), float32 (on the CPU), float16",
         .aliases = "dtype"},
        &torch_dtype);
  visit({.name = "use_fp16", .help = "", .surfaces = 0}, &use_fp16);
  visit({.name = "use_bf16", .help = "", .surfaces = 0}, &use_bf16);
  visit({"enable_tf32", "TF32 for float32 products on the GPU; on by default"}, &enable_tf32);
  visit(number("gpu_memory_fraction",
               "share of each GPU's memory that may be used, 0.01 to 1: more fails by name", 0.01, 1),
        &gpu_memory_fraction);
  visit(number("num_nodes", "machines that share the prompts, each on its own; every one draws its share", 1,
               1e4),
        &num_nodes);
  visit(number("node_rank", "which of them this is, from 0", 0, 1e4), &node_rank);
  visit({"span_nodes", "the machines draw together as one group; --num_gpus counts the ranks of all"},
        &span_nodes);
  visit({"master_addr", "address of node 0, for --span_nodes"}, &master_addr);
  visit(number("master_port", "port there", 1, 65535), &master_port);
}

void BackendSettings::fields(const Visit& visit) {
  visit(degree("data_parallel_degree", "DG_XDIT_DATA_PARALLEL_DEGREE", "groups that draw different pictures",
               "data_parallel_size"),
        &data_parallel_degree);
  visit(degree("ulysses_degree", "DG_XDIT_ULYSSES_DEGREE",
               "ranks that share a picture: its tokens, or its rows where convolutions mix them; heads "
               "exchanged around attention",
               "rows_degree"),
        &ulysses_degree);
  visit(degree("kv_gather_degree", "DG_XDIT_KV_GATHER_DEGREE",
               "ranks that share a picture's tokens, keys and values of all gathered around attention: any "
               "number of heads"),
        &kv_gather_degree);
  visit(degree("ring_degree", "DG_XDIT_RING_DEGREE",
               "ranks that share a picture's tokens, keys passed round a ring"),
        &ring_degree);
  visit(degree("pipefusion_degree", "DG_XDIT_PIPEFUSION_DEGREE",
               "stages of blocks through which patches flow", "pipefusion_parallel_degree"),
        &pipefusion_degree);
  visit(degree("pipeline_parallel_size", "",
               "exact stages of blocks: every step whole, as pipefusion_degree with pipefusion_sync"),
        &pipeline_parallel_size);
  visit({.name = "use_cfg_parallel",
         .help = "one half of the ranks per branch of true guidance",
         .variable = "DG_XDIT_USE_CFG_PARALLEL"},
        &use_cfg_parallel);
  visit(degree("tensor_parallel_degree", "DG_XDIT_TENSOR_PARALLEL_DEGREE",
               "ranks that share heads and features", "tensor_parallel_size"),
        &tensor_parallel_degree);
  visit({"strategy", "all degrees in one: \"cfg=2, pipefusion=2, ring=2\""}, &strategy);
  visit(number("warmup_steps", "whole steps before patches flow (PipeFusion)", 0, kMany), &warmup_steps);
  visit(
      number("num_pipeline_patch", "patches of a picture (PipeFusion); default: as many as stages", 1, kMany),
      &num_pipeline_patch);
  visit({"attn_layer_num_for_pp", "blocks of every stage: 10 9; default: by cost"}, &attn_layer_num_for_pp);
  visit({"pipefusion_sync", "every step whole: exact"}, &pipefusion_sync);
  visit({.name = "use_parallel_vae",
         .help = "decode by rows on all ranks, pictures of any size; default: those that are worth it; "
                 "false: the first rank of a group decodes alone",
         .variable = "DG_XDIT_USE_PARALLEL_VAE"},
        &use_parallel_vae);
  visit({"overlap_p2p_comm",
         "messages between ranks travel while others compute; on by default, off shows what that hides"},
        &overlap_p2p_comm);
  visit(degree("fully_shard_degree", "DG_XDIT_FULLY_SHARD_DEGREE",
               "ranks of a sequence group that share every block's weights"),
        &fully_shard_degree);
  visit({.name = "shard_dit",
         .help = "fully_shard_degree = ring x kv_gather x ulysses",
         .surfaces = kXditFlags},
        &shard_dit);
}

void InputSettings::fields(const Visit& visit) {
  row.fields([&](const Field& field, const FieldRef& slot) {
    if (field.name == "index") return;
    if (is_text(slot)) {
      visit(field, &texts[std::string(field.name)]);
    } else {
      visit(field, slot);
    }
  });
  visit({"prompts_file", "prompts from a .jsonl, .json, .txt or .csv file; rows may hold their own settings"},
        &prompts_file);
  visit({.name = "dataset_path", .help = "CSV file with a column prompt", .surfaces = kRun}, &dataset_path);
  visit({"output_name_column", "field of the prompt file that names the pictures"}, &output_name_column);
  visit({.name = "lora_scale",
         .help = "strength of adapters that do not say their own",
         .aliases = "lora_strength",
         .least = -1e3,
         .most = 1e3},
        &lora_scale);
  visit({.name = "batch_size",
         .help = "pictures drawn together, over all groups",
         .aliases = "max_batch_size",
         .least = 1,
         .most = 1e5},
        &batch_size);
  visit(number("limit", "draw only the first prompts", 1, kMany), &limit);
}

const std::vector<std::string>& InputSettings::texts_of(std::string_view name) const {
  static const std::vector<std::string> none;
  const auto at = texts.find(name);
  return at == texts.end() ? none : at->second;
}

// The spellings of other tools beside our own.
static void visit_offload(EngineSettings& e, const Visit& visit) {
  visit({.name = "offload",
         .help = "keep weights in host memory: encoders (text encoders and VAE, but while they run), model "
                 "(the part "
                 "that runs is on the GPU), group or sequential (also the denoiser block by block)",
         .choices = "none encoders model group sequential"},
        &e.offload);
  visit({"enable_cpu_offload", "the same as --offload model; sdxl: as --offload sequential"},
        &e.enable_cpu_offload);
  visit({"enable_model_cpu_offload", "the same as --offload model"}, &e.enable_model_cpu_offload);
  visit({"enable_sequential_cpu_offload", "the same as --offload sequential"},
        &e.enable_sequential_cpu_offload);
  visit({"enable_group_offloading", "the same as --offload group"}, &e.enable_group_offloading);
}

// Which kernels attend, and what they and products take.
static void visit_numbers(EngineSettings& e, const Visit& visit) {
  visit({.name = "attention_backend",
         .help = "sdpa (default: the best kernel), cudnn, flash, flash3 (package fa3-fwd), xformers, math"},
        &e.attention_backend);
  visit({.name = "use_flash_attention", .surfaces = 0}, &e.use_flash_attention);
  visit({.name = "use_sdpa", .surfaces = 0}, &e.use_sdpa);
  visit({"enable_xformers", "the same as --attention_backend xformers"}, &e.enable_xformers);
  visit({.name = "tier",
         .help = "products of the denoiser's blocks: exact (default), fast (FP8: activations per token, "
                 "weights per "
                 "channel), fast-strict (the same, but for linears that close attention and MLP together)",
         .choices = "exact fast fast-strict"},
        &e.tier);
  visit({"use_fp8_gemms", "the same as --tier fast"}, &e.use_fp8_gemms);
  visit({.name = "attention_dtype",
         .help =
             "queries, keys and values of the denoiser's blocks: auto (default: the model's type), fp8_e4m3 "
             "(in 8 bits, on a GPU by flash3 on Hopper; half as much travels between GPUs)",
         .choices = "auto fp8_e4m3"},
        &e.attention_dtype);
  visit(
      {"deterministic",
       "on the CPU one seed draws the same bits on every number of ranks under data, cfg, ulysses, kv_gather "
       "and rows, whatever is drawn beside it; slower; other layouts, GPUs and step caches are refused"},
      &e.deterministic);
}

void EngineSettings::fields(const Visit& visit) {
  visit_numbers(*this, visit);
  visit({"use_teacache", "the same as --cache_type teacache"}, &use_teacache);
  visit({"use_fbcache", "the same as --cache_type first_block_cache"}, &use_fbcache);
  visit({"enable_compile", "graph mode: CUDA graphs over the blocks; on by default on a GPU",
         "compile use_torch_compile"},
        &enable_compile);
  visit({"gemm_cache",
         "folder of what was measured of matrix products: a GPU that has nothing to do tries the library's "
         "algorithms for the sizes it met, and takes the fastest of those that give the same bits; none: it "
         "does not (default: atelier in the user's cache folder)"},
        &gemm_cache);
  visit({"enable_activation_checkpointing",
         "compute the MLPs of the denoiser's blocks by chunks of tokens: less memory, the bytes are told",
         "chunked_forward"},
        &enable_activation_checkpointing);
  visit({"shard_t5_encoder", "cut the T5 text encoder's weights over the GPUs that draw a picture together"},
        &shard_t5_encoder);
  visit(
      {.name = "memory",
       .help = "auto: decode one by one or in tiles, and offload, the least under which the run fits; given "
               "(default): as the flags say",
       .choices = "given auto"},
      &memory);
  visit({"enable_vae_slicing", "decode the pictures of a batch one after another", "enable_slicing"},
        &enable_vae_slicing);
  visit(
      {"enable_vae_tiling", "decode in overlapping tiles: less memory, slightly different", "enable_tiling"},
      &enable_vae_tiling);
  visit_offload(*this, visit);
  visit({"optimize", "words such as tf32,vae_slicing,compile"}, &optimize);
  visit(number("max_retries", "how often a failed picture is tried again", 0, 1e6), &max_retries);
  visit(number("timeout", "seconds without progress after which a batch counts as hung", 1e-3, kMany),
        &timeout);
  visit(number("start_timeout", "seconds that loading may take", 1e-3, kMany), &start_timeout);
  visit({.name = "debug", .help = "log of every rank, topology and collectives", .variable = "DG_DEBUG"},
        &debug);
  visit(
      {"profile", "write traces for Perfetto into <output_dir>/profile: phases, operators, kernels, by rank"},
      &profile);
  visit(number("profile_wait", "batches before --profile_warmup; all three unset: the first two are traced",
               0, kMany),
        &profile_wait);
  visit(number("profile_warmup", "batches before those that are traced", 0, kMany), &profile_warmup);
  visit(number("profile_active", "batches that are traced", 1, kMany), &profile_active);
}

void OutputSettings::fields(const Visit& visit) {
  visit({"output_dir", "folder of the pictures; default ./output (run: .)", "output_directory"}, &output_dir);
  visit({.name = "output_format",
         .help = "png, jpeg or webp; of videos: webp (default), gif, mp4, or frames (a folder of PNG files)",
         .choices = "png jpeg jpg webp gif mp4 frames"},
        &output_format);
  visit(number("quality", "of JPEG and WebP, 1 to 100", 1, 100), &quality);
  visit({"resume", "leave out pictures that are there already; on by default for t2i"}, &resume);
  visit({"keep_changed", "when resuming, also keep pictures that were made with other settings"},
        &keep_changed);
  visit({"log_dir", "folder of log files; t2i: default <output_dir>/logs/<time>"}, &log_dir);
  visit({"verbose", "more on the terminal", "v"}, &verbose);
  visit({"quiet", "nothing on the terminal but errors", "q"}, &quiet);
  visit({.name = "num_iterations",
         .help = "draw everything so often, for timing",
         .surfaces = kRun,
         .least = 1,
         .most = 1e6},
        &num_iterations);
  visit({.name = "warmup_calls",
         .help = "draw everything so often before the clock starts",
         .surfaces = kRun,
         .least = 0,
         .most = 1e6},
        &warmup_calls);
}

void ScriptSettings::fields(const Visit& visit) {
  visit({.name = "mode",
         .help = "multi: a worker per GPU, each with pictures of its own; dataparallel: the GPUs share every "
                 "batch and its branches of guidance; single: one GPU",
         .choices = "multi dataparallel single",
         .surfaces = kScripts},
        &mode);
  visit({.name = "prompts",
         .help = "CSV file with the columns prompt_id and prompt, and further fields of a picture if wanted",
         .surfaces = kScripts},
        &prompts);
  visit({.name = "output",
         .help = "folder of the pictures, <prompt_id>/<seed>.png; default data/images",
         .surfaces = kScripts},
        &output);
  visit({.name = "seeds", .help = "of every prompt, one picture each; default 0 1", .surfaces = kScripts},
        &seeds);
  visit({.name = "steps",
         .help = "denoising steps; default 50",
         .surfaces = kScripts,
         .least = 1,
         .most = 10000},
        &steps);
  visit({.name = "gpu_ids", .help = "GPUs to use, as nvidia-smi counts them: 0 1 2 3", .surfaces = kScripts},
        &gpu_ids);
  visit({.name = "max_workers",
         .help = "at most so many GPUs; default: all that may be used",
         .surfaces = kScripts,
         .least = 1,
         .most = 1e4},
        &max_workers);
}

void Settings::fields(const VisitSection& visit) {
  const auto section = [&](const char* name) {
    return [&visit, name](const Field& field, FieldRef slot) { visit(name, field, slot); };
  };
  model.fields(section("model"));
  device.fields(section("device"));
  backend.fields(section("backend"));
  input.fields(section("input"));
  engine.fields(section("engine"));
  output.fields(section("output"));
  scripts.fields(section("scripts"));
  serve.fields(section("serve"));
  unsupported.fields(section("unsupported"));
}

const char* cpu_offload(Surface surface) {
  return surface == kScripts ? "sequential" : "model";
}

const char* half_type(Surface surface) {
  return surface == kScripts ? "float16" : "bfloat16";
}

Settings defaults_for(Surface surface) {
  Settings s;
  if (surface == kRun) {
    s.input.row.request.seed = 42;
    s.output.output_dir = ".";
    s.output.resume = false;
  }
  if (surface == kVideo) s.output.output_format = "webp";
  if (surface == kScripts) {
    auto& request = s.input.row.request;
    s.model.model_name = "stabilityai/stable-diffusion-xl-base-1.0";
    request.width = request.height = 1024;
    request.num_inference_steps = 50;
    request.guidance_scale = 7.5;
    s.input.output_name_column = "prompt_id";
    s.engine.enable_vae_slicing = true;
    s.output.output_dir = "data/images";
    s.scripts.seeds = {"0", "1"};
  }
  return s;
}

Json to_json(Settings settings) {
  Json out = Json::object();
  settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    const bool is_secret = field.name == "api_key" || field.name == "database";
    Json value = json_of(slot);
    if (is_secret && !value.is_null() && !value.empty() && value != Json("")) value = "(set)";
    const bool is_asked =
        section != "unsupported" || (value != Json(false) && !value.empty() && value != Json(""));
    if (is_asked) out[section][std::string(field.name)] = value;
  });
  return out;
}

bool equal(const Settings& a, const Settings& b) {
  return to_json(a) == to_json(b);
}

}  // namespace atelier::app
