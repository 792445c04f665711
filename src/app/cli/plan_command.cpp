// atelier plan: what layouts would take and hold, before anything is drawn.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/capacity.h"
#include "app/run/plan_query.h"
#include "app/run/plan_report.h"
#include "app/run/run_spec.h"
#include "app/run/time_layout.h"
#include "app/settings/command_text.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"
#include "pipeline/tier.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

constexpr size_t kShown = 5, kMeasured = 3;
constexpr int kLeastCapability = 75;  // of GPUs that CUDA 13 has code for
constexpr double kGiga = 1e9;

std::string command_line(const Resolved& resolved, const plan::ParallelConfig& degrees) {
  return command_text(
      resolved,
      {{"num_gpus", {std::to_string(plan::world_size(degrees))}}, {"strategy", {plan::to_string(degrees)}}},
      layout_flags());
}

plan::Hardware hardware_asked(const Parsed& parsed, const DeviceChoice& device) {
  const auto value = [&](const char* name) {
    const auto at = parsed.values.find(name);
    return at == parsed.values.end() ? std::string() : at->second;
  };
  std::optional<plan::Hardware> hardware;
  if (const auto name = value("hardware"); !name.empty()) {
    hardware = hardware_named(name);
    if (hardware->capability < kLeastCapability)
      log::warning(
          str("this program has no code for a ", hardware->name,
              ": CUDA 13 ended compute capability below 7.5; the plan is what its data sheet gives"));
  } else {
    hardware = hardware_here(device);
  }
  if (!hardware) {
    hardware = plan::hardware_presets().front();
    log::warning(str("planned for the ", hardware->name,
                     device.device.is_cuda() ? ": nobody has measured this GPU" : ": there is no GPU here",
                     "; --hardware names another, --device cpu plans ranks on this CPU"));
  }
  if (const auto links = value("links"); !links.empty())
    hardware->links = plan::links_named(links, *hardware);
  if (const auto rate = value("link_gbps"); !rate.empty()) {
    const auto gbps = to_number(rate);
    if (!gbps || *gbps <= 0)
      throw Error(Kind::kUsage, str("--link_gbps ", rate, ": GB/s, above 0, are needed"));
    hardware->links = plan::at_measured_rate(hardware->links, *gbps * kGiga);
  }
  return *hardware;
}

bool has_prompts(const Resolved& resolved) {
  const auto& input = resolved.settings.input;
  return !input.texts_of("prompt").empty() || !input.prompts_file.empty() || !input.dataset_path.empty();
}

RunSpec question_of(const Resolved& resolved, const Environment& variables, bool is_for_gpus) {
  auto model = find_model(resolved, variables, [](const std::string&) {}, {});
  auto facts = model.folder.check();
  auto work = pipeline::model_work(model.folder);
  RunSpec spec{.model = std::move(model), .facts = std::move(facts), .work = std::move(work)};
  spec.device = choose_device(resolved.settings.device.device, pipeline::cuda_devices());
  if (is_for_gpus && !spec.device.device.is_cuda()) spec.device.device = c10::Device(c10::kCUDA);
  spec.requests = make_requests(
      resolved, spec.model.folder, has_prompts(resolved) ? read_prompts(resolved) : request::one_prompt("-"),
      spec.model.folder.draws_videos() ? ".webp" : ".png", {.is_probe = !has_prompts(resolved)});
  for (const auto& bad : spec.requests.bad) log::warning(bad.where + ": " + bad.reason);
  if (spec.requests.requests.empty()) throw Error(Kind::kUsage, "nothing to plan: no row can be drawn");
  return spec;
}

// Degrees that are asked for, if any are: "a | b" are several, of which what is settled once takes the first.
std::vector<plan::ParallelConfig> take_layouts(Resolved& of) {
  std::vector<plan::ParallelConfig> out;
  auto resolved = of;
  for (const auto& text : plan::split_strategies(resolved.settings.backend.strategy)) {
    resolved.settings.backend.strategy = text;
    out.push_back(degrees_of(resolved));
  }
  of.settings.backend.strategy = plan::split_strategies(of.settings.backend.strategy).front();
  const bool is_none =
      resolved.settings.backend.strategy.empty() && out.size() == 1 && plan::world_size(out[0]) == 1;
  return is_none ? std::vector<plan::ParallelConfig>() : out;
}

int ranks_of(const Resolved& resolved, const std::vector<plan::ParallelConfig>& asked, int devices) {
  if (const int ranks = asked_ranks(resolved); ranks > 0) {
    constexpr int kMost = 4096;
    if (ranks > kMost)
      throw Error(Kind::kUsage, str("plan: ", ranks, " GPUs were asked for; it looks at up to ", kMost));
    return ranks;
  }
  if (!asked.empty()) return plan::world_size(asked.front());
  if (devices > 0) return devices;
  throw Error(Kind::kUsage, "plan needs a number of GPUs: --num_gpus N");
}

[[noreturn]] void refuse_all(const PlanReport& r, const Resolved& resolved) {
  std::string ways;
  for (const auto& way : ways_to_fit(r.query, r.ranks))
    ways += (ways.empty() ? "" : ", or ") + command_text(resolved, way, layout_flags());
  const auto& p = *std::min_element(r.layouts.begin(), r.layouts.end(), [](const auto& a, const auto& b) {
    return a.most().total() < b.most().total();
  });
  throw Error(Kind::kCapacity,
              str("no layout of ", r.ranks, r.ranks == 1 ? " GPU" : " GPUs", " fits in the ",
                  report::bytes_text(r.query.room), " of a ", r.query.hardware.name, ": ",
                  plan::to_string(p.degrees), " comes nearest, and rank ", plan::fullest(p.ranks),
                  " would hold ", report::bytes_text(p.most().total()), " (", plan::in_words(p.most()), "); ",
                  ways.empty() ? "take GPUs with more memory, or a smaller picture" : "try " + ways));
}

// A layout to draw with, and what was predicted of it; 0: nothing.
struct Candidate {
  plan::ParallelConfig degrees;
  double modelled_ms = 0;
};

// What is measured is this machine. Throws Error(kUsage) where the plan is about another.
void check_measurable(const plan::Hardware& planned, const DeviceChoice& device) {
  const auto here = hardware_here(device);
  if (here && here->name == planned.name) return;
  throw Error(Kind::kUsage,
              str("--measure draws on this machine, which has no ", planned.name,
                  ": leave it out, or plan for what is here (--device cpu: ranks on this CPU)"));
}

// Draws with each of them; the one that drew most pictures per second comes first.
Json measure(const std::vector<Candidate>& candidates, Resolved resolved, const Environment& variables) {
  const Interrupt interrupt;
  if (!has_prompts(resolved)) resolved.settings.input.texts["prompt"] = {"-"};
  const std::filesystem::path folder = resolved.settings.output.output_dir;
  resolved.settings.output.quiet = true;
  std::vector<Json> rows;
  for (const auto& c : candidates) {
    const auto layout = plan::to_string(c.degrees);
    resolved.settings.backend.strategy = layout;
    resolved.origins["strategy"] = {Precedence::kFlag, "--strategy"};
    const Json row = time_layout(resolved, variables, interrupt, folder);
    if (row.contains("problem")) throw Error(Kind::kItem, layout + ": " + row["problem"].get<std::string>());
    Json out{{"layout", layout},
             {"ms_per_step", {{"value", row["ms_per_step"]["median"]}, {"kind", "measured"}}},
             {"pictures_per_second", {{"value", row["pictures_per_second"]}, {"kind", "measured"}}},
             {"device", row.value("device", "")}};
    if (c.modelled_ms > 0) out["modelled_ms_per_step"] = {{"value", c.modelled_ms}, {"kind", "modelled"}};
    rows.push_back(std::move(out));
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["pictures_per_second"]["value"].get<double>() > b["pictures_per_second"]["value"].get<double>();
  });
  return rows;
}

std::vector<std::string> measured_lines(const Json& rows) {
  std::vector<std::string> out;
  for (const auto& row : rows) {
    std::string line =
        str("measured  ", row["layout"].get<std::string>(), ": ", row["ms_per_step"]["value"], " ms/step");
    if (row.contains("modelled_ms_per_step"))
      line += str(", modelled ", row["modelled_ms_per_step"]["value"].get<double>());
    out.push_back(line + (out.empty() ? ", the fastest of them" : ""));
  }
  return out;
}

// Why the pictures of spec cannot be drawn under its layout, for want of memory; empty: they can.
std::string memory_problem(const RunSpec& spec, const Resolved& resolved, const Room& room) {
  RequestSet pictures;
  pictures.requests = spec.requests.requests.only([](const request::Request&) { return true; });
  pictures.extent = spec.requests.extent;
  try {
    check_memory(spec, pictures, resolved, room);
  } catch (const Error& e) {
    if (e.kind() != Kind::kCapacity) throw;
    return e.what();
  }
  return "";
}

// Ranks on the CPU share its cores: what is refused, and the order of the rule, but no speed.
int plan_cpu(RunSpec& spec, const Resolved& resolved, const Environment& variables,
             const std::vector<plan::ParallelConfig>& asked, bool measures) {
  const int ranks = ranks_of(resolved, asked, 0);
  const plan::LayoutQuery query{spec.facts, spec.requests.extent.work};
  const Room room = room_here(spec.device);
  check_ranks(ranks, room);
  spec.job.engine = engine_config(resolved, spec);
  const auto memory = memory_query(spec.model.folder, spec.facts, spec.job.engine, false,
                                   spec.requests.extent.height, spec.requests.extent.width);
  const auto chosen = plan::automatic(query, ranks);
  std::vector<Candidate> candidates;
  std::pair<int64_t, std::string> nearest{INT64_MAX, ""};
  std::cout << spec.model.name << ", " << ranks
            << " ranks on the CPU, which share its cores: no speed is modelled\n";
  for (const auto& d : asked.empty() ? plan::layouts(query, ranks) : asked) {
    plan::validate(d, query, asked_ranks(resolved));
    int64_t all = 0;
    for (const auto& r : plan::rank_memory({query, spec.work}, memory, d)) all += r.weights();
    all *= d.data;
    spec.job.engine.layout = d;
    const auto problem = memory_problem(spec, resolved, room);
    if (problem.empty() && candidates.size() < kMeasured) candidates.push_back({d});
    if (!problem.empty()) nearest = std::min(nearest, {all, plan::to_string(d) + ": " + problem});
    std::cout << "  " << plan::to_string(d) << ": weights " << report::bytes_text(all) << " on all ranks"
              << (d == chosen ? "  (taken when only --num_gpus is given)" : "")
              << (problem.empty() ? "" : "  does not fit") << "\n";
  }
  if (candidates.empty()) throw Error(Kind::kCapacity, str("no layout fits; ", nearest.second));
  if (measures) {
    for (const auto& line : measured_lines(measure(candidates, resolved, variables)))
      std::cout << line << "\n";
  }
  return 0;
}

const FlagSet kFlags{
    .surface = kBoth,
    .name = "plan",
    .about =
        "Predicts what the layouts of --num_gpus GPUs take per step and hold per rank, "
        "refuses those that do not fit, "
        "and ranks the rest, each with a sentence and the command that draws with it. "
        "--strategy \"a | b\" asks for "
        "some only. --hardware NAME plans for other GPUs (H200, H100, A100, L40, L20, V100, "
        "T4), --links nvlink, pcie "
        "or host for what lies between them, --link_gbps N with a measured rate. --measure "
        "draws with the first "
        "three. --top N shows more, --json prints everything.",
    .switches = {{"json", "everything, as JSON"},
                 {"measure", "draw with the first three on this machine, and say what they took"}},
    .unused = {"resume", "keep_changed", "save_dummy", "span_nodes", "num_nodes", "node_rank", "master_addr",
               "master_port", "output_name_column", "cache_type", "cache_threshold", "use_teacache",
               "use_fbcache"},
    .why = "it predicts whole steps on one machine and keeps no pictures",
    .values = {{"hardware", "plan for these GPUs: H200, H100, A100, L40, L20, V100 or T4"},
               {"links", "what lies between them: nvlink, pcie or host"},
               {"link_gbps", "GB/s that were measured between two of them, in its place"},
               {"top", "layouts that are shown (5)"}}};

std::vector<plan::Prediction> predictions(const plan::PlanQuery& query,
                                          const std::vector<plan::ParallelConfig>& asked, int ranks,
                                          int num_gpus) {
  if (asked.empty()) return plan::ranked(query, ranks);
  std::vector<plan::Prediction> out;
  for (const auto& d : asked) {
    plan::validate(d, query.step.layout, num_gpus);
    out.push_back(plan::predict(query, d));
  }
  return out;
}

int plan_gpus(const RunSpec& spec, const Resolved& resolved, const Environment& variables,
              const Parsed& parsed, const plan::Hardware& hardware,
              const std::vector<plan::ParallelConfig>& asked) {
  const int ranks = ranks_of(resolved, asked, pipeline::cuda_devices());
  const auto& extent = spec.requests.extent;
  const auto engine = engine_config(resolved, spec);
  check_hardware(hardware, engine);
  pipeline::check_tier(pipeline::load_options(engine, c10::kCPU).tier, spec.facts, c10::kCPU);
  if (spec.work.blocks.empty()) {
    throw Error(Kind::kUsage,
                str("the family of ", spec.model.name,
                    " does not say what its blocks compute, so nothing can be predicted; atelier layouts "
                    "lists what is possible"));
  }
  PlanReport report{
      .model = spec.model.folder.label(),
      .height = extent.height,
      .width = extent.width,
      .ranks = ranks,
      .query = plan_query(spec.model.folder, spec.facts, spec.work, spec.requests, engine, hardware),
      .command = [&resolved](const plan::ParallelConfig& d) { return command_line(resolved, d); }};
  report.layouts = predictions(report.query, asked, ranks, asked_ranks(resolved));
  report.one = plan::predict(report.query, {});
  const bool fits =
      std::any_of(report.layouts.begin(), report.layouts.end(), [](const auto& p) { return p.fits; });
  const bool is_json = parsed.switches.contains("json");
  size_t most = kShown;
  if (const auto top = parsed.values.find("top"); top != parsed.values.end()) {
    const auto n = to_integer(top->second);
    if (!n || *n < 1) throw Error(Kind::kUsage, "--top: a number of layouts is needed");
    most = static_cast<size_t>(*n);
  }
  if (!is_json) {
    for (const auto& line : lines(report, most)) std::cout << line << "\n";
  }
  if (!fits) refuse_all(report, resolved);
  Json out = to_json(report);
  if (parsed.switches.contains("measure")) {
    std::vector<Candidate> candidates;
    for (const auto& p : report.layouts) {
      if (p.fits && candidates.size() < kMeasured) candidates.push_back({p.degrees, 1e3 * p.step.seconds()});
    }
    out["measured"] = measure(candidates, resolved, variables);
    for (const auto& line : measured_lines(out["measured"])) {
      if (!is_json) std::cout << line << "\n";
    }
  }
  if (is_json) std::cout << out.dump(1) << std::endl;
  return 0;
}

}  // namespace

int plan_command(const Arguments& arguments) {
  const Parsed parsed = parse_flags(kFlags, arguments);
  if (parsed.is_help) return 0;
  const auto variables = environment();
  Resolved resolved = resolve(kT2i, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  const auto asked = take_layouts(resolved);
  const bool is_cpu = resolved.settings.device.device == "cpu" && !parsed.values.contains("hardware");
  auto spec = question_of(resolved, variables, !is_cpu);
  if (spec.model.folder.draws_videos()) resolved.surface = kVideo;  // what the commands it prints are for
  for (const auto& note : resolved.notes) log::warning(note);
  if (!is_cpu) {
    const auto here = choose_device(resolved.settings.device.device, pipeline::cuda_devices());
    const auto hardware = hardware_asked(parsed, here);
    if (parsed.switches.contains("measure")) check_measurable(hardware, here);
    return plan_gpus(spec, resolved, variables, parsed, hardware, asked);
  }
  return plan_cpu(spec, resolved, variables, asked, parsed.switches.contains("measure"));
}

}  // namespace atelier::app
