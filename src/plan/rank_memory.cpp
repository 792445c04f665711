#include "plan/rank_memory.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "plan/mesh.h"
#include "plan/route.h"

namespace atelier::plan {
namespace {

// Constants of buffers; docs/plan.md has the rows that they were fitted on.
constexpr double kWidths = 11.4;          // of a token's activations while a block runs
constexpr double kExchangedWidths = 4.6;  // more of them where heads are exchanged
constexpr double kCachedWidths = 5;       // of a step cache: what it keeps, and the tokens before the blocks
constexpr double kGatheredWidths = 4;     // per rank that gathers: keys and values as they arrive, in order
constexpr double kFixed = 80e6;           // bytes of a rank that draws anything: tables of steps, workspaces
constexpr double kPictureBuffers = 6.9;  // of the picture's size and the decoder's width, while it is decoded
constexpr double kHostBuffers = 2;       // the same, which no decoder does without
constexpr double kHalves = 1.4;          // what rows of neighbours add where ranks decode together

int64_t bytes(double value) {
  return static_cast<int64_t>(std::llround(value));
}

struct Group {
  const StepQuery& query;
  const MemoryQuery& memory;
  const ParallelConfig& d;
  Plan plan;

  double sequence() const { return sequence_size(d); }
  double samples() const {
    return std::max(1, query.layout.work.batch / d.data) * (double{1} * query.layout.work.branches / d.cfg);
  }
  double tokens() const {
    const auto& w = query.layout.work;
    const bool has_text = !query.model.blocks.empty() && query.model.blocks.front().per_text_token > 0;
    const int64_t text = has_text ? w.text_tokens + query.model.more_text_tokens : 0;
    return static_cast<double>((query.grid_tokens > 0 ? query.grid_tokens : w.image_tokens) + text);
  }
  double width() const {
    double most = 0;
    for (const auto& b : query.model.blocks) most = std::max(most, b.width * b.share);
    return most;
  }

  // Blocks of a stage with its share of the tables, in numbers; the largest block.
  struct Share {
    double blocks = 0, tables = 0, largest = 0;
  };
  Share share(int stage) const {
    const auto& model = query.model;
    double all = 0;
    for (const auto& w : model.blocks) all += w.modulation;
    Share out;
    for (const ModelChunk& chunk : chunks_of(plan.chunks, stage)) {
      for (auto i = static_cast<size_t>(chunk.begin); i < static_cast<size_t>(chunk.end); ++i) {
        const auto count = i < model.weights.blocks.size() ? static_cast<double>(model.weights.blocks[i]) : 0;
        out.blocks += count, out.largest = std::max(out.largest, count);
        if (all > 0) out.tables += model.blocks[i].modulation / all;
      }
    }
    out.tables = (all > 0 ? out.tables : 1) * static_cast<double>(model.weights.tables);
    return out;
  }

  double denoiser(int stage) const {
    const Share s = share(stage);
    const auto& sizes = memory.sizes;
    double blocks = s.blocks / d.tensor / d.shard * sizes.blocks;
    if (d.shard > 1) blocks += 2 * s.largest / d.tensor * sizes.blocks;
    return static_cast<double>(memory.denoisers) *
           (blocks + sizes.denoiser *
                         (s.tables / d.tensor / sequence() + static_cast<double>(query.model.weights.outer)));
  }

  // Keys and values of all tokens for the heads of this rank, for every block of the stage: a ring keeps
  // what comes by.
  double keys(int stage) const {
    const bool flows =
        patch_count(d) > 1 && (query.layout.work.steps == 0 || query.layout.work.steps > d.warmup);
    if (!flows) return 0;
    double width = 0;
    for (const ModelChunk& chunk : chunks_of(plan.chunks, stage)) {
      for (auto i = static_cast<size_t>(chunk.begin); i < static_cast<size_t>(chunk.end); ++i)
        width += i < query.model.blocks.size() ? query.model.blocks[i].self_width : 0;
    }
    const double size = query.has_e4m3_attention ? 1 : memory.sizes.denoiser;
    return 2 * size * samples() * tokens() * width / d.tensor / d.ulysses;
  }

  double activations() const {
    if (!memory.is_device) return 0;
    const double widths = (kWidths + (d.ulysses > 1 ? kExchangedWidths : 0) +
                           (d.kv_gather > 1 ? kGatheredWidths * d.kv_gather : 0)) /
                          std::sqrt(double{1} * d.tensor);
    const double rows = std::ceil(tokens() / sequence()) * samples();
    double kept = 0;  // long skips, step caches
    if (const int64_t skips = query.layout.model.blocks / 2 - 1; query.layout.model.has_skips)
      kept = static_cast<double>(skips) / d.pipeline;
    if (query.layout.work.has_step_cache) kept += kCachedWidths;
    return kFixed + rows * width() * memory.sizes.denoiser * (widths + kept);
  }

  // Three channels of every frame.
  double decoded() const {
    constexpr double kBytes = 3 * 4;
    return memory.frames > 1
               ? kBytes * static_cast<double>(memory.frames) * static_cast<double>(memory.pixels)
               : 0;
  }

  int64_t batch() const { return std::max(1, query.layout.work.batch / d.data); }
  bool is_shared() const { return codes_by_rows(d, coded_picture(memory, batch())); }
  double pictures() const {
    if (memory.has_tiles) return decoded();
    const auto at_once = static_cast<double>(memory.has_slices ? 1 : batch());
    const double cut = is_shared() && memory.is_device ? kHalves / replica_size(d) : 1;
    return (memory.is_device ? kPictureBuffers : kHostBuffers) * memory.sizes.vae * at_once *
               static_cast<double>(memory.vae_width) * static_cast<double>(memory.pixels) *
               std::min(1.0, cut) +
           decoded();
  }
};

// What is not there at the same time as the rest.
int64_t moved_away(const RankMemory& r, const Group& g) {
  if (g.memory.offload == Offload::kNone) return 0;
  int64_t denoiser = r.denoiser;
  // A layout that shares its blocks keeps the shares where they are.
  if (g.memory.offload == Offload::kBlocks && g.d.shard == 1) {
    const auto s = g.share(0);
    const double blocks = (s.blocks - 2 * s.largest) / g.d.tensor * g.memory.sizes.blocks;
    denoiser -= bytes(std::max(0.0, blocks));
  }
  if (g.memory.offload == Offload::kEncoders) {
    const int64_t rest = denoiser + r.vae + r.keys + r.activations + r.pictures;
    return r.encoders + rest - std::max(r.encoders, rest);
  }
  const int64_t step = denoiser + r.keys + r.activations;
  const int64_t picture = r.vae + r.pictures + r.keys + r.activations;
  return r.weights() + r.keys + r.activations + r.pictures - std::max({step, r.encoders, picture});
}

std::string gibibytes(int64_t n) {
  const auto tenths = static_cast<double>(std::llround(10 * static_cast<double>(n) / double{1 << 30})) / 10;
  return tenths >= 0.1 ? str(tenths, " GiB") : str(n >> 20, " MiB");
}

// On this rank. Encoders that are cut are run by all ranks, and the others beside them.
double encoder_numbers(const MemoryQuery& memory, int rank, int ranks) {
  const auto all = static_cast<double>(memory.encoders), cut = static_cast<double>(memory.shared_encoders);
  if (cut == 0 || ranks == 1) return rank == 0 ? all : 0;
  return all - cut + cut / ranks;
}

}  // namespace

CodedPicture coded_picture(const MemoryQuery& m, int64_t batch) {
  return {.latent_rows = m.latent_rows,
          .pixels = (m.has_slices ? 1 : batch) * m.pixels * std::min(m.frames, m.frames_at_once),
          .is_device = m.is_device,
          .has_tiles = m.has_tiles};
}

std::vector<RankMemory> rank_memory(const StepQuery& query, const MemoryQuery& memory,
                                    const ParallelConfig& degrees) {
  const Group g{query, memory, degrees, plan_for(degrees, query.layout.model)};
  const int ranks = replica_size(degrees);
  auto sizes = mesh_sizes(degrees);
  sizes[static_cast<int>(Axis::kData)] = 1;
  std::vector<RankMemory> out;
  for (int rank = 0; rank < ranks; ++rank) {
    const int stage = Mesh(sizes, rank).index(Axis::kPipeline);
    RankMemory r{.denoiser = bytes(g.denoiser(stage)),
                 .keys = bytes(g.keys(stage)),
                 .activations = bytes(g.activations())};
    r.encoders = bytes(memory.sizes.encoders * encoder_numbers(memory, rank, ranks));
    if (rank == 0 || may_code_by_rows(degrees, memory.has_tiles))
      r.vae = bytes(memory.sizes.vae * static_cast<double>(memory.vae));
    if (rank == 0 || g.is_shared()) r.pictures = bytes(g.pictures());
    r.moved = moved_away(r, g);
    out.push_back(r);
  }
  return out;
}

size_t fullest(const std::vector<RankMemory>& ranks) {
  const auto most =
      std::max_element(ranks.begin(), ranks.end(),
                       [](const RankMemory& a, const RankMemory& b) { return a.total() < b.total(); });
  return static_cast<size_t>(most - ranks.begin());
}

std::string in_words(const RankMemory& m) {
  std::string out;
  for (const auto& [name, n] : {std::pair{"denoiser", m.denoiser},
                                {"encoders", m.encoders},
                                {"VAE", m.vae},
                                {"stale keys", m.keys},
                                {"activations", m.activations},
                                {"decoding", m.pictures}}) {
    if (n > 0) out += str(out.empty() ? "" : ", ", name, " ", gibibytes(n));
  }
  if (m.moved > 0) out += str(", not all at once: ", gibibytes(m.moved), " less");
  return out;
}

}  // namespace atelier::plan
