#include "pipeline/tier.h"

#include "base/error.h"
#include "nn/hopper_attention.h"
#include "pipeline/device.h"

namespace atelier::pipeline {
namespace {

constexpr int kLeastCapability = 89;  // Ada, Hopper and later: tensor cores for e4m3
constexpr int64_t kUsualHead = 128;

}  // namespace

void check_tier(nn::Tier tier, const ModelFacts& facts, c10::Device device) {
  if (tier == nn::Tier::kExact) return;
  const char* name = tier == nn::Tier::kFast ? "fast" : "fast-strict";
  if (facts.has_convolution_mixer) {
    throw Error(Kind::kUsage, str("tier ", name, " is for transformers; the blocks of ", facts.name,
                                  " convolve: take --tier exact"));
  }
  const int capability = cuda_capability(device);
  if (device.is_cuda() && capability < kLeastCapability) {
    throw Error(Kind::kUsage,
                str("tier ", name, " multiplies in FP8, which needs compute capability 8.9; ",
                    device_name({c10::kCUDA, device.has_index() ? device.index() : c10::DeviceIndex(0)}),
                    " has ", capability / 10, ".", capability % 10, ": take --tier exact"));
  }
}

std::string flash3_problem(c10::Device device) {
  return nn::hopper_attention_problem(device, at::kBFloat16, kUsualHead);
}

std::string flash3_failure() {
  return nn::hopper_attention_failure();
}

void check_attention(nn::SdpaBackend attention, at::ScalarType denoiser, c10::Device device) {
  if (attention != nn::SdpaBackend::kFlash3) return;
  const auto problem = nn::hopper_attention_problem(device, denoiser, kUsualHead);
  if (!problem.empty())
    throw Error(Kind::kUsage, str("attention flash3: ", problem, "; take sdpa, cudnn or flash"));
}

}  // namespace atelier::pipeline
