// What was asked for without effect on this run.
#include "app/settings/unused.h"

#include <algorithm>

#include "base/error.h"
#include "media/image.h"
#include "models/family.h"
#include "pipeline/model_repo.h"
#include "plan/picture_rows.h"

namespace atelier::app {
namespace {

class Notes {
 public:
  explicit Notes(const Resolved& resolved) : resolved_(resolved) {}

  // Adds "--name why" if somebody set it and it has no effect.
  void add(bool is_idle, const char* name, const std::string& why) {
    if (is_idle && resolved_.is_set(name)) all_.push_back(str(resolved_.origin(name).text, " ", why));
  }
  std::vector<std::string> take() { return std::move(all_); }

 private:
  const Resolved& resolved_;
  std::vector<std::string> all_;
};

bool writes_quality(const RunSpec& spec, const std::string& suffix) {
  const auto& all = spec.requests.requests;
  if (all.empty()) return suffix != "png";
  for (const auto& r : all) {
    const auto format = media::format_of(r.name);
    if (format == media::Format::kJpeg || format == media::Format::kWebp || format == media::Format::kMp4)
      return true;
  }
  return false;
}

void add_inputs(Notes& notes, const Resolved& r, const RunSpec& spec) {
  const auto& input = r.settings.input;
  const auto& prompts = input.texts_of("prompt");
  const bool by_flag = std::any_of(prompts.begin(), prompts.end(), [](auto& p) { return !p.empty(); });
  notes.add(by_flag, "prompts_file", "is not read: --prompt wins");
  notes.add(by_flag, "dataset_path", "is not read: --prompt wins");
  notes.add(by_flag, "output_name_column", "has no effect: a prompt of the command line has no fields");
  notes.add(is_guidance_idle(spec.model.folder, spec.requests), "guidance_scale",
            "has no effect: this model takes no guidance; --true_cfg_scale weighs a negative prompt");
  notes.add(!spec.model.folder.family().video, "fps", "has no effect: this model draws pictures");
}

void add_layout(Notes& notes, const Resolved& r, const RunSpec& spec) {
  const auto& device = r.settings.device;
  const auto& degrees = spec.layout.degrees;
  notes.add(spec.layout.ranks == 1 && r.settings.backend.use_parallel_vae == true, "use_parallel_vae",
            "has no effect with one rank");
  notes.add(spec.layout.ranks == 1 && r.settings.backend.shard_dit, "shard_dit",
            "has no effect with one rank");
  const bool is_cut = plan::may_code_by_rows(degrees, true);
  for (const char* name : {"enable_vae_tiling", "optimize"}) {
    notes.add(is_cut && r.settings.engine.enable_vae_tiling, name,
              "decodes no tiles: with parallel VAE every rank decodes its rows");
  }
  notes.add(degrees.pipeline == 1, "warmup_steps", "has no effect with one stage");
  for (const char* name : {"warmup_steps", "num_pipeline_patch"})
    notes.add(degrees.pipeline > 1 && degrees.sync, name, "has no effect: every step is whole");
  notes.add(!device.span_nodes, "master_addr", "has no effect without --span_nodes");
  notes.add(!device.span_nodes, "master_port", "has no effect without --span_nodes");
}

}  // namespace

bool is_guidance_idle(const pipeline::ModelRepo& model, const RequestSet& requests) {
  const bool is_embedded = model.denoiser().value(
      "guidance_embeds", model.family().guidance_scale != models::GuidanceScale::kEmbedded);
  return !is_embedded && requests.cfg_source != CfgSource::kGuidance;
}

std::vector<std::string> unused_settings(const Resolved& resolved, const RunSpec& spec) {
  Notes notes(resolved);
  const auto& s = resolved.settings;
  const bool is_cpu = !spec.device.device.is_cuda();
  notes.add(!spec.model.is_from_hub, "revision", "has no effect: only models from the hub have revisions");
  add_inputs(notes, resolved, spec);
  add_layout(notes, resolved, spec);
  const auto& attention = s.engine.attention_backend;
  notes.add(!is_cpu && attention == "xformers", "attention_backend",
            "means this build's memory-efficient attention");
  notes.add(is_cpu && attention != "math" && attention != "sdpa" && attention != "auto" && !attention.empty(),
            "attention_backend", "has no effect on the CPU, which has one attention kernel besides math");
  notes.add(!is_cpu && spec.job.engine.precision.denoiser == "float32" &&
                (attention == "cudnn" || attention == "flash"),
            "attention_backend",
            "has no effect in float32, which that kernel cannot compute; memory-efficient attention runs");
  for (const auto& [name, kind] : {std::pair{"offload", s.engine.offload},
                                   {"enable_cpu_offload", cpu_offload(resolved.surface)},
                                   {"enable_model_cpu_offload", "model"},
                                   {"enable_sequential_cpu_offload", "sequential"},
                                   {"enable_group_offloading", "group"}}) {
    notes.add(is_cpu && kind != "none", name, "has no effect on the CPU: weights are in host memory anyway");
    notes.add(!is_cpu && name != std::string_view("offload"), name, "means --offload " + kind);
  }
  notes.add(spec.layout.degrees.shard > 1 && spec.job.engine.offload != "none", "offload",
            "leaves the denoiser, which is sharded; encoders and VAE are offloaded");
  notes.add(s.engine.shard_t5_encoder && spec.layout.ranks == spec.layout.degrees.data, "shard_t5_encoder",
            "has no effect: every picture is drawn by one rank alone");
  notes.add(is_cpu && s.device.enable_tf32, "enable_tf32", "has no effect on the CPU");
  notes.add(is_cpu && s.engine.enable_compile.value_or(false), "enable_compile",
            "has no effect on the CPU: graphs of kernels are a GPU's");
  notes.add(is_cpu, "gpu_memory_fraction", "has no effect on the CPU");
  notes.add(!writes_quality(spec, s.output.output_format), "quality",
            str("has no effect on ", spec.job.sink.format));
  notes.add(!s.output.resume && s.output.keep_changed, "keep_changed", "has no effect without --resume");
  return notes.take();
}

}  // namespace atelier::app
