#include "sampling/flow_euler.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::sampling {
namespace {

struct Config {
  double trained, shift, base_shift, max_shift, base_tokens, max_tokens, terminal = 0;
  bool dynamic, linear_shift;

  explicit Config(const Json& j) {
    const auto number = [&](const char* key, double otherwise) {
      const auto found = j.find(key);
      if (found == j.end() || found->is_null()) return otherwise;
      if (!found->is_number())
        throw Error(Kind::kCheckpoint, str("scheduler_config.json: ", key, " must be a number"));
      return found->get<double>();
    };
    const auto flag = [&](const char* key) {
      const auto found = j.find(key);
      if (found == j.end() || found->is_null()) return false;
      if (!found->is_boolean())
        throw Error(Kind::kCheckpoint, str("scheduler_config.json: ", key, " must be true or false"));
      return found->get<bool>();
    };
    for (const char* key : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas",
                            "stochastic_sampling"}) {
      if (flag(key))
        throw Error(Kind::kCheckpoint,
                    str("scheduler_config.json: ", key, " is not supported; set it to false"));
    }
    trained = number("num_train_timesteps", 1000);
    shift = number("shift", 1);
    base_shift = number("base_shift", 0.5), max_shift = number("max_shift", 1.15);
    base_tokens = number("base_image_seq_len", 256), max_tokens = number("max_image_seq_len", 4096);
    terminal = number("shift_terminal", 0);
    dynamic = flag("use_dynamic_shifting");
    const Json shape = j.value("time_shift_type", Json("exponential"));
    if (shape != "exponential" && shape != "linear") {
      throw Error(Kind::kCheckpoint,
                  str("scheduler_config.json: time_shift_type must be exponential or linear, found ", shape));
    }
    linear_shift = shape == "linear";
  }

  // Linear in the token count through (base_tokens, base_shift) and (max_tokens, max_shift), without a clamp.
  double mu(int64_t tokens) const {
    const double m = (max_shift - base_shift) / (max_tokens - base_tokens);
    return static_cast<double>(tokens) * m + (base_shift - m * base_tokens);
  }

  float shifted(float t, double mu) const {
    if (!dynamic) return static_cast<float>(shift) * t / (1 + static_cast<float>(shift - 1) * t);
    const auto e = static_cast<float>(linear_shift ? mu : std::exp(mu));
    return e / (e + (1 / t - 1));
  }
};

// n numbers from first to last.
std::vector<double> linspace(double first, double last, int n) {
  std::vector<double> v;
  for (int i = 0; i < n; ++i) v.push_back(n == 1 ? first : first + (last - first) * i / (n - 1));
  return v;
}

}  // namespace

FlowEuler::FlowEuler(const Json& json, const Call& call) {
  if (call.steps < 1)
    throw Error(Kind::kUsage, str("num_inference_steps must be at least 1, found ", call.steps));
  const Config c(json);
  double mu = 0;
  if (c.dynamic) {
    if (!call.mu && !call.tokens)
      throw Error(Kind::kUsage, "this scheduler shifts by the token count, which was not given");
    mu = call.mu ? *call.mu : c.mu(*call.tokens);
  }
  // Without sigmas from the pipeline the range ends at the smallest trained sigma, which is shifted already
  // and is shifted again below, as the reference does.
  const auto trained_end = static_cast<float>(1 / c.trained);
  const double smallest = c.dynamic ? trained_end : c.shifted(trained_end, mu);
  const double largest = c.dynamic ? 1.0 : c.shifted(1.0f, mu);
  const auto range = call.linear_sigmas ? linspace(1.0, 1.0 / call.steps, call.steps)
                                        : linspace(largest, smallest, call.steps);
  for (const double s : range) sigmas_.push_back(c.shifted(static_cast<float>(s), mu));
  if (c.terminal > 0) {
    const float scale = (1 - sigmas_.back()) / static_cast<float>(1 - c.terminal);
    for (float& s : sigmas_) s = 1 - (1 - s) / scale;
  }
  for (const float s : sigmas_) steps_.push_back({.time = s * static_cast<float>(c.trained)});
  sigmas_.push_back(0);
}

at::Tensor FlowEuler::step(const at::Tensor& prediction, int i, const at::Tensor& x, const at::Tensor&) {
  const auto k = static_cast<size_t>(i);
  const double dt = static_cast<double>(sigmas_[k + 1] - sigmas_[k]);
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return (x.to(wide) + dt * prediction.to(wide)).to(x.scalar_type());
}

}  // namespace atelier::sampling
