// The activation functions of text encoders, by the names that their configs give them.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

namespace atelier::models {

// Pointwise, any shape.
using ActivationFunction = at::Tensor (*)(const at::Tensor&);

// Upstream: transformers activations.py, ACT2FN. where: for messages, "BERT: hidden_act". Throws
// Error(kCheckpoint) naming those that are known.
ActivationFunction find_activation(const std::string& name, std::string_view where);

}  // namespace atelier::models
