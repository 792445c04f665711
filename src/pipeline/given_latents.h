// From the pictures that a request shows to a model of videos to the latents that its denoiser is given.
#pragma once
#include <ATen/core/Tensor.h>

#include "models/family.h"
#include "nn/model.h"
#include "pipeline/denoise.h"
#include "pipeline/shown_inputs.h"
#include "request/request.h"

namespace atelier::pipeline {

// Sizes and numbers of what a request shows, without its pictures: every rank knows them.
models::ShownPictures shown_by(request::Requests batch);
// The same with the pictures, in [-1, 1], on the CPU. Reference pictures are fitted on a white canvas of the
// size that is drawn. cell: pixels per latent row.
models::ShownPictures shown_pictures(request::Requests batch, const ShownInputs& files, int64_t cell);

// As tensors by name, for a message, and back into what every rank knows.
nn::Conditioning packed(const models::ShownPictures& shown);
void unpack(const nn::Conditioning& message, models::ShownPictures& shown);
nn::Conditioning packed(const models::GivenLatents& given);
void unpack(const nn::Conditioning& message, models::GivenLatents& given);

// Token-major, as the executor takes them.
GivenTokens tokens_of(const models::GivenLatents& given, const models::Family& family,
                      const models::Grid& grid, const at::TensorOptions& options);

void record(const models::ShownPictures& shown, ActivationRecorder& probes);
void record(const models::GivenLatents& given, ActivationRecorder& probes);

}  // namespace atelier::pipeline
