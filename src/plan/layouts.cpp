// Limits of layouts, the search over all of them, and what to say about them.
#include "plan/layouts.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "base/check.h"
#include "base/error.h"
#include "base/partition.h"
#include "plan/percent.h"
#include "plan/route.h"

namespace atelier::plan {
namespace {

constexpr double kTolerableIdle = 0.1;

int most_stages(const LayoutQuery& p) {
  return p.model.has_skips ? (p.model.blocks + 1) / 2 : p.model.blocks;
}
int64_t ceil_div(int64_t total, int64_t parts) {
  return (total + parts - 1) / parts;
}
double idle(double work, double parts, double largest) {
  return 1 - work / (parts * largest);
}
double head_idle(const ParallelConfig& d, const LayoutQuery& p) {
  const int cut = p.model.has_convolution_mixer ? 1 : d.ulysses;
  return idle(p.model.heads, d.tensor * cut,
              static_cast<double>(ceil_div(ceil_div(p.model.heads, d.tensor), cut)));
}

double token_idle(const ParallelConfig& d, const LayoutQuery& p) {
  const int patches = patch_count(d);
  const double largest =
      static_cast<double>(ceil_div(ceil_div(p.work.image_tokens, patches), sequence_size(d)));
  return idle(static_cast<double>(p.work.image_tokens), patches * sequence_size(d), largest);
}

std::vector<int> stage_loads(const ParallelConfig& d, const LayoutQuery& p) {
  std::vector<int> loads(d.pipeline, 0);
  for (const ModelChunk& chunk : plan_for(d, p.model).chunks) loads[chunk.stage] += chunk.end - chunk.begin;
  return loads;
}

double stage_idle(const ParallelConfig& d, const LayoutQuery& p) {
  const auto loads = stage_loads(d, p);
  return idle(p.model.blocks, d.pipeline, *std::max_element(loads.begin(), loads.end()));
}

std::string ranks_without(int64_t n) {
  return str(n, n == 1 ? " rank" : " ranks", " would have none");
}

std::string cut_refusal(const ParallelConfig& d, const LayoutQuery& p) {
  if (d.pipeline > 1 && p.model.has_convolution_mixer) {
    return str("pipefusion=", d.pipeline, ": ", p.model.name,
               " mixes positions by convolutions, which stale patches cannot serve: pipefusion must be 1");
  }
  if (d.pipeline > most_stages(p)) {
    return str("pipefusion=", d.pipeline, ": ", d.pipeline, " stages, but ", p.model.name, " has ",
               p.model.blocks, " blocks", p.model.has_skips ? " in mirrored pairs" : "", ": at most ",
               most_stages(p), " stages");
  }
  const int64_t head_ranks = int64_t{p.model.has_convolution_mixer ? 1 : d.ulysses} * d.tensor;
  if (head_ranks > p.model.heads) {
    return str("ulysses ", d.ulysses, " x tensor ", d.tensor, " = ", head_ranks,
               " ranks share the heads, but ", p.model.name, " has ", p.model.heads,
               " heads: ", ranks_without(head_ranks - p.model.heads));
  }
  const int64_t token_ranks = sequence_size(d);
  if (token_ranks > p.work.image_tokens) {
    return str(sequence_product(d), " = ", token_ranks, " ranks share the image, but it has ",
               p.work.image_tokens,
               p.model.has_convolution_mixer ? " rows of its smallest size to share" : " tokens", ": ",
               ranks_without(token_ranks - p.work.image_tokens));
  }
  if (patch_count(d) > p.work.image_tokens) {
    return str("patches=", patch_count(d), ": the image has ", p.work.image_tokens,
               " tokens, one patch each at most");
  }
  return "";
}

// Why these degrees cannot work for this model on any number of ranks; empty: they can.
std::string refusal(const ParallelConfig& d, const LayoutQuery& p) {
  for (const auto& [name, value] : {std::pair{"data", d.data},
                                    {"cfg", d.cfg},
                                    {"pipefusion", d.pipeline},
                                    {"ring", d.ring},
                                    {"kv_gather", d.kv_gather},
                                    {"ulysses", d.ulysses},
                                    {"tensor", d.tensor},
                                    {"shard", d.shard}}) {
    if (value < 1) return str(name, "=", value, ": a degree must be at least 1");
  }
  if (d.patches < 0) return str("patches=", d.patches, ": must be at least 1, or 0 for as many as stages");
  if (d.warmup < 0) return str("warmup=", d.warmup, ": must be at least 0 steps");
  if (d.cfg > 2) return str("cfg=", d.cfg, ": there are two branches of guidance, so cfg must be 1 or 2");
  if (d.cfg > p.work.branches) {
    return str(
        "cfg=2: ", p.model.name,
        " runs one branch per step here (a distilled model, or guidance switched off), so there is no second "
        "branch to give to the other ranks; use ulysses_degree ",
        2 * d.ulysses, " or ring_degree ", 2 * d.ring,
        " in its place, or ask for real guidance with a negative prompt and true_cfg_scale above 1, which "
        "makes cfg=2 legal");
  }
  std::string cut = cut_refusal(d, p);
  if (cut.empty() && sequence_size(d) % d.shard != 0) {
    return str("shard=", d.shard, ": weights are shared among the ", sequence_product(d), " = ",
               sequence_size(d), " ranks of a sequence group, so shard must divide ", sequence_size(d));
  }
  return cut;
}

// Preference among layouts that waste the same.
auto default_order(const ParallelConfig& d) {
  return std::tuple(-d.cfg, d.data, d.tensor, d.pipeline, d.kv_gather, d.ring);
}

// How far a layout is from the one that was asked for. Replicas and tensor cuts serve another purpose than
// the sequence axes, so going there counts double.
double distance(const ParallelConfig& a, const ParallelConfig& b) {
  const auto x = mesh_sizes(a), y = mesh_sizes(b);
  double sum = 0;
  for (int axis = 0; axis < kAxes; ++axis) {
    const bool far = axis == static_cast<int>(Axis::kData) || axis == static_cast<int>(Axis::kTensor);
    sum += (far ? 2 : 1) * std::abs(std::log2(static_cast<double>(std::max(x[axis], 1)) / y[axis]));
  }
  return sum;
}

// Stable; the key of each is made once.
template <class Key>
void sort_by(std::vector<ParallelConfig>& layouts, const Key& key) {
  using Keyed = std::pair<decltype(key(layouts.front())), ParallelConfig>;
  std::vector<Keyed> keyed;
  for (const ParallelConfig& d : layouts) keyed.emplace_back(key(d), d);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const Keyed& a, const Keyed& b) { return a.first < b.first; });
  for (size_t i = 0; i < keyed.size(); ++i) layouts[i] = keyed[i].second;
}

std::vector<ParallelConfig> nearest(const ParallelConfig& asked, const LayoutQuery& p, int ranks,
                                    size_t most) {
  auto found = layouts(p, ranks);
  sort_by(found, [&](const ParallelConfig& d) {
    return std::pair(idle_share(d, p) > kTolerableIdle, distance(asked, d));
  });
  if (found.size() > most) found.resize(most);
  return found;
}

std::string in_words(const std::vector<ParallelConfig>& found) {
  std::string text;
  for (const ParallelConfig& d : found) text += str(text.empty() ? "" : " | ", to_string(d));
  return text;
}

constexpr int kMostRanks = 4096;  // beyond it nobody reads suggestions
constexpr int kFewRanks = 64;     // up to it, every smaller number of ranks is tried

// The layout nearest to what was asked for on fewer ranks, but on half of them at least.
ParallelConfig nearest_smaller(const ParallelConfig& asked, const LayoutQuery& p, int ranks) {
  if (ranks > kFewRanks) return nearest(asked, p, ranks / 2, 1).front();
  std::optional<ParallelConfig> best;
  const auto key = [&](const ParallelConfig& d) {
    return std::pair(idle_share(d, p) > kTolerableIdle, distance(asked, d));
  };
  for (int n = ranks - 1; n >= ranks / 2; --n) {
    const auto d = nearest(asked, p, n, 1).front();
    if (!best || key(d) < key(*best)) best = d;
  }
  return *best;
}

std::string suggestions(const ParallelConfig& asked, const LayoutQuery& p, int ranks) {
  std::string text;
  if (ranks >= 1 && ranks <= kMostRanks)
    text = str("; layouts of ", ranks, ranks == 1 ? " rank" : " ranks",
               " that work: ", in_words(nearest(asked, p, ranks, 3)));
  if (ranks >= 2 && ranks <= kMostRanks) {
    const auto fewer = nearest_smaller(asked, p, ranks);
    text += str("; of ", world_size(fewer), ": ", to_string(fewer));
  }
  return text;
}

// Calls visit with every way to write `left` as a product along the axes from `axis` on.
template <class Visit>
void factorise(std::array<int, kAxes>& sizes, int axis, int left, const Visit& visit) {
  if (axis == kAxes - 1) {
    sizes[axis] = left;
    return visit(sizes);
  }
  for (int size = 1; size <= left; ++size) {
    if (left % size != 0) continue;
    sizes[axis] = size;
    factorise(sizes, axis + 1, left / size, visit);
  }
}

std::string run_lengths(int64_t total, int parts) {
  std::string text;
  for (int i = 0; i < parts; ++i) text += str(i ? "/" : "", Partition{total, parts}[i].size);
  return text;
}

void advise_on_heads(const ParallelConfig& d, const LayoutQuery& p, std::vector<std::string>& lines) {
  const double share = head_idle(d, p);
  if (percent(share) == 0) return;
  const int ranks = d.tensor * (p.model.has_convolution_mixer ? 1 : d.ulysses);
  std::string line =
      str(p.model.heads, " heads over ", d.tensor > 1 ? str("tensor ", d.tensor, " x ") : "", "ulysses ",
          d.ulysses, d.tensor > 1 ? "" : " (" + run_lengths(p.model.heads, ranks) + ")", ": ", percent(share),
          " % of the attention time is idle");
  for (const ParallelConfig& even : nearest(d, p, world_size(d), 8)) {
    if (percent(head_idle(even, p)) > 0 || idle_share(even, p) >= idle_share(d, p)) continue;
    // groups without a picture are the most idle of all
    if (p.work.pictures > 0 && even.data > std::max<int64_t>(d.data, p.work.pictures)) continue;
    line += str("; an even layout of the same ", world_size(d), " ranks: ", to_string(even));
    break;
  }
  lines.push_back(line);
}

void advise_on_stages(const ParallelConfig& d, const LayoutQuery& p, std::vector<std::string>& lines) {
  if (percent(stage_idle(d, p)) == 0) return;
  std::string list;
  for (int load : stage_loads(d, p)) list += str(list.empty() ? "" : "/", load);
  lines.push_back(str(p.model.blocks, " blocks over ", d.pipeline, " stages (", list,
                      "): ", percent(stage_idle(d, p)), " % of the time is idle"));
}

// Groups take batch / data pictures at a time; what is left for a last round is shared out evenly.
void advise_on_groups(const ParallelConfig& d, const Workload& work, std::vector<std::string>& lines) {
  if (d.data == 1 || work.batch == 0) return;
  if (work.batch > d.data && work.batch % d.data != 0) {
    lines.push_back(str("batch ", work.batch, " over data ", d.data, ": each group draws ",
                        work.batch / d.data, " at a time, ", work.batch % d.data, " of ", work.batch,
                        " find no place; use a multiple of ", d.data));
  }
  const int64_t round = int64_t{d.data} * std::max(1, work.batch / d.data), rest = work.pictures % round;
  const int64_t idle = rest % d.data == 0 ? 0 : d.data - rest % d.data;
  if (idle == 0) return;
  lines.push_back(str(work.pictures, work.pictures == 1 ? " picture over data " : " pictures over data ",
                      d.data, ": ", idle, " of ", d.data,
                      rest < d.data ? " groups have nothing to draw" : " groups draw one less",
                      " in the last round"));
}

void advise_on_patches(const ParallelConfig& d, std::vector<std::string>& lines) {
  if (d.pipeline > 1) return;
  if (d.patches > 1) lines.push_back(str("patches=", d.patches, " has no effect with one stage"));
  if (d.sync) lines.push_back("sync has no effect with one stage");
}

}  // namespace

void validate(const ParallelConfig& degrees, const LayoutQuery& query, int num_gpus) {
  const std::string why = refusal(degrees, query);
  const int ranks = num_gpus > 0 ? num_gpus : std::max(world_size(degrees), 1);
  if (!why.empty()) throw Error(Kind::kUsage, why + suggestions(degrees, query, ranks));
  if (num_gpus == 0 || world_size(degrees) == num_gpus) return;
  throw Error(Kind::kUsage,
              str("the degrees need ", world_size(degrees), " ranks (", product(degrees), "), but ", num_gpus,
                  " are asked for: the number of GPUs is the product of all degrees",
                  suggestions(degrees, query, num_gpus)));
}

std::vector<ParallelConfig> layouts(const LayoutQuery& query, int num_gpus) {
  ENSURE(num_gpus >= 1);
  std::vector<ParallelConfig> found;
  std::array<int, kAxes> sizes{};
  factorise(sizes, 0, num_gpus, [&](const std::array<int, kAxes>& z) {
    const ParallelConfig d{.data = z[0],
                           .cfg = z[1],
                           .pipeline = z[2],
                           .ring = z[3],
                           .kv_gather = z[4],
                           .ulysses = z[5],
                           .tensor = z[6]};
    if (refusal(d, query).empty()) found.push_back(d);
  });
  sort_by(found, [&](const ParallelConfig& d) {
    return std::pair(percent(idle_share(d, query)), default_order(d));
  });
  return found;
}

ParallelConfig automatic(const LayoutQuery& query, int num_gpus) {
  ENSURE(num_gpus >= 1);
  ParallelConfig d;
  int left = num_gpus;
  if (query.work.branches >= 2 && left % 2 == 0) {
    d.cfg = 2;
    left /= 2;
  }
  const int64_t most = query.model.has_convolution_mixer
                           ? query.work.image_tokens
                           : std::min<int64_t>(query.model.heads, query.work.image_tokens);
  const auto largest = [&](double tolerated) {
    for (int ulysses = left; ulysses > 1; --ulysses) {
      ParallelConfig trial = d;
      trial.ulysses = ulysses;
      if (left % ulysses == 0 && ulysses <= most && head_idle(trial, query) <= tolerated) return ulysses;
    }
    return 1;
  };
  d.ulysses = largest(kTolerableIdle);
  if (d.ulysses == 1) d.ulysses = largest(1);
  left /= d.ulysses;
  for (d.ring = left; left % d.ring != 0 || int64_t{d.ring} * d.ulysses > query.work.image_tokens;) --d.ring;
  d.data = left / d.ring;
  return d;
}

ParallelConfig split_batch(const LayoutQuery& query, int num_gpus) {
  ENSURE(num_gpus >= 1);
  const int cfg = query.work.branches >= 2 && num_gpus % 2 == 0 ? 2 : 1;
  const int left = num_gpus / cfg;
  int64_t pictures = std::max(query.work.batch, 1);
  if (query.work.pictures > 0) pictures = std::min(pictures, query.work.pictures);
  int data = static_cast<int>(std::min<int64_t>(left, pictures));
  while (left % data != 0) --data;
  LayoutQuery one_branch = query;
  one_branch.work.branches = 1;
  ParallelConfig d = automatic(one_branch, left / data);
  d.cfg = cfg;
  d.data *= data;
  return d;
}

double idle_share(const ParallelConfig& degrees, const LayoutQuery& query) {
  return 1 - (1 - head_idle(degrees, query)) * (1 - token_idle(degrees, query)) *
                 (1 - stage_idle(degrees, query));
}

std::vector<std::string> advice(const ParallelConfig& degrees, const LayoutQuery& query) {
  std::vector<std::string> lines;
  advise_on_heads(degrees, query, lines);
  if (const double share = token_idle(degrees, query); percent(share) > 0) {
    const bool has_rows = query.model.has_convolution_mixer;
    lines.push_back(str(query.work.image_tokens, has_rows ? " rows of the smallest size in " : " tokens in ",
                        patch_count(degrees), patch_count(degrees) == 1 ? " patch over " : " patches over ",
                        sequence_size(degrees), " ranks: ", percent(share), " % of the time is idle"));
  }
  advise_on_stages(degrees, query, lines);
  advise_on_patches(degrees, lines);
  advise_on_groups(degrees, query.work, lines);
  return lines;
}

}  // namespace atelier::plan
