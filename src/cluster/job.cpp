#include "cluster/job.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "plan/route.h"

namespace atelier::cluster {
namespace {

at::ScalarType dtype_named(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name == "float64") return at::kDouble;
  throw Error(Kind::kUsage, str("unknown dtype ", name, "; known are float32, bfloat16 and float16"));
}

}  // namespace

pipeline::ModelRepo open_model(const ModelSpec& spec) {
  if (!spec.preset.empty()) return pipeline::ModelRepo::dummy(spec.preset, spec.dummy_seed);
  if (!spec.single_file.empty()) return pipeline::ModelRepo::open_single_file(spec.single_file, spec.folder);
  return pipeline::ModelRepo::open(spec.folder);
}

pipeline::LoadOptions load_options(const Job& job, c10::Device device) {
  pipeline::LoadOptions o;
  o.device = device;
  o.denoiser = dtype_named(job.denoiser_dtype);
  o.encoders = dtype_named(job.encoder_dtype);
  o.vae = dtype_named(job.vae_dtype);
  o.vae_slicing = job.vae_slicing;
  o.vae_tiling = job.vae_tiling;
  o.graphs = job.graphs && device.is_cuda() ? pipeline::GraphMode::kOn : pipeline::GraphMode::kOff;
  return o;
}

pipeline::Request request_of(const Job& job, const std::vector<request::Item>& items) {
  pipeline::Request r;
  for (const auto& item : items) {
    if (!item.height || !item.width || !item.steps || !item.guidance || !item.seed) {
      throw Error(Kind::kUsage, str(item.name, ": size, steps, guidance or seed is not resolved"));
    }
    r.prompts.push_back(item.prompt);
    r.seeds.push_back(*item.seed);
    if (item.has_negative && job.true_cfg > 1) r.negatives.push_back(item.negative_prompt);
  }
  if (!r.negatives.empty() && r.negatives.size() != r.prompts.size()) {
    throw Error(Kind::kUsage, "a batch mixes pictures with and without a negative prompt");
  }
  const auto& first = items.front();
  r.height = *first.height, r.width = *first.width, r.steps = *first.steps;
  r.guidance = *first.guidance;
  r.true_cfg = job.true_cfg;
  r.max_sequence_length = job.max_sequence_length;
  return r;
}

Json to_json(const Job& j) {
  const auto& d = j.degrees;
  return {{"model",
           {{"folder", j.model.folder.string()},
            {"single_file", j.model.single_file.string()},
            {"preset", j.model.preset},
            {"dummy_seed", j.model.dummy_seed}}},
          {"device", j.device},
          {"denoiser_dtype", j.denoiser_dtype},
          {"encoder_dtype", j.encoder_dtype},
          {"vae_dtype", j.vae_dtype},
          {"attention", j.attention},
          {"vae_slicing", j.vae_slicing},
          {"vae_tiling", j.vae_tiling},
          {"tf32", j.tf32},
          {"graphs", j.graphs},
          {"debug", j.debug},
          {"degrees",
           {{"data", d.data},
            {"guidance", d.cfg},
            {"stages", d.pipeline},
            {"ring", d.ring},
            {"ulysses", d.ulysses},
            {"tensor", d.tensor},
            {"patches", d.patches},
            {"warmup", d.warmup},
            {"sync", d.sync},
            {"parallel_vae", d.parallel_vae},
            {"shard", d.shard}}},
          {"stage_blocks", j.stage_blocks},
          {"true_cfg", j.true_cfg},
          {"max_sequence_length", j.max_sequence_length},
          {"output", j.output.string()},
          {"format", static_cast<int>(j.format)},
          {"quality", j.quality},
          {"max_retries", j.max_retries},
          {"item_timeout_s", j.item_timeout_s},
          {"start_timeout_s", j.start_timeout_s}};
}

Job job_from_json(const Json& json) {
  try {
    Job j;
    const auto& m = json.at("model");
    j.model = {m.at("folder").get<std::string>(), m.at("single_file").get<std::string>(),
               m.at("preset").get<std::string>(), m.at("dummy_seed").get<uint64_t>()};
    json.at("device").get_to(j.device);
    json.at("denoiser_dtype").get_to(j.denoiser_dtype);
    json.at("encoder_dtype").get_to(j.encoder_dtype);
    json.at("vae_dtype").get_to(j.vae_dtype);
    json.at("attention").get_to(j.attention);
    json.at("vae_slicing").get_to(j.vae_slicing);
    json.at("vae_tiling").get_to(j.vae_tiling);
    json.at("tf32").get_to(j.tf32);
    json.at("graphs").get_to(j.graphs);
    json.at("debug").get_to(j.debug);
    const auto& d = json.at("degrees");
    d.at("data").get_to(j.degrees.data), d.at("guidance").get_to(j.degrees.cfg);
    d.at("stages").get_to(j.degrees.pipeline), d.at("ring").get_to(j.degrees.ring);
    d.at("ulysses").get_to(j.degrees.ulysses), d.at("tensor").get_to(j.degrees.tensor);
    d.at("patches").get_to(j.degrees.patches), d.at("warmup").get_to(j.degrees.warmup);
    d.at("sync").get_to(j.degrees.sync), d.at("parallel_vae").get_to(j.degrees.parallel_vae);
    d.at("shard").get_to(j.degrees.shard);
    json.at("stage_blocks").get_to(j.stage_blocks);
    json.at("true_cfg").get_to(j.true_cfg);
    json.at("max_sequence_length").get_to(j.max_sequence_length);
    j.output = json.at("output").get<std::string>();
    j.format = static_cast<media::Format>(json.at("format").get<int>());
    json.at("quality").get_to(j.quality);
    json.at("max_retries").get_to(j.max_retries);
    json.at("item_timeout_s").get_to(j.item_timeout_s);
    json.at("start_timeout_s").get_to(j.start_timeout_s);
    return j;
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str("a worker's job cannot be read: ", e.what()));
  }
}

}  // namespace atelier::cluster
