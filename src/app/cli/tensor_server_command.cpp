// atelier tensor_server: a loaded model for a program that calls it over a socket. Not for people: ComfyUI's
// nodes start it.
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/interrupt.h"
#include "app/run/run_spec.h"
#include "app/run/seeds.h"
#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "cluster/tensor_server.h"
#include "models/vae.h"

namespace atelier::app {
namespace {

int socket_of(const Parsed& parsed) {
  const auto given = parsed.values.find("fd");
  int fd = -1;
  if (given != parsed.values.end())
    std::from_chars(given->second.data(), given->second.data() + given->second.size(), fd);
  if (fd < 0) throw Error(Kind::kUsage, "tensor_server is started by other programs, with a socket; use t2i");
  cluster::keep_from_children(fd);
  return fd;
}

// Rows of one drawing; a seed that nobody gave is random.
std::vector<request::Request> requests_of(const Resolved& resolved, const pipeline::ModelRepo& model,
                                          const Json& rows) {
  const char* const suffix = model.draws_videos() ? ".webp" : ".png";
  auto set = make_requests(resolved, model, request::parse_prompts(rows.dump(), "rows.json"), suffix);
  if (!set.bad.empty()) throw Error(Kind::kUsage, set.bad.front().reason);
  return with_seeds(set.requests);
}

Json hello_of(const RunSpec& spec) {
  const auto& folder = spec.model.folder;
  Json vae;
  if (folder.has("vae")) {
    const auto facts = models::find_vae(folder.vae()).facts(folder.vae());
    vae = {{"spatial", facts.spatial}, {"temporal", facts.temporal}, {"channels", facts.latent_channels}};
  }
  return {{"is", "hello"},
          {"version", kVersion},
          {"model", spec.model.name},
          {"family", std::string(folder.family().name)},
          {"folder", spec.model.spec.folder.string()},
          {"config", folder.denoiser()},
          {"vae", vae},
          {"parts", spec.model.spec.parts},
          {"ranks", spec.layout.ranks},
          {"layout", plan::product(spec.layout.degrees)},
          {"device", spec.job.engine.device},
          {"dtype", spec.job.engine.precision.denoiser}};
}

}  // namespace

int tensor_server_command(const Arguments& arguments) {
  const FlagSet set{.surface = kT2i,
                    .name = "tensor_server",
                    .about = "Answers calls on tensors over a socket. Started by other programs.",
                    .unused = {},
                    .why = "",
                    .values = {{"fd"}, {"parts"}}};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const int fd = socket_of(parsed);
  const Environment variables = environment();
  const auto resolved = resolve(kT2i, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  const Interrupt interrupt;
  const auto parts = parsed.values.find("parts");
  auto model = find_model(
      resolved, variables, [](const std::string& line) { log::info(line); }, interrupt.token(),
      parts == parsed.values.end() ? "all" : parts->second);
  const auto spec = make_served_spec(resolved, std::move(model));
  for (const auto& warning : spec.layout.warnings) log::warning(warning);
  cluster::TensorServer server(spec.job, cluster::Descriptor(fd), [&](const Json& rows) {
    return requests_of(resolved, spec.model.folder, rows);
  });
  server.run(hello_of(spec), interrupt.token());
  return 0;
}

}  // namespace atelier::app
