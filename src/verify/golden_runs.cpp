#include "verify/golden_runs.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "base/error.h"
#include "request/adapters.h"
#include "sampling/choice.h"

namespace atelier::verify {
namespace {

constexpr std::string_view kLast = "latents.final", kLeftOut = "no_", kDescribed = "_run",
                           kMerged = "merged.", kPlain = "plain";

// "no_negative": what "<run>.latents.final" begins with.
std::set<std::string> names_of_runs(const Tensors& recorded) {
  std::set<std::string> names;
  for (const auto& [name, value] : recorded) {
    if (name.size() > kLast.size() && name.ends_with(str(".", kLast)))
      names.insert(name.substr(0, name.size() - kLast.size() - 1));
  }
  return names;
}

// The call itself, whose pictures have generators of their own with seeds one after another.
Json seeded_call(const Json& golden) {
  Json call = golden.at("call");
  if (const auto seed = golden.find("seed_noise"); seed != golden.end() && !call.contains("seed"))
    call["seed"] = *seed;
  return call;
}

// The short name of the sampler that a run is named after; empty: of none.
std::string sampler_of(const Json& golden, const std::string& run) {
  const bool flow = golden.contains("flow_shift");
  const auto names = sampling::sampler_names(flow);
  for (const auto& name : {run, "flow_" + run}) {
    if (std::find(names.begin(), names.end(), name) != names.end()) return name;
  }
  return {};
}

// What "noise[:, :, 1:]" says of frames in front that a run does without.
int64_t left_out_frames(const Json& golden, const std::string& run) {
  const auto described = golden.find(run + std::string(kDescribed));
  if (described == golden.end() || !described->contains("noise")) return 0;
  static const std::regex form(R"(noise\[:, :, ([0-9]{1,4}):\])");
  const auto text = described->at("noise").get<std::string>();
  std::smatch found;
  if (std::regex_match(text, found, form)) return std::stoll(found[1]);
  throw Error(Kind::kUsage, str("golden.json: ", run, kDescribed, " has the noise ", text,
                                "; only noise[:, :, N:] is understood"));
}

Json call_of(const Json& golden, const std::string& run) {
  Json call = seeded_call(golden);
  if (golden.contains("runs") && golden.at("runs").contains(run)) {  // the same call with an adapter
    Json names = Json::array();
    for (const auto& ref : adapters_of(golden, run)) names.push_back(request::to_string(ref));
    if (!names.empty()) call["lora"] = std::move(names);
    const auto& described = golden.at("runs").at(run);
    if (described.contains("control_video")) call["control_video"] = described.at("control_video");
    return call;
  }
  if (run == kPlain) {
    for (const char* shown : {"mask", "reference_images", "image", "last_image"}) call.erase(shown);
  }
  if (const auto differs = golden.find(run + std::string(kDescribed)); differs != golden.end()) {
    call.update(*differs);
    call.erase("pipeline");
    call.erase("noise");
    return call;
  }
  if (const auto sampler = sampler_of(golden, run); !sampler.empty()) {
    call["sampler"] = sampler;
    return call;
  }
  if (!run.starts_with(kLeftOut)) {
    throw Error(Kind::kUsage,
                str("golden.safetensors holds tensors of a run ", run, ", but golden.json has no ", run,
                    kDescribed, " that says how it was called"));
  }
  Json rest = Json::object();
  for (const auto& [name, value] : call.items()) {
    if (!name.starts_with(run.substr(kLeftOut.size()))) rest[name] = value;
  }
  return rest;
}

}  // namespace

std::vector<request::AdapterRef> adapters_of(const Json& golden, const std::string& run) {
  const Json& described = golden.at("runs").at(run);
  const auto list = [&](const char* key) {
    const Json& value = described.at(key);
    return value.is_array() ? value : value.is_null() ? Json::array() : Json::array({value});
  };
  const Json paths = list("adapter"), scales = list("scale");
  std::vector<request::AdapterRef> out;
  for (size_t i = 0; i < paths.size(); ++i)
    out.push_back({paths.at(i).get<std::string>(), scales.at(i).get<double>(), true});
  return out;
}

std::vector<GoldenRun> runs_of(const Json& golden, const Tensors& recorded) {
  if (!golden.contains("call")) throw Error(Kind::kUsage, "golden.json describes no call");
  std::vector<GoldenRun> runs{{"", seeded_call(golden), recorded}};
  for (const auto& run : names_of_runs(recorded)) {
    auto& made = runs.emplace_back(GoldenRun{run + ".", call_of(golden, run), {}});
    for (const auto& [name, value] : recorded) {
      if (!name.starts_with(made.prefix)) continue;
      made.recorded[name.substr(made.prefix.size())] = value;
      runs.front().recorded.erase(name);
    }
    if (const auto noise = recorded.find("noise"); noise != recorded.end()) {
      const auto frames = left_out_frames(golden, run);
      made.recorded.emplace("noise", frames > 0 ? noise->second.slice(2, frames) : noise->second);
    }
  }
  std::erase_if(runs.front().recorded, [](const auto& t) { return t.first.starts_with(kMerged); });
  return runs;
}

std::vector<MergedWeight> merged_of(const Json& golden, const Tensors& recorded) {
  std::vector<MergedWeight> out;
  for (const auto& [name, value] : recorded) {
    if (!name.starts_with(kMerged)) continue;
    const std::string rest = name.substr(kMerged.size());
    MergedWeight made{.name = name};
    for (const auto& [run, described] : golden.at("runs").items()) {  // "lora_0.6" has a dot of its own
      if (rest.starts_with(run + ".") && run.size() >= made.run.size()) made.run = run;
    }
    const size_t dot = made.run.empty() ? rest.npos : rest.find('.', made.run.size() + 1);
    if (dot == rest.npos)
      throw Error(Kind::kUsage, str("golden.safetensors: ", name, " belongs to no run of golden.json"));
    made.component = rest.substr(made.run.size() + 1, dot - made.run.size() - 1);
    made.tensor = rest.substr(dot + 1);
    out.push_back(std::move(made));
  }
  return out;
}

}  // namespace atelier::verify
