#include "models/network_inputs.h"

#include <ATen/TensorOperators.h>

#include "base/error.h"

namespace atelier::models {
namespace {

std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string out;
  for (const int64_t n : sizes) out += str(out.empty() ? "" : ", ", n < 0 ? std::string("any") : str(n));
  return "[" + out + "]";
}

std::string list(const auto& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

}  // namespace

at::Tensor NetworkInputs::take(std::string_view name, const std::vector<int64_t>& sizes) {
  auto found = take_if_there(name, sizes);
  if (!found.defined())
    throw Error(Kind::kUsage, str("a call of the family ", family_, " needs ", name, ", and there is none"));
  return found;
}

at::Tensor NetworkInputs::take_if_there(std::string_view name, const std::vector<int64_t>& sizes) {
  asked_.emplace_back(name);
  const auto at = tensors_.find(name);
  if (at == tensors_.end()) return {};
  std::vector<int64_t> wanted{batch_};
  wanted.insert(wanted.end(), sizes.begin(), sizes.end());
  const auto found = at->second.sizes().vec();
  bool fits = found.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); ++i)
    fits = wanted[i] < 0 ? found[i] > 0 : found[i] == wanted[i];
  if (!fits) {
    throw Error(Kind::kUsage,
                str("a call of the family ", family_, " takes ", name, " as ", shape_text(wanted),
                    ", given was ", shape_text(found), ": is the conditioning of another kind of model?"));
  }
  auto taken = std::move(at->second);
  tensors_.erase(at);
  return taken;
}

double NetworkInputs::take_number(std::string_view name, double otherwise) {
  const auto values = take_if_there(name, {});
  return values.defined() ? values[0].item<double>() : otherwise;
}

void NetworkInputs::refuse_rest() const {
  if (tensors_.empty()) return;
  std::vector<std::string_view> rest;
  for (const auto& [name, tensor] : tensors_) rest.push_back(name);
  throw Error(Kind::kUsage, str("a call of the family ", family_, " cannot take ", list(rest), "; it takes ",
                                list(asked_)));
}

nn::Conditioning joint_text(NetworkInputs& inputs, int64_t text_width, int64_t pooled_width) {
  return {.streams = {inputs.take("context", {-1, text_width}).transpose(0, 1).contiguous()},
          .whole = {{"pooled", inputs.take("y", {pooled_width})}}};
}

}  // namespace atelier::models
