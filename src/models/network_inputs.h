// What a denoiser's published network is called with besides its latents and its timestep, by the names
// of that network's arguments. A family takes those that it knows (NetworkCall), and what is left is
// refused by name.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/model.h"

namespace atelier::models {

using NamedTensors = std::map<std::string, at::Tensor, std::less<>>;

class NetworkInputs {
 public:
  // tensors: [batch, ...] each; family: for messages.
  NetworkInputs(std::string_view family, NamedTensors tensors, int64_t batch)
      : family_(family), tensors_(std::move(tensors)), batch_(batch) {}

  // The tensor of this name, [batch, sizes...]; a size of -1 may be any but 0. Throws Error(kUsage) where it
  // is absent or has other sizes.
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

// "context" [B, T, C] as a joint stream, and "y" beside it.
nn::Conditioning joint_text(NetworkInputs& inputs, int64_t text_width, int64_t pooled_width);

}  // namespace atelier::models
