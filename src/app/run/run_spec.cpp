// Settling a run.
#include "app/run/run_spec.h"

#include <nlohmann/json.hpp>

#include "app/run/capacity.h"
#include "app/settings/dtype.h"
#include "app/settings/unused.h"
#include "base/error.h"
#include "media/image.h"
#include "pipeline/device.h"
#include "pipeline/tier.h"

namespace atelier::app {
namespace {

media::Format format_of(const OutputSettings& output) {
  return *media::format_of("." + output.output_format);
}

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

pipeline::EngineConfig engine_of(const Resolved& resolved, const RunSpec& spec) {
  const auto& s = resolved.settings;
  const bool cuda = spec.device.device.is_cuda();
  pipeline::EngineConfig engine;
  engine.model = spec.model.spec;
  engine.device = cuda ? spec.device.device.str() : "cpu";
  engine.precision.denoiser =
      s.device.torch_dtype.empty() ? (cuda ? half_type(resolved.surface) : "float32") : s.device.torch_dtype;
  // Encoders and the VAE overflow in float16, and are a small part of the work on the CPU.
  const bool is_half = cuda && engine.precision.denoiser != "float32";
  engine.precision.encoders = engine.precision.vae = is_half ? "bfloat16" : "float32";
  engine.attention = attention_of(s.engine.attention_backend);
  const std::string offload = offload_of(resolved);
  engine.offload = cuda ? offload : "none";  // on the CPU weights are in host memory anyway
  engine.tier = s.engine.tier;
  engine.vae_slicing = s.engine.enable_vae_slicing;
  const bool is_cut = spec.layout.degrees.parallel_vae && spec.layout.ranks > spec.layout.degrees.data;
  engine.vae_tiling = s.engine.enable_vae_tiling && !is_cut;
  engine.tf32 = s.device.enable_tf32;
  engine.graphs = s.engine.enable_compile.value_or(true) && cuda;
  engine.debug = s.engine.debug;
  engine.layout = spec.layout.degrees;
  if (!spec.requests.requests.empty())
    engine.adapters = spec.requests.requests.front().lora.value_or(std::vector<std::string>{});
  return engine;
}

cluster::Job job_of(const Resolved& resolved, const RunSpec& spec) {
  const auto& s = resolved.settings;
  auto engine = engine_of(resolved, spec);
  auto record = record_of(resolved, spec.model, engine);
  return {.engine = std::move(engine),
          .pool = {.max_retries = s.engine.max_retries,
                   .batch_timeout_s = s.engine.timeout,
                   .start_timeout_s = s.engine.start_timeout},
          .sink = {.folder = s.output.output_dir,
                   .format = s.output.output_format,
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

// The layout for the least of the rows. Rows of a file that are too small for the layout that is asked for fail
// alone, where there are larger ones.
LayoutChoice settle_layout(const Resolved& resolved, RequestSet& set, plan::LayoutQuery query,
                           const Machine& machine, const pipeline::ModelRepo& model) {
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
        const int64_t tokens = model.image_tokens(*r.height, *r.width);
        if (tokens > least && (next == 0 || tokens < next)) next = tokens;
      }
      if (next == 0 || set.requests.front().where.empty()) throw Error(first->kind(), first->what());
      std::erase_if(set.requests, [&](const request::Request& r) {
        const bool is_small = model.image_tokens(*r.height, *r.width) < next;
        if (is_small) set.bad.push_back({r.where, reason});
        return is_small;
      });
      query.work.image_tokens = set.extent.work.image_tokens = next;
    }
  }
}

std::string size_line(const RunSpec& spec) {
  const auto& all = spec.requests.requests;
  if (all.empty()) return "none";
  const auto& first = all.front();
  bool same_size = true, same_steps = true;
  for (const auto& r : all) {
    same_size = same_size && r.height == first.height && r.width == first.width;
    same_steps = same_steps && r.num_inference_steps == first.num_inference_steps &&
                 r.guidance_scale == first.guidance_scale;
  }
  std::string out = str(all.size(), all.size() == 1 ? " picture, " : " pictures, ");
  out += same_size ? str(*first.width, "x", *first.height) : "several sizes";
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
             engine.tier == "exact" ? "" : " (tier " + engine.tier + ")", ", encoders and VAE ",
             engine.precision.encoders);
  if (spec.device.device.is_cuda()) out += str(", TF32 ", engine.tf32 ? "on" : "off");
  return out;
}

// What the product of the degrees does not say.
std::string layout_line(const plan::ParallelConfig& d, int64_t least_steps) {
  std::string out;
  const auto add = [&](const std::string& fact) { out += (out.empty() ? "" : ", ") + fact; };
  const int patches = plan::patch_count(d);
  if (d.pipeline > 1) add(str(d.pipeline, " stages"));
  if (patches > 1 && least_steps > d.warmup) {
    add(str(patches, " patches with stale keys after ", d.warmup,
            d.warmup == 1 ? " whole step" : " whole steps",
            ": approximate, other pixels than one rank draws"));
  } else if (d.pipeline > 1) {
    add("every step whole: exact");
  }
  if (d.shard > 1) add(str("weights of the blocks in ", d.shard, " shards"));
  if (d.parallel_vae && plan::world_size(d) > d.data) add("decoded by all ranks, each its rows");
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

RunSpec make_run_spec(const Resolved& resolved, FoundModel model, request::Prompts prompts, int launched) {
  const auto& s = resolved.settings;
  const int devices = pipeline::cuda_devices();
  const auto facts = model.folder.check();
  RunSpec spec{.model = std::move(model)};
  spec.device = choose_device(s.device.device, devices);
  const std::string suffix(media::suffix(format_of(s.output)));
  spec.requests = make_requests(resolved, spec.model.folder, std::move(prompts), suffix);
  check_stage_blocks(resolved, facts.blocks);
  const Room room = room_here(spec.device);
  spec.layout = settle_layout(resolved, spec.requests, {facts, spec.requests.extent.work},
                              {spec.device, devices, launched,
                               [&](int ranks) {
                                 if (!s.device.span_nodes) check_ranks(ranks, room);
                               }},
                              spec.model.folder);
  if (spec.layout.ranks == 1 && spec.device.device.is_cuda() && !spec.device.device.has_index() &&
      launched == 0) {
    spec.device.device = c10::Device(c10::kCUDA, 0);
  }
  for (auto& note : unused_settings(resolved, spec)) spec.requests.notes.push_back(std::move(note));
  spec.job = job_of(resolved, spec);
  pipeline::check_tier(pipeline::tier_named(spec.job.engine.tier), facts, spec.device.device);
  if (!s.device.span_nodes && (launched == 0 || spec.device.device.is_cuda()))
    check_memory(spec, facts, room);
  return spec;
}

std::vector<std::string> header(const RunSpec& spec, const Resolved& resolved) {
  const auto& s = resolved.settings;
  const auto& m = spec.model;
  const std::string revision = m.revision.empty() ? "" : ", revision " + m.revision.substr(0, 12);
  std::vector<std::string> out;
  out.push_back(str("model    ", m.name, " (", m.how, revision, "), family ", m.folder.family().name,
                    ", backend ", s.model.backend, " = the engine of this program"));
  out.push_back(
      str("draw     ", size_line(spec), ", ", branch_line(spec, resolved), ", batch ", s.input.batch_size));
  out.push_back(str("layout   ", spec.layout.ranks, spec.layout.ranks == 1 ? " rank" : " ranks", " (",
                    spec.layout.why, "): ", plan::product(spec.layout.degrees)));
  if (const auto line = layout_line(spec.layout.degrees, spec.requests.extent.work.steps); !line.empty())
    out.push_back("         " + line);
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
