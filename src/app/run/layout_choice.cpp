// The layout of a run.
#include "app/run/layout_choice.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace atelier::app {
namespace {

// Joins --strategy with the single settings: the higher level wins, and equals must not disagree.
class Merge {
 public:
  explicit Merge(const Resolved& resolved)
      : resolved_(resolved),
        strategy_(resolved.origin("strategy")),
        has_strategy_(!resolved.settings.backend.strategy.empty()) {
    try {
      degrees_ = plan::parse_strategy(resolved.settings.backend.strategy);
    } catch (const Error& e) {
      throw Error(Kind::kUsage, str(strategy_.text, ": ", e.what()));
    }
  }

  template <class T>
  void take(const char* name, T plan::ParallelConfig::*member, T value) {
    const Origin origin = resolved_.origin(name);
    T& mine = degrees_.*member;
    const bool strategy_says = has_strategy_ && mine != plan::ParallelConfig().*member;
    const bool is_beside = resolved_.is_set(name) && origin.level == strategy_.level;
    if (!has_strategy_ || origin.level > strategy_.level || (is_beside && !strategy_says)) {
      mine = value;
    } else if (is_beside && mine != value) {
      throw Error(Kind::kUsage, str(strategy_.text, " \"", resolved_.settings.backend.strategy, "\" and ",
                                    origin.text, " say different things; keep one"));
    }
  }
  const plan::ParallelConfig& degrees() const { return degrees_; }

 private:
  const Resolved& resolved_;
  const Origin strategy_;
  const bool has_strategy_;
  plan::ParallelConfig degrees_;
};

// A strategy speaks for the whole layout: what lower levels say is dropped.
bool is_dropped(const Resolved& resolved, const char* name) {
  return resolved.is_set(name) && !resolved.settings.backend.strategy.empty() &&
         resolved.origin(name).level < resolved.origin("strategy").level;
}

void remark_on_dropped(const Resolved& resolved, std::vector<std::string>& remarks) {
  std::string list;
  for (const char* name :
       {"data_parallel_degree", "use_cfg_parallel", "pipefusion_degree", "ring_degree", "kv_gather_degree",
        "ulysses_degree", "tensor_parallel_degree", "num_pipeline_patch", "warmup_steps", "pipefusion_sync",
        "use_parallel_vae", "fully_shard_degree", "overlap_p2p_comm"}) {
    const std::string by = resolved.origin(name).text;  // one of another tool may say two of them
    if (is_dropped(resolved, name) && !list.ends_with(by)) list += (list.empty() ? "" : ", ") + by;
  }
  if (list.empty()) return;
  remarks.push_back(
      str(resolved.origin("strategy").text, " says the whole layout: without effect are ", list));
}

// Degrees that are not 1, or 1 by a flag of their own, with who set them; empty: nobody asked for a layout.
std::string asked_degrees(const Resolved& resolved) {
  const auto& b = resolved.settings.backend;
  const std::pair<const char*, bool> degrees[] = {{"data_parallel_degree", b.data_parallel_degree > 1},
                                                  {"use_cfg_parallel", b.use_cfg_parallel},
                                                  {"pipefusion_degree", b.pipefusion_degree > 1},
                                                  {"ring_degree", b.ring_degree > 1},
                                                  {"kv_gather_degree", b.kv_gather_degree > 1},
                                                  {"ulysses_degree", b.ulysses_degree > 1},
                                                  {"tensor_parallel_degree", b.tensor_parallel_degree > 1},
                                                  {"strategy", !b.strategy.empty()}};
  std::string out;
  for (const auto& [name, is_asked] : degrees) {
    if (is_dropped(resolved, name)) continue;
    if (!is_asked && resolved.origin(name).level != Precedence::kFlag) continue;
    out += (out.empty() ? "" : ", ") + resolved.origin(name).text;
  }
  return out;
}

void take_axes(const plan::ParallelConfig& from, plan::ParallelConfig& to) {
  to.data = from.data, to.cfg = from.cfg, to.pipeline = from.pipeline;
  to.ring = from.ring, to.kv_gather = from.kv_gather, to.ulysses = from.ulysses, to.tensor = from.tensor;
}

void check_devices(const Resolved& resolved, int ranks, const Machine& machine) {
  if (ranks <= 1) return;
  if (machine.device.device.has_index()) {
    throw Error(Kind::kUsage, str(resolved.origin("device").text, " ", resolved.settings.device.device,
                                  " is one device, but ", ranks, " ranks were asked for: use --device cuda"));
  }
  if (machine.launched == 0 && !machine.device.device.is_cuda() && machine.check_ranks)
    machine.check_ranks(ranks);
  if (machine.launched == 0 && machine.device.device.is_cuda() && ranks > machine.devices) {
    throw Error(Kind::kUsage,
                str("asked ", ranks, ", have ", machine.devices, machine.devices == 1 ? " GPU" : " GPUs",
                    " (", machine.devices == 1 ? "cuda:0" : str("cuda:0 to cuda:", machine.devices - 1),
                    " are visible): ask for fewer, or use --device cpu, where a rank is a process"));
  }
}

int automatic_ranks(const Machine& machine, std::string& why) {
  if (machine.launched > 0) {
    why = "as many as the launcher started";
    return machine.launched;
  }
  const auto device = machine.device.device;
  if (!device.is_cuda()) {
    why = "auto: one on the CPU; --num_gpus N starts N";
    return 1;
  }
  if (device.has_index()) {
    why = "auto: one, as one device is named";
    return 1;
  }
  why = machine.devices == 1 ? "auto: one GPU" : "auto: every GPU";
  return machine.devices;
}

// The layout of so many ranks where no degree was asked for.
BestLayout best_layout(const Resolved& resolved, const plan::LayoutQuery& query, const Machine& machine,
                       int ranks) {
  if (resolved.surface == kScripts) {
    const std::string why = "layout of mode " + resolved.settings.scripts.mode;
    if (resolved.settings.scripts.mode != "multi") return {plan::split_batch(query, ranks), why};
    plan::ParallelConfig groups;
    groups.data = ranks;
    return {groups, why};
  }
  if (machine.best && ranks > 1) return machine.best(query, ranks);
  return {plan::automatic(query, ranks), "layout chosen by rule"};
}

}  // namespace

int asked_ranks(const Resolved& resolved) {
  const std::string& text = resolved.settings.device.num_gpus;
  if (text.empty() || text == "auto") return 0;
  int value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || value < 1) {
    throw Error(Kind::kUsage, str(resolved.origin("num_gpus").text, ": \"", text,
                                  "\" is neither a number of at least 1 nor auto"));
  }
  return value;
}

plan::ParallelConfig degrees_of(const Resolved& resolved) {
  using D = plan::ParallelConfig;
  const auto& b = resolved.settings.backend;
  Merge m(resolved);
  m.take("data_parallel_degree", &D::data, b.data_parallel_degree);
  m.take("use_cfg_parallel", &D::cfg, b.use_cfg_parallel ? 2 : 1);
  m.take("pipefusion_degree", &D::pipeline, b.pipefusion_degree);
  m.take("ring_degree", &D::ring, b.ring_degree);
  m.take("kv_gather_degree", &D::kv_gather, b.kv_gather_degree);
  m.take("ulysses_degree", &D::ulysses, b.ulysses_degree);
  m.take("tensor_parallel_degree", &D::tensor, b.tensor_parallel_degree);
  m.take("num_pipeline_patch", &D::patches, b.num_pipeline_patch.value_or(0));
  m.take("warmup_steps", &D::warmup, b.warmup_steps);
  m.take("pipefusion_sync", &D::sync, b.pipefusion_sync);
  using Rows = plan::PictureRows;
  m.take("use_parallel_vae", &D::parallel_vae,
         !b.use_parallel_vae   ? Rows::kBySize
         : *b.use_parallel_vae ? Rows::kAlways
                               : Rows::kNever);
  m.take("fully_shard_degree", &D::shard, b.fully_shard_degree);
  m.take("overlap_p2p_comm", &D::overlap, b.overlap_p2p_comm);
  D d = m.degrees();
  if (b.shard_dit && d.shard == 1) d.shard = plan::sequence_size(d);
  d.stage_blocks = b.attn_layer_num_for_pp;
  return d;
}

LayoutChoice choose_layout(const Resolved& resolved, const plan::LayoutQuery& query, const Machine& machine) {
  LayoutChoice out;
  out.degrees = degrees_of(resolved);
  const int asked = asked_ranks(resolved);
  const std::string degrees = asked_degrees(resolved);
  if (!degrees.empty()) {
    out.ranks = plan::world_size(out.degrees);
    out.why = degrees;
    if (machine.check_ranks) check_devices(resolved, std::max(out.ranks, asked), machine);
    plan::validate(out.degrees, query, asked > 0 ? asked : machine.launched);
    check_devices(resolved, out.ranks, machine);
  } else {
    out.ranks = asked > 0 ? asked : automatic_ranks(machine, out.why);
    if (asked > 0) out.why = resolved.origin("num_gpus").text;
    check_devices(resolved, out.ranks, machine);
    const BestLayout best = best_layout(resolved, query, machine, out.ranks);
    if (out.ranks > 1 && (asked > 0 || machine.best)) out.why += ", " + best.why;
    take_axes(best.degrees, out.degrees);
    if (best.degrees.shard > 1) out.degrees.shard = best.degrees.shard;
    plan::validate(out.degrees, query, machine.launched);
  }
  out.remarks = plan::advice(out.degrees, query);
  remark_on_dropped(resolved, out.remarks);
  out.warnings = plan::warnings(out.degrees, query);
  return out;
}

}  // namespace atelier::app
