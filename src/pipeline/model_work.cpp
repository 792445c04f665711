#include "pipeline/model_work.h"

#include "nn/single_rank.h"
#include "weights/store.h"

namespace atelier::pipeline {
namespace {

// Memory for nothing, which counts by block what is asked for.
class CountedMemory : public nn::Resident {
 public:
  explicit CountedMemory(int blocks) { counts.blocks.resize(static_cast<size_t>(blocks)); }
  WeightCounts counts;

  nn::Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override {
    if (block >= std::ssize(counts.blocks)) counts.blocks.resize(static_cast<size_t>(block) + 1);
    int64_t& count = block >= 0         ? counts.blocks[static_cast<size_t>(block)]
                     : block == kTables ? counts.tables
                                        : counts.outer;
    count += c10::multiply_integers(sizes);
    return Resident::take(block, sizes, options);
  }
};

}  // namespace

ModelWork model_work(const ModelRepo& repo) {
  const auto& family = repo.family();
  ModelWork work = family.work ? family.work(repo.denoiser()) : ModelWork{};
  const int blocks = family.facts(repo.denoiser()).blocks;
  const auto store = weights::WeightStore::dummy(0);  // shapes are the same for all weights
  nn::SingleRank whole;
  CountedMemory memory(blocks);
  const nn::Builder builder(*store, whole.seams, memory, at::TensorOptions(at::kBFloat16).device(at::kMeta));
  const Range all{0, blocks};
  family.build(repo.denoiser(), builder, std::span(&all, 1));
  work.weights = std::move(memory.counts);
  return work;
}

int64_t grid_tokens(const ModelRepo& repo, int64_t height, int64_t width, int64_t frames) {
  return repo.grid(height, width, frames).tokens();
}

}  // namespace atelier::pipeline
