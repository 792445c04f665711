// Settling a run.
#include "app/run/run_spec.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "app/run/capacity.h"
#include "app/run/decoding.h"
#include "app/run/kernel_checks.h"
#include "app/run/plan_query.h"
#include "app/run/record.h"
#include "app/settings/dtype.h"
#include "app/settings/unused.h"
#include "base/error.h"
#include "media/image.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"
#include "pipeline/step_cache.h"
#include "plan/picture_rows.h"

namespace atelier::app {
namespace {

std::string attention_of(const std::string& name) {
  if (name.empty() || name == "sdpa") return "auto";
  return name == "xformers" ? "efficient" : name;
}

// The one kind of offload that is asked for. Throws Error(kUsage) for two different ones.
std::string offload_of(const Resolved& resolved) {
  const auto& e = resolved.settings.engine;
  const std::tuple<const char*, bool, const char*> spellings[] = {
      {"enable_cpu_offload", e.enable_cpu_offload, cpu_offload(resolved.surface)},
      {"enable_model_cpu_offload", e.enable_model_cpu_offload, "model"},
      {"enable_sequential_cpu_offload", e.enable_sequential_cpu_offload, "sequential"},
      {"enable_group_offloading", e.enable_group_offloading, "group"}};
  std::string kind = resolved.is_set("offload") ? e.offload : "", by = "offload";
  for (const auto& [name, is_on, means] : spellings) {
    if (!is_on) continue;
    if (!kind.empty() && kind != means)
      throw Error(Kind::kUsage, str(resolved.origin(by).text, " asks for offload ", kind, " and ",
                                    resolved.origin(name).text, " for ", means, ": give one of them"));
    kind = means, by = name;
  }
  return kind.empty() ? "none" : kind;
}

// As torch.profiler.schedule counts. Unless a count is given, the first batch, which warms up,
// and the second.
void add_profile(const Settings& s, pipeline::EngineConfig& engine) {
  if (!s.engine.profile) return;
  engine.profile = std::filesystem::absolute(s.output.output_dir) / "profile";
  if (!s.engine.profile_wait && !s.engine.profile_warmup && !s.engine.profile_active) return;
  engine.profiled_from = s.engine.profile_wait.value_or(2) + s.engine.profile_warmup.value_or(2);
  engine.profiled = s.engine.profile_active.value_or(1);
}

cluster::Job job_of(const Resolved& resolved, const RunSpec& spec) {
  const auto& s = resolved.settings;
  auto engine = engine_config(resolved, spec);
  add_profile(s, engine);
  auto record = record_of(resolved, spec.model, engine);
  return {.engine = std::move(engine),
          .pool = {.max_retries = s.engine.max_retries,
                   .batch_timeout_s = s.engine.timeout,
                   .start_timeout_s = s.engine.start_timeout},
          .sink = {.folder = s.output.output_dir,
                   .format = output_format_of(resolved, spec.model.folder),
                   .quality = s.output.quality,
                   .record = std::move(record)}};
}

// Throws Error(kUsage) unless there are as many as stages, with the sum of the model's blocks.
void check_stage_blocks(const Resolved& resolved, int model_blocks) {
  const auto& blocks = resolved.settings.backend.attn_layer_num_for_pp;
  const int stages = degrees_of(resolved).pipeline;
  int sum = 0, least = 1;
  for (const int b : blocks) sum += b, least = std::min(least, b);
  if (blocks.empty() || (static_cast<int>(blocks.size()) == stages && sum == model_blocks && least > 0))
    return;
  throw Error(Kind::kUsage, str(resolved.origin("attn_layer_num_for_pp").text, ": ", blocks.size(),
                                " numbers with the sum ", sum, " were given; ", stages,
                                " stages of at least one block with the sum ", model_blocks, " are needed"));
}

// The layout for the least of the rows. Rows of a file that are too small for the layout that is asked for
// fail alone, where there are larger ones.
LayoutChoice settle_layout(const Resolved& resolved, RequestSet& set, plan::LayoutQuery query,
                           const Machine& machine, const pipeline::ModelRepo& model) {
  const auto tokens_of = [&](const request::Request& r) {
    return model.image_tokens(*r.height, *r.width, r.num_frames.value_or(1));
  };
  std::optional<Error> first;
  for (;;) {
    try {
      return choose_layout(resolved, query, machine);
    } catch (const Error& e) {
      if (e.kind() != Kind::kUsage) throw;
      if (!first) first = e;
      const std::string reason = e.what();
      int64_t least = query.work.image_tokens, next = 0;
      for (const auto& r : set.requests) {
        const int64_t tokens = tokens_of(r);
        if (tokens > least && (next == 0 || tokens < next)) next = tokens;
      }
      if (next == 0 || set.requests.front().where.empty()) throw Error(first->kind(), first->what());
      set.requests = set.requests.only([&](const request::Request& r) {
        const bool is_small = tokens_of(r) < next;
        if (is_small) set.bad.push_back({r.where, reason});
        return !is_small;
      });
      query.work.image_tokens = set.extent.work.image_tokens = next;
    }
  }
}

// What was asked for is known to go together; the planner may have chosen stages where nothing else fits.
void check_step_caches(const RunSpec& spec) {
  if (spec.layout.degrees.pipeline == 1) return;
  for (const auto& r : spec.requests.requests) {
    const auto problem = pipeline::step_cache_problem(r, spec.model.folder, spec.layout.degrees);
    if (!problem.empty()) throw Error(Kind::kUsage, str(r.name, ": ", problem));
  }
}

// The planner's choice for the pictures of this run.
std::function<BestLayout(const plan::LayoutQuery&, int)> chooser(const Resolved& resolved,
                                                                 const RunSpec& spec,
                                                                 const plan::Hardware& hardware) {
  return [&resolved, &spec, hardware](const plan::LayoutQuery& query, int ranks) -> BestLayout {
    auto question = plan_query(spec.model.folder, spec.facts, spec.work, spec.requests,
                               engine_config(resolved, spec), hardware);
    question.step.layout.work.image_tokens = query.work.image_tokens;
    const auto best = plan::best_exact(question, ranks);
    return {best.degrees,
            str("layout chosen by the planner, which predicts ", std::round(1e4 * best.step.seconds()) / 10,
                " ms per step on ", hardware.name, " with ", hardware.links.name)};
  };
}

// The rule's choice, with keys and values gathered in place of a ring.
BestLayout choose_deterministic(const plan::LayoutQuery& query, int ranks) {
  auto degrees = plan::automatic(query, ranks);
  std::swap(degrees.ring, degrees.kv_gather);
  return {degrees, "layout chosen by rule, of those that are deterministic"};
}

std::string size_line(const RunSpec& spec) {
  const auto& all = spec.requests.requests;
  if (all.empty()) return "none";
  const auto first = all.front();
  bool same_frames = true, same_size = true, same_steps = true;
  for (const auto& r : all) {
    same_frames = same_frames && r.num_frames == first.num_frames && r.fps == first.fps;
    same_size = same_size && r.height == first.height && r.width == first.width;
    same_steps = same_steps && r.num_inference_steps == first.num_inference_steps &&
                 r.guidance_scale == first.guidance_scale;
  }
  const bool draws_videos = spec.model.folder.draws_videos();
  const std::string noun = draws_videos ? " video" : " picture";
  std::string out = str(all.size(), noun, all.size() == 1 ? ", " : "s, ");
  out += same_size ? str(*first.width, "x", *first.height) : "several sizes";
  if (draws_videos)
    out += same_frames ? str(", ", *first.num_frames, " frames at ", *first.fps, " per second")
                       : ", several lengths";
  out += same_steps ? str(", ", *first.num_inference_steps, " steps, guidance ", *first.guidance_scale)
                    : ", several step counts or guidances";
  return out;
}

std::string branch_line(const RunSpec& spec, const Resolved& resolved) {
  const auto why = [&]() -> std::string {
    switch (spec.requests.cfg_source) {
      case CfgSource::kSetting:
        return resolved.is_set("true_cfg_scale") ? resolved.origin("true_cfg_scale").text : "of a row";
      case CfgSource::kModel:
        return "the model's default; --true_cfg_scale 1 turns it off";
      case CfgSource::kFamily:
        return "guidance_scale; 1 turns it off";
      case CfgSource::kGuidance:
        return "guidance_scale, for pictures with a negative prompt";
      default:
        return "default for pictures with a negative prompt";
    }
  };
  if (spec.requests.cfg_source == CfgSource::kNone) return "one branch per step";
  return str("CFG ", spec.requests.cfg, " (", why(), ")");
}

std::string device_line(const RunSpec& spec) {
  const auto& engine = spec.job.engine;
  std::string out = str(engine.device, " (", spec.device.why);
  if (spec.device.device.is_cuda()) {
    out +=
        ", " + pipeline::device_name({c10::kCUDA, spec.device.device.has_index() ? spec.device.device.index()
                                                                                 : c10::DeviceIndex(0)});
  }
  out += str("), denoiser ", engine.precision.denoiser,
             engine.tier == "exact" ? "" : " (tier " + engine.tier + ")",
             engine.attention_dtype == "auto" ? "" : " (attention " + engine.attention_dtype + ")",
             ", encoders and VAE ", engine.precision.encoders, engine.deterministic ? ", deterministic" : "");
  if (spec.device.device.is_cuda()) out += str(", TF32 ", engine.tf32 ? "on" : "off");
  if (spec.layout.ranks > spec.layout.degrees.data)
    out += spec.device.device.is_cuda() ? ", NCCL between ranks" : ", Gloo between ranks";
  return out;
}

// Keys and values that wait for later patches, by stage.
std::string stale_keys_text(const RunSpec& spec) {
  const auto& d = spec.layout.degrees;
  const auto& extent = spec.requests.extent;
  const auto memory = memory_query(spec.model.folder, spec.facts, spec.job.engine,
                                   spec.device.device.is_cuda(), extent.height, extent.width);
  const auto ranks = plan::rank_memory({{spec.facts, extent.work},
                                        spec.work,
                                        pipeline::grid_tokens(spec.model.folder, extent.height, extent.width),
                                        spec.job.engine.attention_dtype != "auto"},
                                       memory, d);
  const size_t each = ranks.size() / static_cast<size_t>(d.cfg * d.pipeline);
  std::string out;
  for (size_t stage = 0; stage < static_cast<size_t>(d.pipeline); ++stage)
    out += (out.empty() ? "" : ", ") + report::bytes_text(ranks[stage * each].keys);
  return out;
}

// What the product of the degrees does not say.
std::string layout_line(const RunSpec& spec) {
  const plan::ParallelConfig& d = spec.layout.degrees;
  const int64_t least_steps = spec.requests.extent.work.steps;
  std::string out;
  const auto add = [&](const std::string& fact) { out += (out.empty() ? "" : ", ") + fact; };
  const int patches = plan::patch_count(d);
  if (d.pipeline > 1) add(str(d.pipeline, " stages (", plan::blocks_by_rank(d, spec.facts), ")"));
  if (patches > 1 && least_steps > d.warmup) {
    add(str(patches, " patches with stale keys after ", d.warmup,
            d.warmup == 1 ? " whole step" : " whole steps",
            ": approximate, other pixels than one rank draws"));
    if (!spec.work.blocks.empty()) add("stale keys of the stages' ranks take " + stale_keys_text(spec));
  } else if (d.pipeline > 1) {
    add("every step whole: exact");
  }
  if (spec.facts.has_convolution_mixer && plan::sequence_size(d) > 1)
    add(str("rows of the picture in ", plan::sequence_size(d), " parts"));
  if (d.shard > 1) add(str("weights of the blocks in ", d.shard, " shards"));
  if (const auto who = decoding_line(spec); !who.empty()) add(who);
  if (!d.overlap && plan::world_size(d) > d.data) add("messages are waited for at once");
  return out;
}

std::string graph_line(const RunSpec& spec, const Resolved& resolved) {
  const auto& asked = resolved.settings.engine.enable_compile;
  if (spec.device.device.is_cuda()) {
    return str("graph mode ",
               spec.job.engine.graphs ? "on: CUDA graphs over the blocks, fused kernels" : "off",
               asked ? " (" + resolved.origin("enable_compile").text + ")" : " (default)");
  }
  return asked && *asked ? "graph mode: no CUDA graphs on the CPU, fused kernels only" : "";
}

}  // namespace

pipeline::EngineConfig engine_config(const Resolved& resolved, const RunSpec& spec) {
  const auto& s = resolved.settings;
  const bool cuda = spec.device.device.is_cuda();
  pipeline::EngineConfig engine;
  engine.model = spec.model.spec;
  engine.device = cuda ? spec.device.device.str() : "cpu";
  engine.precision.denoiser = denoiser_type(resolved, spec.device.device);
  // Encoders and the VAE overflow in float16, and are a small part of the work on the CPU.
  const bool is_half = cuda && engine.precision.denoiser != "float32";
  engine.precision.encoders = engine.precision.vae = is_half ? "bfloat16" : "float32";
  engine.attention = attention_of(s.engine.attention_backend);
  const std::string offload = offload_of(resolved);
  engine.offload = cuda ? offload : "none";  // on the CPU weights are in host memory anyway
  engine.tier = s.engine.tier;
  engine.attention_dtype = s.engine.attention_dtype;
  engine.deterministic = s.engine.deterministic;
  engine.shard_t5_encoder = s.engine.shard_t5_encoder;
  engine.vae_slicing = s.engine.enable_vae_slicing;
  engine.vae_tiling = s.engine.enable_vae_tiling && !plan::may_code_by_rows(spec.layout.degrees, true);
  engine.tf32 = s.device.enable_tf32;
  engine.chunked_forward = s.engine.enable_activation_checkpointing;
  engine.memory_fraction = s.device.gpu_memory_fraction;
  engine.graphs = s.engine.enable_compile.value_or(true) && cuda;
  if (cuda) engine.gemm_cache = resolved.gemm_cache;
  engine.debug = s.engine.debug;
  engine.layout = spec.layout.degrees;
  if (!spec.requests.requests.empty())
    engine.adapters = spec.requests.requests.front().lora.value_or(std::vector<std::string>{});
  return engine;
}

RunSpec make_run_spec(const Resolved& resolved, FoundModel model, request::Prompts prompts, int launched,
                      const RowOptions& rows) {
  const auto& s = resolved.settings;
  const int devices = pipeline::cuda_devices();
  auto counted = model.folder.check();
  auto work = pipeline::model_work(model.folder);
  RunSpec spec{.model = std::move(model), .facts = std::move(counted), .work = std::move(work)};
  const ModelFacts& facts = spec.facts;
  spec.device = choose_device(s.device.device, devices);
  const std::string suffix(
      media::suffix(*media::format_of("." + output_format_of(resolved, spec.model.folder))));
  spec.requests = make_requests(resolved, spec.model.folder, std::move(prompts), suffix, rows);
  check_stage_blocks(resolved, facts.blocks);
  Room room = room_here(spec.device);
  room.device_bytes =
      static_cast<int64_t>(static_cast<double>(room.device_bytes) * s.device.gpu_memory_fraction);
  Machine machine{spec.device, devices, launched, [&](int ranks) {
                    if (!s.device.span_nodes) check_ranks(ranks, room);
                  }};
  if (const auto hardware = hardware_here(spec.device); hardware && !spec.work.blocks.empty())
    machine.best = chooser(resolved, spec, *hardware);
  if (s.engine.deterministic) machine.best = choose_deterministic;
  spec.layout =
      settle_layout(resolved, spec.requests, {facts, spec.requests.extent.work}, machine, spec.model.folder);
  check_step_caches(spec);
  if (spec.layout.ranks == 1 && spec.device.device.is_cuda() && !spec.device.device.has_index() &&
      launched == 0) {
    spec.device.device = c10::Device(c10::kCUDA, 0);
  }
  for (auto& note : unused_settings(resolved, spec)) spec.requests.notes.push_back(std::move(note));
  spec.job = job_of(resolved, spec);
  check_kernels(resolved, spec);
  if (s.engine.memory == "auto") {
    spec.requests.notes.push_back(choose_memory(spec, resolved, room));
    spec.job.sink.record = record_of(resolved, spec.model, spec.job.engine);
    check_kernels(resolved, spec);
  }
  if (!s.device.span_nodes && (launched == 0 || spec.device.device.is_cuda()))
    check_memory(spec, spec.requests, resolved, room);
  return spec;
}

void check_surface(const Resolved& resolved, const FoundModel& model) {
  const bool draws_videos = model.folder.draws_videos();
  const std::string what = str(model.name, " (family ", model.folder.family().name, ")");
  if (resolved.surface == kVideo && !draws_videos)
    throw Error(Kind::kUsage, str(what, " draws pictures: use atelier t2i or atelier run"));
  if ((resolved.surface == kT2i || resolved.surface == kScripts) && draws_videos)
    throw Error(Kind::kUsage, str(what, " draws videos: use atelier video"));
}

RunSpec make_served_spec(const Resolved& resolved, FoundModel model) {
  const int devices = pipeline::cuda_devices();
  const auto facts = model.folder.check();
  RunSpec spec{.model = std::move(model)};
  spec.facts = facts;
  spec.device = choose_device(resolved.settings.device.device, devices);
  check_stage_blocks(resolved, facts.blocks);
  const auto& usual = spec.model.folder.defaults();
  const plan::Workload work{.image_tokens = spec.model.folder.image_tokens(usual.height, usual.width),
                            .branches = degrees_of(resolved).cfg};
  const Room room = room_here(spec.device);
  spec.layout = choose_layout(resolved, {facts, work},
                              {spec.device, devices, 0, [&](int ranks) { check_ranks(ranks, room); }});
  auto& degrees = spec.layout.degrees;
  if (degrees.data > 1) {
    throw Error(Kind::kUsage, str("a server has one group of ranks, asked were ", degrees.data,
                                  ": use cfg, ulysses, ring or tensor in place of data"));
  }
  degrees.sync = true;  // what patches remember is of their own loop over steps
  if (spec.model.spec.parts == "denoiser") degrees.parallel_vae = plan::PictureRows::kNever;
  if (spec.layout.ranks == 1 && spec.device.device.is_cuda() && !spec.device.device.has_index())
    spec.device.device = c10::Device(c10::kCUDA, 0);
  spec.job = job_of(resolved, spec);
  spec.job.sink.returns_bytes = true;
  check_kernels(resolved, spec);
  return spec;
}

std::vector<std::string> header(const RunSpec& spec, const Resolved& resolved, HeaderOf whose) {
  const auto& s = resolved.settings;
  const auto& m = spec.model;
  const std::string revision = m.revision.empty() ? "" : ", revision " + m.revision.substr(0, 12);
  std::vector<std::string> out;
  out.push_back(str("model    ", m.name, " (", m.how, revision, "), family ", m.folder.family().name,
                    ", backend ", s.model.backend, " = the engine of this program"));
  const std::string batch = str(", batch ", s.input.batch_size);
  if (whose == HeaderOf::kRun)
    out.push_back(str("draw     ", size_line(spec), ", ", branch_line(spec, resolved), batch));
  out.push_back(str("layout   ", spec.layout.ranks, spec.layout.ranks == 1 ? " rank" : " ranks", " (",
                    spec.layout.why, "): ", plan::product(spec.layout.degrees)));
  if (const auto line = layout_line(spec); !line.empty()) out.push_back("         " + line);
  for (const auto& line : spec.requests.adapters) out.push_back("adapter  " + line);
  out.push_back("device   " + device_line(spec));
  if (const auto line = graph_line(spec, resolved); !line.empty()) out.push_back("         " + line);
  if (s.device.num_nodes > 1 && !s.device.span_nodes) {
    out.push_back(
        str("node     ", s.device.node_rank, " of ", s.device.num_nodes, ": draws its share of the prompts"));
  }
  for (const auto& warning : spec.layout.warnings) out.push_back("warning  " + warning);
  for (const auto& remark : spec.layout.remarks) out.push_back("note     " + remark);
  for (const auto& note : resolved.notes) out.push_back("note     " + note);
  for (const auto& note : spec.requests.notes) out.push_back("note     " + note);
  return out;
}

}  // namespace atelier::app
