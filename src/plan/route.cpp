// Splits of a block list over stages.
#include "plan/route.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "base/partition.h"
#include "plan/mesh.h"

namespace atelier::plan {
namespace {

void require_a_block_per_stage(int units, int blocks, int stages, const char* why) {
  if (stages >= 1 && stages <= units) return;
  throw Error(Kind::kUsage, str("pipefusion=", stages, " asks for ", stages, " stages, but the model has ",
                                blocks, " blocks", why, ": choose 1 to ", units, " stages"));
}

std::vector<ModelChunk> in_order(std::span<const int> sizes) {
  std::vector<ModelChunk> chunks;
  int begin = 0;
  for (int stage = 0; stage < static_cast<int>(sizes.size()); ++stage) {
    chunks.push_back({stage, begin, begin + sizes[stage]});
    begin += sizes[stage];
  }
  return chunks;
}

// Both ends of so many long skips on each stage; the middle one of an odd number of blocks on the last.
std::vector<ModelChunk> mirrored(int blocks, std::span<const int> pairs) {
  const auto forward = in_order(pairs);
  std::vector<ModelChunk> chunks = forward;
  for (auto chunk = forward.rbegin(); chunk != forward.rend(); ++chunk) {
    const int begin = chunk == forward.rbegin() ? blocks / 2 : blocks - chunk->end;
    chunks.push_back({chunk->stage, begin, blocks - chunk->begin});
  }
  std::erase_if(chunks, [](const ModelChunk& chunk) { return chunk.begin == chunk.end; });
  return chunks;
}

// The same, of stages with so many blocks each (--attn_layer_num_for_pp).
std::vector<ModelChunk> mirrored_stages(int blocks, int stages, std::span<const int> sizes) {
  straight(blocks, stages, sizes);  // or throws
  std::vector<int> pairs;
  for (int stage = 0; stage < stages; ++stage) {
    const int single = stage + 1 == stages ? blocks % 2 : 0;
    if (sizes[stage] % 2 != single) {
      throw Error(
          Kind::kUsage,
          str("attn_layer_num_for_pp gives stage ", stage + 1, " ", sizes[stage],
              " blocks; this model has long skips, and both ends of one must be on one stage: needed are ",
              single ? "an odd number" : "even numbers of blocks"));
    }
    pairs.push_back(sizes[stage] / 2);
  }
  return stages == 1 ? straight(blocks, 1) : mirrored(blocks, pairs);
}

// The smallest possible cost of the most expensive of `stages` runs. sum[i]: cost of the first i blocks.
double smallest_bottleneck(const std::vector<double>& sum, int stages) {
  const int n = static_cast<int>(sum.size()) - 1;
  std::vector<double> best(sum);  // best[i]: the first i blocks in the stages so far
  for (int stage = 1; stage < stages; ++stage) {
    for (int i = n; i > stage; --i) {
      best[i] = std::numeric_limits<double>::infinity();
      for (int cut = stage; cut < i; ++cut)
        best[i] = std::min(best[i], std::max(best[cut], sum[i] - sum[cut]));
    }
  }
  return best[n];
}

}  // namespace

std::vector<ModelChunk> straight(int blocks, int stages) {
  require_a_block_per_stage(blocks, blocks, stages, "");
  std::vector<int> sizes;
  for (int stage = 0; stage < stages; ++stage) {
    sizes.push_back(static_cast<int>(Partition{blocks, stages}[stage].size));
  }
  return in_order(sizes);
}

std::vector<ModelChunk> straight(int blocks, int stages, std::span<const int> sizes) {
  int sum = 0;
  std::string list;
  for (int size : sizes) {
    sum += size;
    list += str(list.empty() ? "" : ",", size);
  }
  const bool all_positive = std::all_of(sizes.begin(), sizes.end(), [](int size) { return size >= 1; });
  if (static_cast<int>(sizes.size()) != stages || sum != blocks || !all_positive) {
    throw Error(Kind::kUsage,
                str("attn_layer_num_for_pp ", list, ": ", sizes.size(), " numbers with the sum ", sum,
                    "; needed: ", stages, " numbers (one per stage), each at least 1, with the sum ", blocks,
                    " (the model's blocks)"));
  }
  return in_order(sizes);
}

std::vector<ModelChunk> straight(std::span<const double> cost, int stages) {
  const int n = static_cast<int>(cost.size());
  require_a_block_per_stage(n, n, stages, "");
  std::vector<double> sum{0};
  for (double block : cost) {
    ENSURE(block > 0);
    sum.push_back(sum.back() + block);
  }
  const double limit = smallest_bottleneck(sum, stages) * (1 + 1e-9);
  constexpr double kImpossible = std::numeric_limits<double>::infinity();
  // rest[k][i]: least sum of squares when blocks i.. fill the last k stages, none dearer than the limit.
  std::vector<std::vector<double>> rest(stages + 1, std::vector<double>(n + 1, kImpossible));
  const auto with_first = [&](int k, int i, int next) {
    const double first = sum[next] - sum[i];
    return first > limit ? kImpossible : first * first + rest[k - 1][next];
  };
  rest[0][n] = 0;
  for (int k = 1; k <= stages; ++k) {
    for (int i = 0; i < n; ++i) {
      for (int next = i + 1; next <= n; ++next) rest[k][i] = std::min(rest[k][i], with_first(k, i, next));
    }
  }
  std::vector<int> sizes;
  for (int k = stages, i = 0; k > 0; --k) {
    int next = n;  // the longest first run that is as good as any
    while (next > i + 1 && !(with_first(k, i, next) <= rest[k][i] * (1 + 1e-12))) --next;
    sizes.push_back(next - i);
    i = next;
  }
  return in_order(sizes);
}

std::vector<ModelChunk> folded(int blocks, int stages) {
  if (stages == 1) return straight(blocks, 1);
  require_a_block_per_stage((blocks + 1) / 2, blocks, stages, " in mirrored pairs");
  std::vector<int> pairs;
  for (int stage = 0; stage < stages; ++stage)
    pairs.push_back(static_cast<int>(Partition{blocks / 2, stages}[stage].size));
  return mirrored(blocks, pairs);
}

std::vector<ModelChunk> chunks_of(std::span<const ModelChunk> route, int stage) {
  std::vector<ModelChunk> mine;
  for (const ModelChunk& chunk : route) {
    if (chunk.stage == stage) mine.push_back(chunk);
  }
  return mine;
}

int stages_of(std::span<const ModelChunk> route) {
  int stages = 0;
  for (const ModelChunk& chunk : route) stages = std::max(stages, chunk.stage + 1);
  return stages;
}

Plan plan_for(const ParallelConfig& config, const ModelFacts& facts) {
  Plan plan{.config = config, .cuts_rows = facts.has_convolution_mixer};
  const int stages = config.pipeline;
  if (!config.stage_blocks.empty()) {
    plan.chunks = facts.has_skips ? mirrored_stages(facts.blocks, stages, config.stage_blocks)
                                  : straight(facts.blocks, stages, config.stage_blocks);
  } else if (facts.has_skips) {
    plan.chunks = folded(facts.blocks, stages);
  } else {
    plan.chunks = facts.cost.empty() ? straight(facts.blocks, stages) : straight(facts.cost, stages);
  }
  return plan;
}

std::string blocks_by_rank(const ParallelConfig& config, const ModelFacts& facts) {
  const auto route = plan_for(config, facts).chunks;
  const auto span = [](int first, int last) { return first == last ? str(first) : str(first, "-", last); };
  std::string out;
  for (int stage = 0; stage < stages_of(route); ++stage) {
    std::vector<int> ranks;
    for (int rank = 0; rank < world_size(config); ++rank) {
      if (Mesh(mesh_sizes(config), rank).index(Axis::kPipeline) == stage) ranks.push_back(rank);
    }
    out += str(out.empty() ? "" : ", ", ranks.size() == 1 ? "rank " : "ranks ");
    for (size_t i = 0, next = 0; i < ranks.size(); i = next) {
      for (next = i + 1; next < ranks.size() && ranks[next] == ranks[next - 1] + 1;) ++next;
      out += str(i ? "+" : "", span(ranks[i], ranks[next - 1]));
    }
    const auto chunks = chunks_of(route, stage);
    for (size_t i = 0, next = 0; i < chunks.size(); i = next) {
      for (next = i + 1; next < chunks.size() && chunks[next].begin == chunks[next - 1].end;) ++next;
      out += str(i ? "+" : " blocks ", span(chunks[i].begin, chunks[next - 1].end - 1));
    }
  }
  return out;
}

}  // namespace atelier::plan
