// Running the parts that golden folders record: pipelines, autoencoders, text encoders, schedules,
// tokenizers.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "nn/single_rank.h"
#include "pipeline/device.h"
#include "verify/requests.h"
#include "verify/thread_ranks.h"
#include "verify/verify.h"

namespace atelier::verify {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

void add(Produced& p, const std::string& name, const at::Tensor& value) {
  if (!value.defined()) return;
  p.tensors[name] = value.is_floating_point() ? value.to(at::kCPU, at::kFloat) : value.to(at::kCPU);
  p.order.push_back(name);
}

// Golden tensors have the batch first; ours have tokens first.
bool is_token_major(const std::string& name) {
  if (name.starts_with("block."))
    return name.find("pos_embed") == std::string::npos && name != "block.time_text_embed";
  return name.starts_with("step");
}

// The recorded noise, which must fit the requests.
at::Tensor noise_for(const pipeline::ModelRepo& folder, request::Requests batch, const Tensors& recorded) {
  const auto noise = recorded.find("noise");
  if (noise == recorded.end()) throw Error(Kind::kUsage, "golden.safetensors holds no tensor named noise");
  const int64_t spatial = models::find_vae(folder.vae()).facts(folder.vae()).spatial;
  const auto& r = batch.front();
  const auto grid = folder.family().grid(folder.denoiser(), spatial, *r.height, *r.width, 1);
  const auto sizes = grid.latent(static_cast<int64_t>(batch.size()));
  if (noise->second.sizes() != at::IntArrayRef(sizes)) {
    throw Error(Kind::kUsage, atelier::str("golden.safetensors: noise is ", noise->second.sizes(),
                                           ", but the call of golden.json makes ", at::IntArrayRef(sizes)));
  }
  return noise->second;
}

// What the text encoders take and give: the reference runs them once per prompt, however many pictures it
// gets.
bool is_per_prompt(const std::string& name) {
  const size_t dot = name.find('.');
  const std::string side = name.substr(0, dot);
  if (side != "prompt" && side != "negative") return false;
  const std::string rest = name.substr(dot + 1);
  return rest != "embeds" && rest != "pooled";
}

// The folder of a part, and what builds it whole on one rank.
struct Part {
  nn::SingleRank whole;
  std::unique_ptr<weights::WeightStore> store;
  Json config;
  Part(const fs::path& folder, std::vector<weights::NameRule> (*names)(const Json&))
      : config(read_json(folder / "config.json")) {
    store = weights::WeightStore::open(folder);
    store->adopt(names(config));
  }
  nn::Builder builder(c10::Device device) {
    return whole.builder(*store, at::TensorOptions(at::kFloat).device(device));
  }
};

class PartRecorder : public nn::Recorder {
 public:
  PartRecorder(Produced& out, std::string prefix) : out_(out), prefix_(std::move(prefix)) {}
  void record(std::string_view name, const at::Tensor& value, int) override {
    add(out_, prefix_ + std::string(name), value.narrow(0, 0, 1).clone());  // first picture only
  }

 private:
  Produced& out_;
  std::string prefix_;
};

}  // namespace

Produced produce_pipeline(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  const auto folder = pipeline::ModelRepo::open(o.folder / "model");
  folder.check();
  if (!golden.contains("call"))
    throw Error(Kind::kUsage, str(o.folder.string(), "/golden.json describes no call"));
  auto defaults = folder.defaults();
  defaults.max_sequence_length = 512;  // of the recorded call, whatever the folder's own
  const auto requests = requests_of(golden["call"], defaults, "golden.json");
  pipeline::LoadOptions load;
  load.device = o.device;
  load.denoiser = o.denoiser;
  pipeline::ActivationRecorder collector;
  generate_on_ranks(folder, o.degrees, load, requests, &collector, noise_for(folder, requests, recorded));
  const auto batch = static_cast<int64_t>(requests.size());
  const int64_t each = golden["call"].value("num_images_per_prompt", int64_t{1});
  const auto tensors = collector.tensors();
  Produced out;
  for (const auto& name : collector.names()) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) continue;
    const auto& value = found->second;
    if (is_per_prompt(name))
      add(out, name, value.slice(0, 0, std::nullopt, each));
    else
      add(out, name, is_token_major(name) ? value.transpose(0, 1).contiguous() : value);
  }
  if (const auto t = tensors.find("timesteps"); t != tensors.end()) {
    add(out, "model_timesteps", t->second * folder.family().pipeline_time_scale);
  }
  if (const auto c = out.tensors.find("block.time_text_embed");
      c != out.tensors.end() && c->second.size(0) != batch) {
    c->second = c->second.expand({batch, -1});
  }
  return out;
}

Produced produce_vaes(const VerifyOptions& o, const Json&, const Tensors& recorded) {
  const c10::InferenceMode guard;
  Produced out;
  for (const auto& entry : fs::directory_iterator(o.folder / "model")) {
    const std::string name = entry.path().filename().string(), dot = name + ".";
    Part part(entry.path(), [](const Json& c) { return models::find_vae(c).names(); });
    const auto vae = models::find_vae(part.config).build(part.config, part.builder(o.device));
    part.store->check();
    const auto input = [&](const char* key) {
      const auto t = recorded.find(dot + key);
      return t == recorded.end() ? at::Tensor() : t->second.to(o.device);
    };
    PartRecorder recorder(out, dot + "block.");
    if (const auto z = input("z"); z.defined()) {
      auto call = models::image_call(z.size(2), z.size(3), 1, 0);
      vae->decode(call, z).clone();
      call.probes = &recorder;
      add(out, dot + "decode_slice0", vae->decode(call, z.narrow(0, 0, 1)));
      call.probes = nullptr;
      add(out, dot + "decode", vae->decode(call, z));
      add(out, dot + "decode_tiled", models::decode_tiled(*vae, z));
    }
    if (const auto x = input("x"); x.defined()) {
      const int64_t s = vae->facts().spatial;
      auto call = models::image_call(x.size(2) / s, x.size(3) / s, 1, 0);
      call.probes = &recorder;
      const auto moments = vae->encode(call, x);
      const auto halves = moments.chunk(2, 1);
      add(out, dot + "encode.moments", moments);
      add(out, dot + "encode.mean", halves[0]);
      add(out, dot + "encode.logvar", halves[1].clamp(-30, 20));
      add(out, dot + "encode_tiled.moments", models::encode_tiled(*vae, x));
    }
  }
  return out;
}

Produced produce_encoders(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  const c10::InferenceMode guard;
  Produced out;
  for (const auto& [name, spec] : golden.at("encoders").items()) {
    const std::string dot = name + ".";
    const auto ids = recorded.find(dot + "input_ids");
    const auto config = read_json(o.folder / "model" / name / "config.json");
    bool known = true;
    try {
      models::find_encoder(config);
    } catch (const Error&) {
      known = false;  // its rows will be missing
    }
    if (ids == recorded.end() || !known) continue;
    Part part(o.folder / "model" / name, [](const Json& c) { return models::find_encoder(c).names(); });
    const auto encoder = models::find_encoder(part.config).build(part.config, part.builder(o.device));
    part.store->check();
    // ids come from the texts
    const auto tokenizer = text::open_tokenizer(o.folder / "model" / (name + "_tokenizer"));
    const bool other_texts = name == "mt5" || name == "bert";
    std::vector<at::Tensor> rows, masks;
    for (const auto& t : golden.at(other_texts ? "prompts_mt5_bert" : "prompts")) {
      const auto e = tokenizer->encode(t.get<std::string>(), spec.at("max_length").get<int64_t>());
      rows.push_back(at::tensor(e.ids, at::TensorOptions(at::kLong)));
      masks.push_back(at::tensor(e.mask, at::TensorOptions(at::kLong)));
    }
    const auto our_ids = at::stack(rows), mask = at::stack(masks);
    add(out, dot + "input_ids", our_ids);
    add(out, dot + "mask", mask);
    const bool masked = spec.at("attention_mask_given").get<bool>();
    const auto given = masked ? mask.to(o.device) : at::Tensor();
    const auto e = encoder->encode(our_ids.to(o.device), given);
    for (size_t i = 0; i < e.hidden.size(); ++i) add(out, str(dot, "hidden_states.", i), e.hidden[i]);
    add(out, dot + "last_hidden_state", e.states);
    if (e.pooled.defined()) add(out, dot + "pooler_output", e.pooled);
    if (e.projected.defined()) add(out, dot + "text_embeds", e.projected);
    for (size_t skip = 1; skip + 1 < e.hidden.size() && skip <= 2; ++skip) {
      add(out, str(dot, "skip", skip, "_final_norm"),
          encoder->final_norm(e.hidden[e.hidden.size() - 1 - skip]));
    }
    if (masked) add(out, dot + "last_hidden_state_no_mask", encoder->encode(our_ids.to(o.device), {}).states);
    if (const auto l = recorded.find(dot + "long_ids"); l != recorded.end()) {
      add(out, dot + "long_last_hidden_state",
          encoder->encode(l->second.to(o.device), {}).states.slice(1, 0, std::nullopt, 8));
    }
  }
  return out;
}

Produced produce_schedules(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  const c10::InferenceMode guard;
  Produced out;
  for (const auto& [name, spec] : golden.at("schedulers").items()) {
    const auto config = read_json(o.folder / spec.at("config").get<std::string>());
    for (const auto& [count, call] : spec.at("set_timesteps").items()) {
      sampling::Call c{.steps = std::stoi(count), .linear_sigmas = call.contains("sigmas")};
      if (call.contains("mu")) c.mu = call["mu"].get<double>();
      std::unique_ptr<sampling::Sampler> sampler;
      try {
        sampler = sampling::make_sampler(config, c);
      } catch (const Error&) {
        break;  // a scheduler this build lacks: its rows are missing
      }
      const std::string dot = str(name, ".", count, ".");
      const auto numbers = [](std::span<const float> v) {
        return at::tensor(at::ArrayRef<float>(v.data(), v.size()));
      };
      add(out, dot + "timesteps", numbers(sampler->timesteps()));
      add(out, dot + "sigmas", numbers(sampler->sigmas()));
      add(out, dot + "init_noise_sigma", at::full({1}, sampler->init_noise_sigma()));
      const auto path = recorded.find(dot + "x");
      const auto start =
          recorded.find("x0") != recorded.end() ? recorded.find("x0") : recorded.find(dot + "noise");
      if (path == recorded.end() || start == recorded.end()) continue;
      auto x = start->second * sampler->init_noise_sigma();
      if (x.dim() < path->second.dim() - 1) x = x.reshape(path->second.sizes().slice(1));
      std::vector<at::Tensor> all;
      for (int i = 0; i < c.steps; ++i) {
        const double t = sampler->timesteps()[static_cast<size_t>(i)];
        x = sampler->step(0.1 * x + std::sin(0.01 * t), i, x);
        all.push_back(x);
      }
      add(out, dot + "x", at::stack(all));
    }
  }
  return out;
}

Comparison verify_tokenizers(const VerifyOptions& o, const Json& golden) {
  Comparison result;
  for (const auto& [name, spec] : golden.at("tokenizers").items()) {
    for (const bool padded : {false, true}) {
      const std::string file = name + (padded ? ".padded.jsonl" : ".jsonl");
      bool skip = !o.only.empty();
      for (const auto& glob : o.only) skip = skip && !glob_matches(glob, file) && !glob_matches(glob, name);
      std::ifstream in(o.folder / file);
      if (skip || !in) continue;
      const auto tokenizer = text::open_tokenizer(o.folder / "model" / name);
      const auto length = spec.at("max_length").get<int64_t>();
      int64_t total = 0, wrong = 0;
      std::string line, first;
      while (std::getline(in, line)) {
        const auto row = Json::parse(line);
        const auto text = row.at("text").get<std::string>();
        const auto want = row.at("ids").get<std::vector<int64_t>>();
        const auto whole = tokenizer->ids(text);
        const bool cut = padded || static_cast<int64_t>(whole.size()) > length;
        const auto got = cut ? tokenizer->encode(text, length).ids : whole;
        ++total;
        if (got != want && wrong++ == 0) first = text.substr(0, 30);
      }
      ComparisonRow r{file,
                      str("[", total, "]"),
                      wrong ? str(wrong, " texts differ, the first: ", first) : "every text equal",
                      0,
                      0,
                      Verdict::kPass};
      if (wrong || total == 0) r.verdict = Verdict::kFail;
      result.rows.push_back(r);
    }
  }
  return result;
}

}  // namespace atelier::verify
