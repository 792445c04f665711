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

void check_attention_dtype(nn::AttentionDtype dtype, nn::SdpaBackend attention, at::ScalarType denoiser,
                           c10::Device device) {
  using enum nn::SdpaBackend;
  if (dtype == nn::AttentionDtype::kAuto || !device.is_cuda()) return;
  const auto refuse = [](const std::string& why) {
    throw Error(Kind::kUsage, str("attention_dtype fp8_e4m3: ", why, "; take --attention_dtype auto"));
  };
  if (attention != kAuto && attention != kFlash3 && attention != kMath)
    refuse("of the attention kernels only flash3 takes e4m3, and another one was asked for");
  if (denoiser != at::kBFloat16)
    refuse(str("what is attended comes as bfloat16 on a GPU, and the denoiser is ", c10::toString(denoiser)));
  if (const auto problem = nn::hopper_attention_problem(device, at::kFloat8_e4m3fn, kUsualHead);
      !problem.empty())
    refuse(problem);
}

void check_attentions(const nn::LinearCounts& built, const std::string& model) {
  if (built.e4m3 > 0 || built.dense == 0) return;
  throw Error(Kind::kUsage,
              str("attention_dtype fp8_e4m3 is for heads of 16, 32, ... 256 numbers, which none of the ",
                  built.dense, " attentions of ", model, " has; take --attention_dtype auto"));
}

void check_attention_heads(nn::AttentionDtype dtype, const std::string& model, int64_t head_width) {
  if (dtype == nn::AttentionDtype::kAuto || nn::has_e4m3_width(head_width)) return;
  throw Error(Kind::kUsage,
              str("attention_dtype fp8_e4m3 is for heads of 16, 32, ... 256 numbers, and those of ", model,
                  " have ", head_width, "; take --attention_dtype auto"));
}

}  // namespace atelier::pipeline
