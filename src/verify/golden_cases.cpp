// Running the parts that golden folders record: autoencoders, text encoders, schedulers, tokenizers.
#include "verify/golden_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/parse_json.h"
#include "base/text.h"
#include "models/text_encoder.h"
#include "nn/single_rank.h"
#include "sampling/sampler.h"
#include "text/tokenizer.h"
#include "verify/expression.h"
#include "verify/golden_part.h"
#include "verify/golden_vaes.h"
#include "verify/requests.h"

namespace atelier::verify {
namespace {

namespace fs = std::filesystem;

at::Tensor numbers(std::span<const float> v) {
  return at::tensor(at::ArrayRef<float>(v.data(), v.size()));
}

// The texts that an encoder got: its own, or those of a list "prompts_A_B" that names it, or everybody's.
Json prompts_of(const Json& golden, const Json& spec, const std::string& encoder) {
  if (spec.contains("prompts")) return spec["prompts"];
  for (const auto& [key, list] : golden.items()) {
    if (key.starts_with("prompts_") && (key.substr(7) + "_").find("_" + encoder + "_") != std::string::npos)
      return list;
  }
  return golden.at("prompts");
}

// Every k of the recorded "<dot>skip<k>_final_norm".
std::vector<size_t> skips_of(const Tensors& recorded, const std::string& dot) {
  std::vector<size_t> skips;
  for (auto at = recorded.lower_bound(dot + "skip");
       at != recorded.end() && at->first.starts_with(dot + "skip"); ++at) {
    const auto digits = at->first.substr(dot.size() + 4);
    if (!digits.ends_with("_final_norm") || digits.find_first_not_of("0123456789") != digits.find('_'))
      continue;
    if (const auto skip = to_integer(std::string_view(digits).substr(0, digits.find('_'))))
      skips.push_back(static_cast<size_t>(*skip));
  }
  return skips;
}

void produce_encoder(const VerifyOptions& o, const Json& golden, const std::string& name, const Json& spec,
                     const Tensors& recorded, Produced& out) {
  const std::string dot = name + ".";
  CallArguments arguments(spec, str("golden.json: encoder ", name));
  const auto length = arguments.take<int64_t>("max_length", 0);
  const bool masked = arguments.take("attention_mask_given", false);
  const auto tokenizer_class = arguments.take<std::string>("tokenizer_class", "");
  for (const char* only_said : {"model_class", "note", "prompts"}) arguments.find(only_said);
  GoldenPart part(o.folder / "model" / name, [](const Json& c) { return models::find_encoder(c).names(); });
  arguments.finish();
  nn::SingleRank whole;
  const auto encoder =
      models::find_encoder(part.config)
          .build(part.config, whole.builder(*part.store, at::TensorOptions(at::kFloat).device(o.device)));
  part.store->check();
  const auto tokenizer = text::open_tokenizer(o.folder / "model" / (name + "_tokenizer"), tokenizer_class);
  std::vector<at::Tensor> rows, masks;
  for (const auto& t : prompts_of(golden, spec, name)) {
    const auto e = tokenizer->encode(t.get<std::string>(), length);
    rows.push_back(at::tensor(e.ids, at::TensorOptions(at::kLong)));
    masks.push_back(at::tensor(e.mask, at::TensorOptions(at::kLong)));
  }
  const auto ids = at::stack(rows), mask = at::stack(masks);
  out.add(dot + "input_ids", ids);
  out.add(dot + "mask", mask);
  const auto e = encoder->encode(ids.to(o.device), masked ? mask.to(o.device) : at::Tensor());
  for (size_t i = 0; i < e.hidden.size(); ++i) out.add(str(dot, "hidden_states.", i), e.hidden[i]);
  out.add(dot + "last_hidden_state", e.states);
  out.add(dot + "pooler_output", e.pooled);
  out.add(dot + "text_embeds", e.projected);
  for (const size_t skip : skips_of(recorded, dot)) {
    if (skip >= e.hidden.size()) continue;
    out.add(str(dot, "skip", skip, "_final_norm"), encoder->final_norm(e.hidden[e.hidden.size() - 1 - skip]));
  }
  if (masked) out.add(dot + "last_hidden_state_no_mask", encoder->encode(ids.to(o.device), {}).states);
  const auto *long_ids = find(recorded, dot + "long_ids"),
             *sparse = find(recorded, dot + "long_last_hidden_state");
  if (long_ids && sparse) {  // some of its tokens are recorded, evenly
    const int64_t every = (long_ids->size(1) + sparse->size(1) - 1) / sparse->size(1);
    out.add(dot + "long_last_hidden_state",
            encoder->encode(long_ids->to(o.device), {}).states.slice(1, 0, std::nullopt, every));
  }
}

Produced produce_encoders(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  Produced out;
  for (const auto& [name, spec] : golden.at("encoders").items()) {
    try {
      models::find_encoder(read_json(o.folder / "model" / name / "config.json"));
    } catch (const Error&) {
      continue;  // a class this build lacks: its rows will be missing
    }
    produce_encoder(o, golden, name, spec, recorded, out);
  }
  return out;
}

sampling::Call scheduler_call(int steps, const Json& said, const std::string& where) {
  CallArguments arguments(said, where);
  sampling::Call call{.steps = arguments.take("num_inference_steps", steps),
                      .begin = arguments.take("begin", 0),
                      .eta = arguments.take("eta", 0.0)};
  const Json* sigmas = arguments.find("sigmas");
  call.linear_sigmas = sigmas && *sigmas == "linspace(1, 1/n, n)";
  if (sigmas && !call.linear_sigmas) {
    if (!sigmas->is_array())
      throw Error(Kind::kUsage, str(where, ": sigmas ", sigmas->dump(),
                                    " are not understood; known are lists and linspace(1, 1/n, n)"));
    call.sigmas = sigmas->get<std::vector<double>>();
  }
  call.timesteps = arguments.take("timesteps", std::vector<double>());
  if (const Json* mu = arguments.find("mu")) call.mu = mu->get<double>();
  arguments.finish();
  return call;
}

// What a trajectory starts from and is shaken by.
struct Walked {
  at::Tensor start;
  const at::Tensor* noise;  // [steps, ...]: drawn by each step; null: by none
  at::IntArrayRef sizes;    // of the start
};

// Latents after every step, [steps, ...].
at::Tensor trajectory(sampling::Sampler& sampler, const Expression& model, const Walked& walked,
                      const std::string& name) {
  auto x = walked.start.reshape(walked.sizes);
  std::vector<at::Tensor> all;
  for (size_t i = 0; i < sampler.steps().size(); ++i) {
    const auto& step = sampler.steps()[i];
    const auto t = at::full({}, step.time, at::TensorOptions(at::kFloat));
    at::Tensor drawn;
    if (step.draws_noise) {
      if (!walked.noise || walked.noise->size(0) <= static_cast<int64_t>(i))
        throw Error(Kind::kUsage, str(name, ": step ", i, " draws noise, but none is recorded"));
      drawn = walked.noise->select(0, static_cast<int64_t>(i));
    }
    const auto prediction = model({{"x", x}, {"x_in", x / step.input_divisor}, {"t", t}}).expand_as(x);
    x = sampler.step(prediction, static_cast<int>(i), x, drawn);
    all.push_back(x);
  }
  return at::stack(all);
}

// The path of one sampler, and what begins it where it begins at a later step.
void walk(const std::string& dot, sampling::Sampler& sampler, const Expression& model,
          const Tensors& recorded, Produced& out) {
  const auto *path = find(recorded, dot + "x"), *noise = find(recorded, dot + "noise");
  const auto *picture = find(recorded, "x0"), *added = find(recorded, dot + "start_noise");
  if (!picture) picture = noise;
  if (!path || !picture) return;
  const auto sizes = path->sizes().slice(1);
  auto start = *picture * sampler.init_noise_sigma();
  if (added) {
    start = sampler.add_noise(*picture, *added, 0);
    out.add(dot + "start", start);
  }
  const bool drawn = noise && noise->sizes() != sizes && noise != picture;
  out.add(dot + "x", trajectory(sampler, model, {start, drawn ? noise : nullptr, sizes}, dot + "x"));
}

Produced produce_schedules(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  Produced out;
  std::optional<Expression> model;  // only folders with trajectories have one
  if (golden.contains("model_function")) model.emplace(golden["model_function"].get<std::string>());
  for (const auto& [name, spec] : golden.at("schedulers").items()) {
    const auto config = read_json(o.folder / spec.at("config").get<std::string>());
    for (const auto& [count, said] : spec.at("set_timesteps").items()) {
      const std::string dot = str(name, ".", count, ".");
      constexpr int64_t kMostSteps = 1'000'000;
      const auto steps = to_integer(count);
      if (!steps || *steps < 1 || *steps > kMostSteps)
        throw Error(Kind::kUsage, str("golden.json: ", name, ": set_timesteps has the key \"", count,
                                      "\", which is no number of steps"));
      const auto call =
          scheduler_call(static_cast<int>(*steps), said, str("golden.json: ", name, ", ", count, " steps"));
      std::unique_ptr<sampling::Sampler> sampler;
      try {
        sampler = sampling::make_sampler(config, call);
      } catch (const Error& e) {
        if (e.kind() != Kind::kCheckpoint) throw;
        out.refused[dot] = e.what();  // a scheduler or an option that this build lacks: its rows are missing
        continue;
      }
      out.add(dot + "timesteps", numbers(sampling::times(*sampler)));
      out.add(dot + "sigmas", numbers(sampler->sigmas()));
      out.add(dot + "init_noise_sigma", at::full({1}, sampler->init_noise_sigma()));
      if (!find(recorded, dot + "x")) continue;
      if (!model) throw Error(Kind::kUsage, "golden.json has trajectories, but no model_function");
      walk(dot, *sampler, *model, recorded, out);
    }
  }
  return out;
}

}  // namespace

void Produced::add(const std::string& name, const at::Tensor& value) {
  if (!value.defined()) return;
  auto here = value.is_floating_point() ? value.to(at::kCPU, at::kFloat) : value.to(at::kCPU);
  if (tensors.insert_or_assign(name, std::move(here)).second) order.push_back(name);
}

GoldenKind kind_of(const Json& golden) {
  if (golden.contains("tokenizers")) return GoldenKind::kTokenizers;
  if (golden.contains("encoders")) return GoldenKind::kEncoders;
  if (golden.contains("schedulers")) return GoldenKind::kSchedulers;
  if (golden.value("family", "") == "vae") return GoldenKind::kVaes;
  const bool is_pipeline = golden.contains("pipeline") && !golden["pipeline"].is_null();
  return golden.contains("tiling") && !is_pipeline ? GoldenKind::kVaes : GoldenKind::kPipeline;
}

Produced produce(GoldenKind kind, const VerifyOptions& options, const Json& golden, const Tensors& recorded) {
  const c10::InferenceMode guard;
  switch (kind) {
    case GoldenKind::kVaes:
      return produce_vaes(options, golden, recorded);
    case GoldenKind::kEncoders:
      return produce_encoders(options, golden, recorded);
    default:
      return produce_schedules(options, golden, recorded);
  }
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
      const auto classes = spec.value("classes", Json::object());
      const auto tokenizer =
          text::open_tokenizer(o.folder / "model" / name, classes.value("ids", std::string()));
      const Json& most = spec.at("max_length");
      if (!most.is_number_integer())
        throw Error(Kind::kUsage, str(name, ": max_length must be a whole number, found ", most.dump()));
      const auto length = most.get<int64_t>();
      int64_t total = 0, wrong = 0;
      std::string line, first;
      while (std::getline(in, line)) {
        const auto row = parse_json(line);
        if (!row.is_object()) throw Error(Kind::kUsage, str(file, ": a line is no JSON object"));
        const auto text = row.at("text").get<std::string>();
        const auto want = row.at("ids").get<std::vector<int64_t>>();
        const auto whole = tokenizer->ids(text);
        const bool cut = padded || static_cast<int64_t>(whole.size()) > length;
        const auto got = cut ? tokenizer->encode(text, length).ids : whole;
        ++total;
        if (got != want && wrong++ == 0) first = text.substr(0, 30);
      }
      ComparisonRow r{.name = file,
                      .shape = str("[", total, "]"),
                      .note = wrong ? str(wrong, " texts differ, the first: ", first) : "every text equal"};
      if (wrong || total == 0) r.verdict = Verdict::kFail;
      result.rows.push_back(r);
    }
  }
  return result;
}

}  // namespace atelier::verify
