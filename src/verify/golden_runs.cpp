#include "verify/golden_runs.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace atelier::verify {
namespace {

constexpr std::string_view kLast = "latents.final", kLeftOut = "no_", kDescribed = "_run";

// "no_negative": what "<run>.latents.final" begins with.
std::set<std::string> names_of_runs(const Tensors& recorded) {
  std::set<std::string> names;
  for (const auto& [name, value] : recorded) {
    if (name.size() > kLast.size() && name.ends_with(str(".", kLast)))
      names.insert(name.substr(0, name.size() - kLast.size() - 1));
  }
  return names;
}

Json call_of(const Json& golden, const std::string& run) {
  Json call = golden.at("call");
  if (const auto differs = golden.find(run + std::string(kDescribed)); differs != golden.end()) {
    call.update(*differs);
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

std::vector<GoldenRun> runs_of(const Json& golden, const Tensors& recorded) {
  if (!golden.contains("call")) throw Error(Kind::kUsage, "golden.json describes no call");
  std::vector<GoldenRun> runs{{"", golden.at("call"), recorded}};
  for (const auto& run : names_of_runs(recorded)) {
    auto& made = runs.emplace_back(GoldenRun{run + ".", call_of(golden, run), {}});
    for (const auto& [name, value] : recorded) {
      if (!name.starts_with(made.prefix)) continue;
      made.recorded[name.substr(made.prefix.size())] = value;
      runs.front().recorded.erase(name);
    }
    if (const auto noise = recorded.find("noise"); noise != recorded.end()) made.recorded.insert(*noise);
  }
  return runs;
}

}  // namespace atelier::verify
