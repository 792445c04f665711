#include "sampling/noise_schedule.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <functional>
#include <numbers>

#include "base/check.h"
#include "base/error.h"

namespace atelier::sampling {
namespace {

using AlphaBar = std::function<double(double)>;  // of time in [0, 1]

double cosine(double t) {
  const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
  return c * c;
}

double laplace(double t) {
  const double log_snr = -0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::abs(0.5 - t) + 1e-6);
  const double snr = std::exp(log_snr);
  return std::sqrt(snr / (1 + snr));
}

double exponential(double t) {
  return std::exp(-12.0 * t);
}

// Nichol and Dhariwal (arXiv 2102.09672), equation 17: betas under which the products follow a curve.
at::Tensor betas_along(const AlphaBar& curve, int64_t count) {
  std::vector<float> betas;
  const auto n = static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<double>(i);
    betas.push_back(static_cast<float>(std::min(1 - curve((at + 1) / n) / curve(at / n), 0.999)));
  }
  return at::tensor(betas);
}

// A variance that a step adds, as a share.
void check_beta(const char* key, double beta) {
  if (!(beta >= 0 && beta < 1)) refuse_option(key, str("must be at least 0 and below 1, found ", beta));
}

at::Tensor betas_of(const SchedulerConfig& c, const BetaDefaults& defaults) {
  const int64_t count = c.trained();
  if (const auto given = c.numbers("trained_betas"); !given.empty()) {
    for (const double beta : given) check_beta("trained_betas", beta);
    return at::tensor(std::vector<float>(given.begin(), given.end()));
  }
  const double start = c.number("beta_start", defaults.start), end = c.number("beta_end", defaults.end);
  check_beta("beta_start", start), check_beta("beta_end", end);
  std::vector<std::string_view> known{"linear", "scaled_linear", "squaredcos_cap_v2"};
  known.insert(known.end(), defaults.more.begin(), defaults.more.end());
  const auto name = c.word("beta_schedule", defaults.schedule, known);
  const at::TensorOptions narrow(at::kFloat);
  if (name == "linear") return at::linspace(start, end, count, narrow);
  if (name == "scaled_linear") {
    const auto root = at::linspace(std::sqrt(start), std::sqrt(end), count, narrow);
    return root * root;
  }
  if (name == "sigmoid") return at::sigmoid(at::linspace(-6, 6, count, narrow)) * (end - start) + start;
  return betas_along(name == "laplace" ? laplace : name == "exp" ? exponential : cosine, count);
}

// Lin et al. (arXiv 2305.08891), algorithm 1: the last product becomes 0, the first stays.
at::Tensor rescaled(const at::Tensor& betas) {
  auto root = at::cumprod(1.0 - betas, 0).sqrt();
  const auto first = root[0].clone(), last = root[-1].clone();
  root = (root - last) * (first / (first - last));
  const auto product = root * root;
  return 1 - at::cat({product.slice(0, 0, 1), product.slice(0, 1) / product.slice(0, 0, -1)});
}

std::vector<float> numbers_of(const at::Tensor& t) {
  const auto whole = t.contiguous();
  return {whole.data_ptr<float>(), whole.data_ptr<float>() + whole.numel()};
}

}  // namespace

std::vector<float> alphas_cumprod(const SchedulerConfig& c, const BetaDefaults& defaults, TerminalSnr snr) {
  auto betas = betas_of(c, defaults);
  const bool to_zero = snr != TerminalSnr::kUnread && c.flag("rescale_betas_zero_snr");
  if (to_zero) betas = rescaled(betas);
  auto out = numbers_of(at::cumprod(1.0 - betas, 0));
  if (static_cast<int64_t>(out.size()) != c.trained())
    refuse_option("trained_betas",
                  str("holds ", out.size(), " numbers, num_train_timesteps is ", c.trained()));
  if (to_zero && snr == TerminalSnr::kNearZero) out.back() = 0x1p-24f;  // half precision's smallest
  for (const float a : out) {
    if (!(a >= 0 && a < 1) || (a == 0 && !to_zero))
      refuse_option("beta_start, beta_end or trained_betas",
                    str("give a cumulative product of ", a, "; betas must lie between 0 and 1"));
  }
  return out;
}

std::vector<float> sigmas_of(std::span<const float> alphas_cumprod) {
  const auto a = at::tensor(at::ArrayRef<float>(alphas_cumprod.data(), alphas_cumprod.size()));
  return numbers_of(at::sqrt((1.0 - a) / a));  // as the reference's library rounds roots
}

PredictionType prediction_type(const SchedulerConfig& c, std::initializer_list<PredictionType> known) {
  std::vector<std::string_view> words;
  for (const auto type : known) {
    words.emplace_back(type == PredictionType::kEpsilon  ? "epsilon"
                       : type == PredictionType::kSample ? "sample"
                       : type == PredictionType::kV      ? "v_prediction"
                                                         : "flow_prediction");
  }
  const auto found = c.word("prediction_type", "epsilon", words);
  for (size_t i = 0; i < words.size(); ++i) {
    if (found == words[i]) return known.begin()[i];
  }
  ENSURE(false);
  return PredictionType::kEpsilon;
}

at::Tensor picture_of(PredictionType type, NoiseLevel level, const at::Tensor& x,
                      const at::Tensor& prediction) {
  switch (type) {
    case PredictionType::kEpsilon:
      return (x - level.sigma * prediction) / level.alpha;
    case PredictionType::kSample:
      return prediction.clone();  // the caller's memory may change
    case PredictionType::kV:
      return level.alpha * x - level.sigma * prediction;
    case PredictionType::kFlow:
      break;
  }
  return x - level.sigma * prediction;
}

at::Tensor noise_of(PredictionType type, NoiseLevel level, const at::Tensor& x,
                    const at::Tensor& prediction) {
  ENSURE(type != PredictionType::kFlow);
  if (type == PredictionType::kSample) return (x - level.alpha * prediction) / level.sigma;
  if (type == PredictionType::kV) return level.alpha * prediction + level.sigma * x;
  return prediction.clone();
}

}  // namespace atelier::sampling
