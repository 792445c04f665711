// A made-up result of a protocol, for tests of what is said about results.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "bench/protocol.h"
#include "bench/result.h"

namespace atelier::bench {

// A series of runs around its median.
inline Json series_for_test(double median) {
  return {{"count", 5},           {"first", 1.2 * median}, {"median", median},    {"p90", 1.02 * median},
          {"p99", 1.03 * median}, {"min", 0.98 * median},  {"max", 1.04 * median}};
}

// A measured row: seconds of a picture follow from the milliseconds of its 10 steps.
inline Json row_for_test(const Measurement& m, double ms) {
  Json peaks = Json::array(), weights = Json::array();
  for (int r = 0; r < m.gpus; ++r) {
    peaks.push_back({{"rank", r},
                     {"host_bytes", 1 << 30},
                     {"device_bytes", (20LL - r) << 30},
                     {"reserved_bytes", 22LL << 30}});
    weights.push_back(10LL << 30);
  }
  const double denoise = ms / 100;
  return {{"id", id_of(m)},
          {"status", status::kMeasured},
          {"league", m.strategy.starts_with("pipefusion") ? "approximate" : "lossless"},
          {"asked", asked_of(m)},
          {"measured",
           {{"kind", "measured"},
            {"ms_per_step", series_for_test(ms)},
            {"encode_s", series_for_test(0.01)},
            {"denoise_s", series_for_test(denoise)},
            {"decode_s", series_for_test(0.02)},
            {"store_s", series_for_test(0.03)},
            {"picture_s", series_for_test(denoise + 0.03)},
            {"pictures_per_second", m.batch / (denoise + 0.03)},
            {"peak_memory", peaks},
            {"weight_bytes", weights},
            {"gpus", Json::array()},
            {"drawn", 5},
            {"failed", 0}}}};
}

// On two GPUs, of all measurements of the protocol: those of more are not measured, and modelled.
inline Json result_for_test(const std::string& name = "flux") {
  Json out{{"schema", kSchema},
           {"protocol", name},
           {"atelier", "0.1.0"},
           {"command", "atelier bench --protocol flux"},
           {"started", "2026-01-01T00:00:00Z"},
           {"inside", "everything"},
           {"asked",
            {{"model", "a model"},
             {"device", "cuda"},
             {"height", 1024},
             {"width", 1024},
             {"steps", 10},
             {"batch", 1},
             {"dtype", "bfloat16"},
             {"tier", "exact"},
             {"runs", 5},
             {"warmups", 1},
             {"text_tokens", 512},
             {"branches", 1},
             {"sampler", "the folder's"},
             {"random_weights", false}}},
           {"machine",
            {{"kind", "measured"},
             {"device", "NVIDIA H200"},
             {"processor", "some"},
             {"cores", 16},
             {"gpus", 2},
             {"torch", "2"},
             {"driver", "580"},
             {"cuda", "13.0"},
             {"nccl", "2.27.3"},
             {"clock_mhz", 1980},
             {"power_limit_w", 700}}},
           {"rows", Json::array()},
           {"traffic", Json::array()},
           {"quality", Json::array()}};
  for (const auto& m : measurements({.name = name,
                       .gpus = 2,
                       .height = 1024,
                       .width = 1024,
                       .sizes = {1024, 2048},
                       .batches = {1, 2}})) {
    if (m.is_for(Topic::kTraffic)) continue;
    const bool is_shared = m.strategy != "split" && !m.strategy.starts_with("data");
    Json row = row_for_test(m, 100.0 * m.height / 1024 / (is_shared ? 0.9 * m.gpus : 1));
    row["modelled"] = {{"kind", "modelled"},
                       {"ms_per_step", 100.0 / m.gpus},
                       {"picture_s", 1.0 / m.gpus},
                       {"peak_bytes", Json::array()}};
    if (m.gpus > 2) row["status"] = status::kNotHere, row["why"] = "needs more", row.erase("measured");
    out["rows"].push_back(std::move(row));
  }
  return out;
}

// What a test changes in a row of the result.
inline Json& row_of(Json& result, const std::string& id) {
  for (auto& row : result["rows"]) {
    if (row["id"] == id) return row;
  }
  throw std::out_of_range(id);
}

}  // namespace atelier::bench
