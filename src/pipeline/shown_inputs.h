// What requests show a model of videos beside their prompts: from files to tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "media/image.h"
#include "pipeline/model_repo.h"
#include "request/request.h"

namespace atelier::pipeline {

// Of a batch, on the CPU, in bytes; what the requests do not have is undefined or empty.
struct ShownInputs {
  at::Tensor image, last_image;                       // [B, H, W, 3], in the size that is drawn
  std::vector<media::Image> image_files, last_files;  // as their files have them, upright
  at::Tensor control, mask;                           // [B, frames, H, W, 3], in the size that is drawn
  std::vector<std::vector<media::Image>> references;  // as their files have them, upright
};

// Reads each file once. Pictures are resized as diffusers' VideoProcessor does it, without regard to their
// shape; of videos the first num_frames count, and a mask of one frame stands for all. Throws
// Error(kUsage) naming the file that cannot be used, that has too few frames, or that no longer holds what
// its request says.
ShownInputs read_shown(request::Requests batch, int64_t height, int64_t width);

// Whether a control video goes to a stream of the model's own.
bool has_control_stream(const ModelRepo& model);
// Else it goes to the inputs that an adapter adds. adapter: the file that adds some; empty: none does. What
// keeps one from going without the other, in a sentence; empty: nothing.
std::string control_problem(const ModelRepo& model, const std::string& adapter,
                            const request::Request& request);

// What keeps a video of `made` frames from guiding one of `frames`, in a sentence; empty: nothing.
std::string frames_problem(const std::string& file, int64_t made, int64_t frames);

}  // namespace atelier::pipeline
