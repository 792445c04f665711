// A denoiser's published network as other programs call it: what it takes besides its latents and its timestep, by the
// names of that network's arguments. A family takes those that it knows, and what is left is refused by name.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "models/family.h"
#include "nn/model.h"

namespace atelier::models {

using NamedTensors = std::map<std::string, at::Tensor, std::less<>>;

class NetworkInputs {
 public:
  // tensors: [batch, ...] each; family: for messages.
  NetworkInputs(std::string_view family, NamedTensors tensors, int64_t batch)
      : family_(family), tensors_(std::move(tensors)), batch_(batch) {}

  // The tensor of this name, [batch, sizes...]; a size of -1 may be any but 0. Throws Error(kUsage) where it is absent
  // or has other sizes.
  at::Tensor take(std::string_view name, const std::vector<int64_t>& sizes);
  // The same; undefined where it is absent.
  at::Tensor take_if_there(std::string_view name, const std::vector<int64_t>& sizes);
  // Of a [batch] whose samples agree.
  double take_number(std::string_view name, double otherwise);
  // Throws Error(kUsage) with what nobody took.
  void refuse_rest() const;

 private:
  std::string_view family_;
  NamedTensors tensors_;
  int64_t batch_;
  std::vector<std::string> asked_;  // for messages
};

// How one family is called. Its timestep is Family::pipeline_time_scale times what a sampler tells the denoiser.
struct NetworkCall {
  std::string_view family;
  // What the inputs condition a batch on; config: of the denoiser. Throws Error(kUsage) for what does not fit.
  nn::Conditioning (*condition)(const Json& config, NetworkInputs& inputs);
  // Channels of the latents that a call has: those behind the denoiser's own are given. Null: its own alone.
  int64_t (*channels)(const Json& config) = nullptr;
  // What else steers it. Null: nothing.
  GivenLatents (*given)(const Json& config, NetworkInputs& inputs, const Grid& grid) = nullptr;
};
// Null: the family is not called from outside in this build.
const NetworkCall* find_network_call(std::string_view family);

}  // namespace atelier::models
