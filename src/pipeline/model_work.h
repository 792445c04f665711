// What a model computes and holds, for predictions.
#pragma once
#include <cstdint>

#include "base/model_facts.h"
#include "pipeline/model_repo.h"

namespace atelier::pipeline {

// As its family says, with the numbers of its first denoiser counted by building it on no device. Without
// blocks where the family does not say.
ModelWork model_work(const ModelRepo& repo);
// Positions of a picture or video in the denoiser, those that are never split too. Throws Error(kUsage) for a
// size that the model cannot draw.
int64_t grid_tokens(const ModelRepo& repo, int64_t height, int64_t width, int64_t frames = 1);

}  // namespace atelier::pipeline
