#include "app/run/plan_report.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

constexpr int kMostRanks = 16;  // that a way out proposes

double rounded(double value, double to) {
  return std::round(value / to) * to;
}

Json modelled(double value) {
  return {{"value", value}, {"kind", "modelled"}};
}

Json to_json(const plan::RankMemory& m) {
  return {{"denoiser_bytes", m.denoiser},
          {"encoders_bytes", m.encoders},
          {"vae_bytes", m.vae},
          {"keys_bytes", m.keys},
          {"activations_bytes", m.activations},
          {"decoding_bytes", m.pictures},
          {"offloaded_bytes", m.moved},
          {"weight_bytes", m.weights()},
          {"total_bytes", m.total()},
          {"kind", "modelled"}};
}

Json to_json(const plan::StepTime& t) {
  const auto ms = [](double seconds) { return modelled(1e3 * seconds); };
  return {{"products", ms(t.products)}, {"attention", ms(t.attention)}, {"pointwise", ms(t.pointwise)},
          {"messages", ms(t.exchange)}, {"weights", ms(t.weights)},     {"idle", ms(t.idle)},
          {"all", ms(t.seconds())}};
}

std::string seconds_text(double s) {
  return str(rounded(s, s < 10 ? 0.01 : 0.1), " s");
}

std::string row(const plan::Prediction& p, size_t place) {
  std::ostringstream out;
  const double ms = 1e3 * p.step.seconds();
  out << std::setw(3) << place << "  " << std::left << std::setw(34) << plan::to_string(p.degrees)
      << std::right << std::fixed << std::setprecision(ms < 1 ? 3 : 1) << std::setw(9) << ms << " ms/step"
      << std::setw(10) << seconds_text(p.picture_s) << std::setw(12) << report::bytes_text(p.most().total())
      << " on rank " << plan::fullest(p.ranks);
  return out.str();
}

std::string head(const PlanReport& r) {
  const auto& work = r.query.step.layout.work;
  const auto& h = r.query.hardware;
  return str(r.model, ", ", r.width, "x", r.height, ", ", r.query.step.grid_tokens, " tokens and ",
             work.text_tokens + r.query.step.model.more_text_tokens, " of text, ", work.steps, " steps, ",
             work.branches, work.branches == 1 ? " branch" : " branches", ", batch ", std::max(1, work.batch),
             "; ", r.ranks, r.ranks == 1 ? " GPU" : " GPUs", " ", h.name, " (", h.source, "), ", h.links.name,
             "; times and memory are modelled");
}

}  // namespace

Json to_json(const PlanReport& r) {
  const auto& h = r.query.hardware;
  const auto& work = r.query.step.layout.work;
  Json layouts = Json::array();
  for (const auto& p : r.layouts) {
    Json ranks = Json::array();
    for (const auto& m : p.ranks) ranks.push_back(to_json(m));
    layouts.push_back({{"layout", plan::to_string(p.degrees)},
                       {"fits", p.fits},
                       {"league", p.is_exact ? "lossless" : "approximate"},
                       {"ms_per_step", to_json(p.step)},
                       {"encode_s", modelled(p.encode_s)},
                       {"decode_s", modelled(p.decode_s)},
                       {"picture_s", modelled(p.picture_s)},
                       {"run_s", modelled(p.run_s)},
                       {"ranks", ranks},
                       {"why", plan::explanation(p, r.one, r.query)},
                       {"command", r.command(p.degrees)}});
  }
  return {{"schema", "atelier-plan-1"},
          {"model", r.model},
          {"height", r.height},
          {"width", r.width},
          {"steps", work.steps},
          {"branches", work.branches},
          {"batch", std::max(1, work.batch)},
          {"pictures", std::max<int64_t>(1, work.pictures)},
          {"gpus", r.ranks},
          {"hardware",
           {{"name", h.name}, {"source", h.source}, {"links", h.links.name}, {"bytes_there", r.query.room}}},
          {"layouts", layouts}};
}

std::vector<std::string> lines(const PlanReport& r, size_t most) {
  std::vector<std::string> out{head(r)};
  size_t place = 0, left_out = 0;
  for (const auto& p : r.layouts) {
    if (p.fits && ++place > most) ++left_out;
    if (!p.fits || place > most) continue;
    out.push_back(row(p, place));
    out.push_back("       " + plan::explanation(p, r.one, r.query));
    out.push_back("       " + r.command(p.degrees));
  }
  if (left_out > 0) out.push_back(str("     and ", left_out, " slower ones (--top N shows more)"));
  size_t too_large = 0;
  for (const auto& p : r.layouts) {
    if (p.fits || ++too_large > most) continue;
    out.push_back(str("  --  ", plan::to_string(p.degrees), " does not fit: rank ", plan::fullest(p.ranks),
                      " would hold ", report::bytes_text(p.most().total()), " (", plan::in_words(p.most()),
                      ") of ", report::bytes_text(r.query.room)));
  }
  if (too_large > most)
    out.push_back(str("  --  and ", too_large - most, " more do not fit (--top N shows more)"));
  return out;
}

std::vector<std::vector<FlagChange>> ways_to_fit(const plan::PlanQuery& query, int ranks) {
  std::vector<std::vector<FlagChange>> out;
  const auto first = [](const plan::PlanQuery& q, int n) -> std::optional<plan::ParallelConfig> {
    for (const auto& p : plan::ranked(q, n)) {
      if (p.fits) return p.degrees;
    }
    return std::nullopt;
  };
  const auto add = [&](const plan::PlanQuery& q, int n, std::vector<FlagChange> changes) {
    const auto degrees = first(q, n);
    if (!degrees) return false;
    changes.push_back({"num_gpus", {std::to_string(n)}});
    changes.push_back({"strategy", {plan::to_string(*degrees)}});
    out.push_back(std::move(changes));
    return true;
  };
  auto changed = query;
  for (const auto& [kind, name] :
       {std::pair{plan::Offload::kWhole, "model"}, {plan::Offload::kBlocks, "sequential"}}) {
    changed.memory.offload = kind;
    if (query.memory.offload == plan::Offload::kNone && add(changed, ranks, {{"offload", {name}}})) break;
  }
  changed = query;
  for (int batch = query.step.layout.work.batch / 2; batch >= 1; batch /= 2) {
    changed.step.layout.work.batch = batch;
    if (add(changed, ranks, {{"batch_size", {std::to_string(batch)}}})) break;
  }
  changed = query;
  changed.memory.sizes.blocks = 1;
  const bool may_be_eight_bits = query.hardware.has_e4m3() && !query.step.layout.model.has_convolution_mixer;
  if (query.memory.sizes.blocks == 2 && may_be_eight_bits) add(changed, ranks, {{"tier", {"fast"}}});
  for (int n = ranks + 1; n <= kMostRanks && !add(query, n, {}); ++n) {
  }
  changed = query;
  changed.memory.offload = plan::Offload::kBlocks;
  for (int n = ranks + 1; out.empty() && n <= kMostRanks; ++n) add(changed, n, {{"offload", {"sequential"}}});
  return out;
}

}  // namespace atelier::app
