#include "app/run/protocol_rows.h"

#include <nlohmann/json.hpp>

#include "app/run/bench_machine.h"
#include "app/run/time_layout.h"
#include "base/error.h"
#include "base/files.h"
#include "bench/result.h"
#include "bench/traffic.h"
#include "plan/layouts.h"
#include "plan/parallel_config.h"

namespace atelier::app {
namespace {

bool is_traced(const bench::Measurement& m) {
  return m.is_for(bench::Topic::kTraffic);
}

Variant variant_of(const bench::Measurement& m) {
  return {m.height, m.width, m.batch};
}

// What other tables mix up: exact in the model's own numbers, exact in fewer bits, and not exact.
const char* league_of(const plan::ParallelConfig& degrees, const EngineSettings& engine) {
  if (degrees.pipeline > 1 && !degrees.sync) return "approximate";
  return engine.tier == "exact" && engine.attention_dtype == "auto" ? "lossless" : "quantised";
}

// What a page or a comparison needs of a run report's row.
Json measured_part(const Json& row, Json gpus) {
  Json out{{"kind", "measured"}, {"gpus", std::move(gpus)}};
  for (const auto* key : {"ms_per_step", "encode_s", "denoise_s", "decode_s", "store_s", "picture_s",
                          "pictures_per_second", "load_s", "weight_bytes", "peak_memory", "warmups"}) {
    if (row.contains(key)) out[key] = row[key];
  }
  for (auto& [key, value] : out.items()) {
    if (value.is_object()) value.erase("mean"), value.erase("kind");
  }
  out["drawn"] = row.at("pictures").at("drawn");
  out["failed"] = row.at("pictures").at("failed");
  return out;
}

std::string log_of(const std::filesystem::path& folder, const std::string& layout, int rank) {
  return read_file(folder / layout / "logs" / str("rank_", rank, ".log"));
}

Json traffic_of(const bench::Measurement& m, const std::string& layout, const Json& row,
                const std::filesystem::path& pictures, const std::filesystem::path& traces) {
  bench::Traffic traffic;
  for (int rank = 0; rank < m.gpus; ++rank) traffic.add_log(rank, log_of(pictures, layout, rank));
  for (int rank = 0; rank < m.gpus; ++rank) {
    const auto file = traces / "profile" / str("rank", rank, ".batch1.json");
    if (rank == 0 && std::filesystem::exists(file)) traffic.add_trace(read_json(file));
  }
  Json out = traffic.json(1e3 * row.at("picture_s").at("median").get<double>());
  out["id"] = m.id;
  out["asked"] = {{"layout", layout}, {"gpus", m.gpus}};
  return out;
}

}  // namespace

std::string ProtocolRows::dtype() const {
  return denoiser_type(s_.resolved, s_.is_gpu ? c10::kCUDA : c10::kCPU);
}

plan::ParallelConfig ProtocolRows::degrees_of(const bench::Measurement& m) const {
  if (m.strategy != "split") return plan::parse_strategy(m.strategy);
  return plan::split_batch(s_.model.layout_query(variant_of(m)), m.gpus);
}

Resolved ProtocolRows::settings_of(const bench::Measurement& m, const plan::ParallelConfig& degrees,
                                   const std::filesystem::path& folder) const {
  Resolved out = with(s_.resolved, variant_of(m));
  auto& s = out.settings;
  const auto set = [&](const char* name) { out.origins[name] = {Precedence::kFlag, str("--", name)}; };
  s.backend.strategy = plan::to_string(degrees), set("strategy");
  s.device.num_gpus = std::to_string(m.gpus), set("num_gpus");
  if (m.most_runs > 0) s.output.num_iterations = std::min(s.output.num_iterations, m.most_runs);
  if (!m.has_graphs || is_traced(m)) s.engine.enable_compile = false, set("enable_compile");
  if (is_traced(m)) {
    s.output.output_dir = folder / "traces" / m.id;
    s.output.num_iterations = s.output.warmup_calls = 1;
    s.engine.debug = s.engine.profile = true;
    s.engine.profile_wait = 0, s.engine.profile_warmup = 1, s.engine.profile_active = 1;
  }
  return out;
}

Json ProtocolRows::modelled(const bench::Measurement& m, const plan::ParallelConfig& degrees) const {
  if (s_.hardware) return s_.model.predicted(variant_of(m), degrees, *s_.hardware);
  return s_.model.counted(variant_of(m), degrees);
}

MeasuredRow ProtocolRows::measure(const bench::Measurement& m, const std::filesystem::path& folder) {
  MeasuredRow out;
  Json& row = out.row;
  row = {{"id", m.id},
         {"status", bench::status::kImpossible},
         {"league", "lossless"},
         {"asked", bench::asked_of(m)}};
  try {
    const auto degrees = degrees_of(m);
    const auto layout = plan::to_string(degrees);
    row["asked"]["layout"] = layout;
    row["league"] = league_of(degrees, s_.resolved.settings.engine);
    plan::validate(degrees, s_.model.layout_query(variant_of(m)), m.gpus);
    if (const auto model = modelled(m, degrees); !model.is_null()) row["modelled"] = model;
    row["status"] = bench::status::kNotHere;
    row["why"] = str("needs ", m.gpus, s_.is_gpu ? " GPUs, " : " ranks, ", s_.ranks, " are here");
    if (m.gpus > s_.ranks) return out;
    row["status"] = bench::status::kFailed;
    const auto pictures = folder / "pictures" / m.id;
    GpuWatch watch(s_.nvml, m.gpus);
    const Json drawn = time_layout(settings_of(m, degrees, folder), s_.variables, interrupt_, pictures);
    row["why"] = drawn.value("problem", "");
    if (drawn.contains("problem")) return out;
    row["measured"] = measured_part(drawn, watch.take());
    row["kernels"] = drawn.at("kernels");
    row["notes"] = drawn.at("notes");
    row["status"] = bench::status::kMeasured;
    row.erase("why");
    if (is_traced(m)) out.traffic = traffic_of(m, layout, drawn, pictures, folder / "traces" / m.id);
  } catch (const Error& e) {
    if (e.kind() == Kind::kInterrupted) throw;
    row["why"] = e.what();
    out.lacks_room = e.kind() == Kind::kCapacity;
  }
  return out;
}

}  // namespace atelier::app
