// From the scripts' flags to settings.
#include "app/compat/scripts.h"

#include <algorithm>
#include <cstdlib>

#include "app/run/layout_choice.h"
#include "base/error.h"
#include "base/text.h"

namespace atelier::app {
namespace {

// Gives `to` the value that was given as `from`, unless somebody of a higher level sets it.
template <class T>
void hand_on(Resolved& r, const char* from, const char* to, const T& value, T& setting) {
  if (!r.is_set(from)) return;
  const Origin given = r.origin(from), there = r.origin(to);
  if (r.is_set(to) && there.level > given.level) return;
  if (r.is_set(to) && there.level == given.level && setting != value)
    throw Error(Kind::kUsage, str(given.text, " and ", there.text, " say different things; keep one"));
  setting = value;
  r.origins[to] = given;
}

void refuse_other_inputs(const Resolved& r) {
  for (const char* name : {"prompt", "seed", "num_images_per_prompt"}) {
    if (r.is_set(name))
      throw Error(Kind::kUsage,
                  str(r.origin(name).text,
                      " has no place here: prompts come from --prompts FILE.csv, and each has a "
                      "picture for every number of --seeds"));
  }
}

template <class T>
void refuse_twice(const Resolved& r, const char* name, std::vector<T> values) {
  std::sort(values.begin(), values.end());
  const auto at = std::adjacent_find(values.begin(), values.end());
  if (at != values.end())
    throw Error(Kind::kUsage, str(r.origin(name).text, ": ", *at, " stands there twice; name each once"));
}

void check_gpus(const Resolved& r) {
  const auto& ids = r.settings.scripts.gpu_ids;
  for (const int id : ids) {
    if (id < 0)
      throw Error(Kind::kUsage, str(r.origin("gpu_ids").text, ": ", id, " is no GPU; they count from 0"));
  }
  refuse_twice(r, "gpu_ids", ids);
  const auto& device = r.settings.device.device;
  if (!ids.empty() && device.starts_with("cuda:"))
    throw Error(Kind::kUsage, str(r.origin("gpu_ids").text, " and ", r.origin("device").text, " ", device,
                                  " both name GPUs; keep one"));
}

std::string list_of(const std::vector<int>& ids) {
  std::string out;
  for (const int id : ids) out += (out.empty() ? "" : ",") + std::to_string(id);
  return out;
}

// The GPUs of gpu_ids among those that CUDA_VISIBLE_DEVICES leaves.
std::string visible(const Resolved& r, const std::string& before) {
  const auto& ids = r.settings.scripts.gpu_ids;
  if (before.empty()) return list_of(ids);
  const auto all = words_of(before);
  std::string out;
  for (const int id : ids) {
    if (id >= std::ssize(all))
      throw Error(Kind::kUsage, str(r.origin("gpu_ids").text, ": there is no GPU ", id,
                                    ": CUDA_VISIBLE_DEVICES leaves ", all.size()));
    out += (out.empty() ? "" : ",") + all[static_cast<size_t>(id)];
  }
  return out;
}

// GPUs, or on the CPU ranks, that a run may use. Throws Error(kUsage).
int usable(const Resolved& r, int devices) {
  const auto& s = r.settings;
  const auto& ids = s.scripts.gpu_ids;
  if (s.device.device == "cpu" || (devices == 0 && ids.empty()))
    return ids.empty() ? s.scripts.max_workers.value_or(1) : static_cast<int>(ids.size());
  if (s.device.device.starts_with("cuda:")) return 1;
  if (ids.empty()) return devices;
  if (devices < std::ssize(ids))
    throw Error(Kind::kUsage,
                str(r.origin("gpu_ids").text, ": there is no GPU ", ids[static_cast<size_t>(devices)],
                    " that this program can use; without one, --device cpu takes a worker for each"));
  return static_cast<int>(ids.size());
}

}  // namespace

void settle_scripts(Resolved& r) {
  if (r.surface != kScripts) return;
  auto& s = r.settings;
  refuse_other_inputs(r);
  hand_on(r, "prompts", "prompts_file", s.scripts.prompts, s.input.prompts_file);
  hand_on(r, "output", "output_dir", s.scripts.output, s.output.output_dir);
  hand_on(r, "steps", "num_inference_steps", s.scripts.steps, s.input.row.request.num_inference_steps);
  if (r.is_set("dummy") && !r.is_set("model_name")) s.model.model_name.clear();
  check_gpus(r);
  refuse_twice(r, "seeds", seeds_of(r));
}

void show_gpus(const Resolved& r) {
  if (r.surface != kScripts || r.settings.scripts.gpu_ids.empty()) return;
  const char* before = std::getenv("CUDA_VISIBLE_DEVICES");
  ::setenv("CUDA_VISIBLE_DEVICES", visible(r, before ? before : "").c_str(), 1);
  // as nvidia-smi counts, and not the fastest first
  if (!before) ::setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
}

void settle_workers(Resolved& r, int devices) {
  if (r.surface != kScripts) return;
  auto& s = r.settings;
  const bool is_single = s.scripts.mode == "single";
  const int most = usable(r, devices), asked = s.scripts.max_workers.value_or(most);
  int workers = std::min(most, asked);
  if (asked > most)
    r.notes.push_back(str(r.origin("max_workers").text, " ", asked, ": ", most,
                          most == 1 ? " GPU may" : " GPUs may", " be used, and each has one worker"));
  const bool is_asked = r.is_set("gpu_ids") || r.is_set("max_workers");
  if (is_single && is_asked && workers > 1) {
    r.notes.push_back(str("mode single draws on one GPU",
                          s.scripts.gpu_ids.empty() ? "" : ": the first of --gpu_ids",
                          "; --mode multi uses all"));
  }
  if (is_single) workers = 1;
  if (!is_asked && degrees_of(r) != plan::ParallelConfig()) return;  // a layout of their own says how many
  if (const int own = asked_ranks(r); own > 0) {
    workers = own;
  } else {
    s.device.num_gpus = std::to_string(workers);
    const char* by = r.is_set("max_workers") && asked <= most ? "max_workers" : "gpu_ids";
    r.origins["num_gpus"] =
        r.is_set(by) ? r.origin(by) : Origin{Precedence::kDefault, "mode " + s.scripts.mode};
  }
  if (s.scripts.mode != "multi") return;
  if (s.input.batch_size > 1 && workers > 1)
    r.notes.push_back(str("each of ", workers, " workers draws ", s.input.batch_size, " pictures at once"));
  s.input.batch_size *= workers;
}

std::vector<uint64_t> seeds_of(const Resolved& r) {
  std::vector<uint64_t> out;
  if (r.surface != kScripts) return out;
  for (const auto& given : r.settings.scripts.seeds) {
    for (const auto& word : words_of(given)) {
      const auto value = to_unsigned(word);
      if (!value)
        throw Error(Kind::kUsage,
                    str(r.origin("seeds").text, ": \"", word, "\" is no seed; seeds are numbers from 0"));
      out.push_back(*value);
    }
  }
  if (out.empty()) throw Error(Kind::kUsage, str(r.origin("seeds").text, " needs a number"));
  return out;
}

std::filesystem::path list_file(const Resolved& r) {
  const auto& s = r.settings;
  auto folder = std::filesystem::absolute(s.output.output_dir).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  const auto& mode = s.scripts.mode;
  std::string name = mode == "multi"          ? "generated_multi_gpu"
                     : mode == "dataparallel" ? "generated_dataparallel"
                                              : "generated";
  const auto& d = s.device;
  if (d.num_nodes > 1 && !d.span_nodes) name += str("_node", d.node_rank);
  return folder.parent_path() / (name + ".csv");
}

std::string gpu_of(const Resolved& r, bool is_cuda, int rank) {
  if (!is_cuda) return {};
  const auto& ids = r.settings.scripts.gpu_ids;
  return std::to_string(rank < std::ssize(ids) ? ids[static_cast<size_t>(rank)] : rank);
}

}  // namespace atelier::app
