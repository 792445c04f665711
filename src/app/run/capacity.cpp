#include "app/run/capacity.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string_view>

#include "app/run/plan_query.h"
#include "app/settings/command_text.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "cluster/process.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"
#include "report/clock.h"
#include "report/memory_limit.h"
#include "report/run_report.h"

namespace atelier::app {
namespace {

constexpr int64_t kProcessBytes = int64_t{144} << 20;  // of a CPU rank without weights and pictures, measured
constexpr int kProcessThreads = 4;                     // of a CPU rank, itself included
constexpr int kLeastRanks = 32, kRanksPerCore = 16;    // beyond that ranks only wait for each other

std::string mebibytes(int64_t bytes) {
  return str(bytes >> 20, " MiB");
}

int64_t processes_allowed() {
  std::optional<int64_t> least = report::processes_left(report::kMembership, report::kMounts);
  const auto keep = [&](int64_t value) { least = std::min(least.value_or(value), value); };
  rlimit limit{};
  const bool has_limit = ::geteuid() != 0 && ::getrlimit(RLIMIT_NPROC, &limit) == 0;
  if (has_limit && limit.rlim_cur != RLIM_INFINITY) keep(static_cast<int64_t>(limit.rlim_cur));
  try {
    if (const auto most = to_integer(trim(read_file("/proc/sys/kernel/pid_max")))) keep(*most);
  } catch (const Error&) {  // a system that does not tell
  }
  return least.value_or(0);
}

struct Size {
  int64_t height, width, frames = 1;
  auto operator<=>(const Size&) const = default;
};

// What a run holds at once: on the CPU, of all ranks together, a lower bound; of GPUs, what the fullest rank
// is predicted to hold.
class Holding {
 public:
  Holding(const RunSpec& spec, const plan::Workload& work)
      : engine(spec.job.engine),
        folder_(&spec.model.folder),
        step_{.layout = {spec.facts, work},
              .model = spec.work,
              .has_e4m3_attention = spec.job.engine.attention_dtype != "auto"},
        is_cuda_(spec.device.device.is_cuda()) {}

  pipeline::EngineConfig engine;

  int64_t processes() const { return is_cuda_ ? 0 : plan::world_size(engine.layout) * kProcessBytes; }
  // Without pictures.
  int64_t weights() const {
    int64_t all = 0;
    for (const auto& r : ranks({0, 0}, 1))
      all = is_cuda_ ? std::max(all, r.weights() - r.moved) : all + r.weights();
    return replicas() * all;
  }
  // With so many pictures of this size at a time in each group, processes included.
  int64_t all(Size size, int64_t batch) const {
    int64_t sum = 0;
    for (const auto& r : ranks(size, batch)) sum = is_cuda_ ? std::max(sum, r.total()) : sum + r.total();
    return processes() + replicas() * sum;
  }
  // Of one data group, in the order of the mesh.
  std::vector<plan::RankMemory> ranks(Size size, int64_t batch) const {
    auto query = step_;
    query.layout.work.batch = static_cast<int>(batch) * engine.layout.data;
    if (size.height > 0)
      query.grid_tokens = pipeline::grid_tokens(*folder_, size.height, size.width, size.frames);
    auto memory = memory_query(*folder_, step_.layout.model, engine, is_cuda_, size.height, size.width);
    memory.frames = size.frames;
    auto all = plan::rank_memory(query, memory, engine.layout);
    // Parallel decoding on the CPU holds the same picture in all, cut by rows.
    for (size_t r = 1; !is_cuda_ && r < all.size(); ++r) all[r].pictures = 0;
    return all;
  }
  const plan::LayoutQuery& layout() const { return step_.layout; }

 private:
  int64_t replicas() const { return is_cuda_ ? 1 : engine.layout.data; }

  const pipeline::ModelRepo* folder_;
  plan::StepQuery step_;
  bool is_cuda_;
};

// A change that is tried against what there is room for.
struct Way {
  std::vector<FlagChange> flags;
  std::function<void(Holding&)> make;
};

class Check {
 public:
  Check(const RunSpec& spec, const RequestSet& set, const Resolved& resolved, int64_t there)
      : spec_(spec), resolved_(resolved), holding_(spec, set.extent.work), there_(there) {}

  void weights() const {
    const int64_t need = holding_.processes() + holding_.weights();
    if (need < there_) return;
    fail("weights", need, {0, 0}, 1);
  }

  // Of the rows that are left, the largest in a whole batch.
  void rows(RequestSet& set) {
    auto& requests = set.requests;
    if (requests.empty()) return;
    const auto is_too_large = [&](const request::Request& r) {
      return !r.where.empty() && need(size_of(r), 1) > there_;
    };
    size_t large = 0;
    for (const auto& r : requests) large += is_too_large(r);
    if (large > 0 && large < requests.size()) {
      requests = requests.only([&](const request::Request& r) {
        if (!is_too_large(r)) return true;
        set.bad.push_back({r.where, picture_text(size_of(r)) + "; make it smaller"});
        return false;
      });
    }
    Size largest{};
    int64_t most = -1;
    for (const auto& r : requests) {
      const int64_t bytes = need(size_of(r), 1);
      if (bytes > most) largest = size_of(r), most = bytes;
    }
    const int64_t batch = batch_of(set);
    if (need(largest, batch) > there_) fail("pictures", need(largest, batch), largest, batch);
  }

  // The first change in the order of ways() whose need is at most so much; empty: none.
  std::vector<FlagChange> smallest_change(Size size, int64_t batch, int64_t most) const {
    for (const auto& way : ways(size, batch)) {
      Holding other = holding_;
      way.make(other);
      const bool changes_batch = way.flags.front().name == "batch_size";
      const int64_t n =
          changes_batch ? std::stoll(way.flags.front().words.front()) / holding_.engine.layout.data : batch;
      if (other.all(size, std::max<int64_t>(1, n)) <= most) return way.flags;
    }
    return {};
  }

  // Of the changes that cost time alone the first under which the largest picture that can fit does, else
  // several of them together: applied to `engine`, and as flags. Unset: no picture fits.
  std::optional<std::vector<FlagChange>> slower(const RequestSet& set, pipeline::EngineConfig& engine) const {
    std::map<int64_t, Size, std::greater<>> sizes;  // the largest first
    for (const auto& r : set.requests) sizes.emplace(need(size_of(r), 1), size_of(r));
    const int64_t batch = batch_of(set);
    for (const auto& [_, size] : sizes) {
      if (need(size, batch) <= there_) return std::vector<FlagChange>{};
      for (const bool together : {false, true}) {
        if (auto flags = slower(size, batch, together, engine)) return flags;
      }
    }
    return std::nullopt;
  }

  // What needs a good part less than what was predicted and did not suffice; where nothing does,
  // a smaller picture.
  std::string after_running_out(Size size, int64_t batch) const {
    constexpr double kGoodPart = 0.85;
    auto change = smallest_change(size, batch,
                                  static_cast<int64_t>(kGoodPart * static_cast<double>(need(size, batch))));
    if (change.empty()) {
      const auto half = [](int64_t side) {
        return std::to_string(std::max<int64_t>(kGrid, side / 2 / kGrid * kGrid));
      };
      change = {{"width", {half(size.width)}}, {"height", {half(size.height)}}};
    }
    return changed_command(change);
  }

 private:
  static constexpr int64_t kGrid = 64;  // sides that every family takes

  // Pictures of a group at a time: no batch is larger than what there is to draw.
  int64_t batch_of(const RequestSet& set) const {
    const int64_t groups = holding_.engine.layout.data, asked = set.extent.work.batch;
    const int64_t share = (static_cast<int64_t>(set.requests.size()) + groups - 1) / groups;
    return std::max<int64_t>(1, std::min(asked / groups, share));
  }

  std::optional<std::vector<FlagChange>> slower(Size size, int64_t batch, bool together,
                                                pipeline::EngineConfig& engine) const {
    constexpr std::string_view kCostTime[] = {"enable_vae_slicing", "enable_vae_tiling", "offload",
                                              "enable_cpu_offload"};
    std::vector<FlagChange> flags;
    Holding other = holding_;
    for (const auto& way : ways(size, batch)) {
      const auto& flag = way.flags.front();
      if (std::find(std::begin(kCostTime), std::end(kCostTime), flag.name) == std::end(kCostTime)) continue;
      if (!together) other = holding_, flags.clear();
      way.make(other);
      std::erase_if(flags, [&](const FlagChange& f) { return f.name == flag.name; });
      flags.push_back(flag);
      if (other.all(size, batch) > there_) continue;
      engine = other.engine;
      return flags;
    }
    return std::nullopt;
  }

  static Size size_of(const request::Request& r) { return {*r.height, *r.width, r.num_frames.value_or(1)}; }

  int64_t need(Size size, int64_t batch) const {
    const auto [at, is_new] = known_.try_emplace({size, batch});
    if (is_new) at->second = holding_.all(size, batch);
    return at->second;
  }

  [[noreturn]] void fail(const char* what, int64_t need, Size size, int64_t batch) const {
    const auto change = smallest_change(size, batch, there_);
    throw Error(
        Kind::kCapacity,
        str("the ", what, " take ", mebibytes(need), parts(size, batch), ", ", mebibytes(there_),
            spec_.device.device.is_cuda() ? " of a GPU's memory are there; " : " of memory are free; ",
            change.empty() ? last_resort(size) : advice(change)));
  }

  std::string advice(const std::vector<FlagChange>& change) const {
    return str("try ", flags_text(resolved_.surface, change), ": ", changed_command(change));
  }
  // A strategy says the whole layout: flags of single degrees would contradict it.
  std::string changed_command(const std::vector<FlagChange>& change) const {
    const bool is_layout =
        std::any_of(change.begin(), change.end(), [](const auto& c) { return c.name == "strategy"; });
    return command_text(resolved_, change, is_layout ? layout_flags() : std::set<std::string>());
  }
  std::string last_resort(Size size) const {
    if (size.height > 0) return "make them smaller";
    return spec_.device.device.is_cuda() ? "take GPUs with more memory" : "take a GPU or a larger machine";
  }

  // By rank and part: those that hold the same are told together.
  std::string parts(Size size, int64_t batch) const {
    const auto ranks = holding_.ranks(size, batch);
    std::string out;
    for (size_t r = 0; r < ranks.size();) {
      size_t end = r + 1;
      while (end < ranks.size() && plan::in_words(ranks[end]) == plan::in_words(ranks[r])) ++end;
      const std::string who = end - r == 1 ? str("rank ", r) : str("ranks ", r, " to ", end - 1, ", each");
      out += str(out.empty() ? "" : "; ", ranks.size() > 1 ? who + ": " : "", plan::in_words(ranks[r]));
      r = end;
    }
    const int all = plan::world_size(holding_.engine.layout);
    if (holding_.processes() > 0)
      out += str(ranks.size() > 1 ? "; " : ", ", all, all == 1 ? " process " : " processes ",
                 mebibytes(holding_.processes()));
    return " (" + out + ")";
  }

  std::string picture_text(Size size) const {
    const int64_t rest = there_ - holding_.processes() - holding_.weights();
    return str(size.width, "x", size.height, " takes ",
               mebibytes(need(size, 1) - holding_.processes() - holding_.weights()), ", ",
               mebibytes(std::max<int64_t>(0, rest)), " of memory are left");
  }

  // From what changes least to what changes most.
  std::vector<Way> ways(Size size, int64_t batch) const {
    std::vector<Way> out;
    const bool is_cuda = spec_.device.device.is_cuda();
    const auto& engine = holding_.engine;
    const auto& d = engine.layout;
    for (int64_t n = batch / 2; n >= 1; n /= 2)
      out.push_back({{{"batch_size", {std::to_string(n * d.data)}}}, [](Holding&) {}});
    if (batch > 1 && !engine.vae_slicing)
      out.push_back({{{"enable_vae_slicing", {}}}, [](Holding& h) { h.engine.vae_slicing = true; }});
    if (engine.precision.denoiser == "float32") {
      out.push_back({{{"torch_dtype", {"bfloat16"}}}, [is_cuda](Holding& h) {
                       h.engine.precision.denoiser = "bfloat16";
                       if (is_cuda) h.engine.precision.encoders = h.engine.precision.vae = "bfloat16";
                     }});
    }
    // The scripts know one kind.
    const bool is_script = resolved_.surface == kScripts, is_whole = engine.offload == "none" && !is_script;
    if (is_cuda && is_whole) out.push_back(offload("encoders"));
    if (is_cuda && (is_whole || engine.offload == "encoders")) out.push_back(offload("model"));
    if (size.height > 0 && !engine.vae_tiling && d.parallel_vae != plan::PictureRows::kAlways)
      out.push_back({{{"enable_vae_tiling", {}}}, [](Holding& h) { h.engine.vae_tiling = true; }});
    if (is_cuda && engine.offload != "sequential") out.push_back(offload("sequential"));
    const int ranks = plan::world_size(d);
    if (is_cuda || ranks > 1) add_layouts(out);
    if (!is_cuda && ranks > 1) out.push_back(with_layout({}));
    return out;
  }

  Way offload(const char* kind) const {
    const bool is_script = resolved_.surface == kScripts && std::string_view(cpu_offload(kScripts)) == kind;
    const FlagChange flag = is_script ? FlagChange{"enable_cpu_offload", {}} : FlagChange{"offload", {kind}};
    return {{flag}, [kind](Holding& h) { h.engine.offload = kind; }};
  }

  Way with_layout(const plan::ParallelConfig& d) const {
    return {{{"num_gpus", {std::to_string(plan::world_size(d))}}, {"strategy", {plan::to_string(d)}}},
            [d](Holding& h) { h.engine.layout = d; }};
  }

  // The same ranks with the weights cut, then more of them.
  void add_layouts(std::vector<Way>& out) const {
    const int ranks = plan::world_size(holding_.engine.layout),
              most = std::max(ranks, pipeline::cuda_devices());
    const plan::LayoutQuery query = holding_.layout();
    for (int n = ranks; n <= most; ++n) {
      for (auto d : plan::layouts(query, n)) {
        if (d.data > 1 || d.pipeline > 1) continue;  // stale keys change the picture: nobody is sent there
        const int sequence = plan::sequence_size(d);
        if (sequence > 1) d.shard = sequence;
        if (d.tensor > 1 || d.shard > 1) out.push_back(with_layout(d));
      }
    }
  }

  const RunSpec& spec_;
  const Resolved& resolved_;
  const Holding holding_;
  const int64_t there_;
  mutable std::map<std::pair<Size, int64_t>, int64_t> known_;
};

// What a rank on a GPU, or all ranks on the CPU, may hold; unset: nobody knows.
std::optional<int64_t> bytes_there(const RunSpec& spec, const Room& room) {
  const bool is_cuda = spec.device.device.is_cuda();
  const int64_t all = is_cuda ? room.device_bytes : room.host_bytes;
  if (all == 0) return std::nullopt;
  return is_cuda ? all - kept_by_libraries() : all;
}

}  // namespace

Room room_here(const DeviceChoice& device) {
  return {.host_bytes = report::available_host_bytes(),
          .device_bytes = pipeline::memory_bytes(device.device),
          .cores = cluster::usable_cores(),
          .processes = processes_allowed()};
}

void check_ranks(int ranks, const Room& room) {
  const int by_cores = std::max(kLeastRanks, kRanksPerCore * room.cores);
  const auto refuse = [&](const std::string& why, int64_t most) {
    throw Error(Kind::kCapacity, str(ranks, " ranks were asked for, each a process on the CPU; ", why,
                                     " carry at most ", most, ": ask for fewer"));
  };
  if (ranks > by_cores) refuse(str(room.cores, room.cores == 1 ? " core" : " cores"), by_cores);
  if (ranks > 1 && room.host_bytes > 0 && ranks * kProcessBytes > room.host_bytes)
    refuse(mebibytes(room.host_bytes) + " of free memory",
           std::max<int64_t>(1, room.host_bytes / kProcessBytes));
  if (ranks > 1 && room.processes > 0 && int64_t{ranks} * kProcessThreads > room.processes)
    refuse(str(room.processes, " processes and threads that may be started"),
           std::max<int64_t>(1, room.processes / kProcessThreads));
}

void check_memory(const RunSpec& spec, RequestSet& set, const Resolved& resolved, const Room& room) {
  const auto there = bytes_there(spec, room);
  if (!there) return;
  Check check(spec, set, resolved, *there);
  check.weights();
  check.rows(set);
}

std::string choose_memory(RunSpec& spec, const Resolved& resolved, const Room& room) {
  const auto there = bytes_there(spec, room);
  if (!there) return "memory auto: how much memory there is cannot be read, so nothing is changed";
  const Check check(spec, spec.requests, resolved, *there);
  const auto flags = check.slower(spec.requests, spec.job.engine);
  if (!flags) return "memory auto: nothing that it may change makes this run fit";
  if (flags->empty()) return "memory auto: everything fits as it is";
  return "memory auto picks " + flags_text(resolved.surface, *flags);
}

std::string advice_for_memory(const RunSpec& spec, const Resolved& resolved, const request::Request& failed,
                              int64_t batch) {
  const Check check(spec, spec.requests, resolved, 0);
  return check.after_running_out({*failed.height, *failed.width, failed.num_frames.value_or(1)},
                                 std::max<int64_t>(1, batch));
}

}  // namespace atelier::app
