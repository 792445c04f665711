// The result of a protocol as JSON, and how to ask it. Numbers stand in objects whose "kind" is measured,
// modelled or cited, or below "asked", which holds what somebody chose.
//
//   schema, protocol, atelier, command, started, inside (what the timing holds), problems, notes
//   asked: model, device, height, width, steps, batch, dtype, tier, attention_dtype, runs, warmups,
//          text_tokens, branches, sizes, random_weights
//   machine: kind, device, processor, cores, memory_bytes, gpus, driver, cuda, torch, clock_mhz,
//            power_limit_w, links, ...
//   rows: id, status (kMeasured ...), why, league,
//         asked {layout, strategy, mode, gpus, height, width, batch, graphs, topics},
//         measured {kind, ms_per_step, picture_s, ..., peak_memory, weight_bytes, gpus},
//         modelled {kind, hardware, ...}
//   traffic: id, asked, kind, collectives [verb, calls, bytes, ms], under_way_ms, batch_ms
//   quality: id, asked, kind, most_levels, share, psnr_*, ssim_*, verdict, why
//   cited, checks, bound
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "bench/protocol.h"

namespace atelier::bench {

inline constexpr const char* kSchema = "atelier-bench-1";
inline constexpr const char* kResultName = "bench.json";

namespace status {
inline constexpr const char* kMeasured = "measured";
inline constexpr const char* kNotHere = "not measured here";  // more GPUs than there are
inline constexpr const char* kImpossible = "not possible";    // the model refuses the layout
inline constexpr const char* kFailed = "failed";
}  // namespace status

// The "asked" of a row.
Json asked_of(const Measurement& m);
bool is_measured(const Json& row);
std::vector<const Json*> rows_for(const Json& result, Topic topic);
// One GPU, one picture, the plain size; null until it is measured.
const Json* baseline(const Json& result);
const Json* row_named(const Json& result, std::string_view id);
// Of a row: the median of a series ("ms_per_step") or a plain number ("pictures_per_second"), as
// it was measured.
std::optional<double> measured(const Json& row, const char* what);
std::optional<double> modelled(const Json& row, const char* what);
std::string layout_of(const Json& row);
int gpus_of(const Json& row);
// Most bytes that each rank held: of the GPU, or of the host where there is none.
std::vector<double> peaks(const Json& row);
// How a row's pictures compare with those of one GPU; null: not compared.
const Json* quality_of(const Json& result, const Json& row);
bool is_on_gpus(const Json& result);
double number(const Json& object, const char* key, double otherwise = 0);

// Missing parts, and numbers that do not say where they come from: a sentence each.
std::vector<std::string> schema_problems(const Json& result);
// As text, one row to a line: small, and a change of one row changes one line.
std::string to_text(const Json& result);

}  // namespace atelier::bench
