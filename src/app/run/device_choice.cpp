// Which device draws.
#include "app/run/device_choice.h"

#include <charconv>

#include "base/error.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

std::string there_are(int devices) {
  if (devices == 1) return "this machine has one GPU: cuda:0";
  if (devices > 1) return str("this machine has cuda:0 to cuda:", devices - 1);
#ifdef ATELIER_CUDA
  return "no GPU is visible here (CUDA_VISIBLE_DEVICES and the driver decide): use --device cpu";
#else
  return "this build has no CUDA: use --device cpu, or build with ATELIER_BUILD=cuda";
#endif
}

}  // namespace

DeviceChoice choose_device(std::string_view asked, int devices) {
  if (asked == "cpu") return {c10::Device(c10::kCPU), "as asked"};
  if (asked.empty() || asked == "auto") {
    if (devices > 0) return {c10::Device(c10::kCUDA), "auto: a GPU is there"};
#ifdef ATELIER_CUDA
    return {c10::Device(c10::kCPU), "auto: no GPU is visible"};
#else
    return {c10::Device(c10::kCPU), "auto: this build has no CUDA"};
#endif
  }
  if (asked == "cuda" && devices > 0) return {c10::Device(c10::kCUDA), "as asked"};
  if (asked == "cuda") throw Error(Kind::kUsage, str("--device cuda: ", there_are(0)));
  const std::string_view number = asked.starts_with("cuda:") ? asked.substr(5) : std::string_view();
  int index = -1;
  const auto end = number.data() + number.size();
  const auto parsed = std::from_chars(number.data(), end, index);
  if (number.empty() || parsed.ec != std::errc() || parsed.ptr != end || index < 0) {
    throw Error(Kind::kUsage, str("--device ", asked, ": unknown; choose auto, cpu, cuda or cuda:N"));
  }
  if (index >= devices) throw Error(Kind::kUsage, str("--device ", asked, ": ", there_are(devices)));
  return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)), "as asked"};
}

const char* usual_type(c10::Device device, int capability, Surface surface) {
  constexpr int kBfloat16 = 80;
  if (!device.is_cuda()) return "float32";
  return capability > 0 && capability < kBfloat16 ? "float16" : half_type(surface);
}

std::string denoiser_type(const Resolved& resolved, c10::Device device) {
  const auto& asked = resolved.settings.device.torch_dtype;
  return asked.empty() ? usual_type(device, pipeline::cuda_capability(device), resolved.surface) : asked;
}

}  // namespace atelier::app
