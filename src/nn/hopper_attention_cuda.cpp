// The package's operator fa3_fwd::fwd, called through torch's dispatcher.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAContext.h>
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <vector>

#include "nn/hopper_attention.h"

namespace atelier::nn {
namespace {

constexpr const char* kLibrary = "fa3_fwd/_C.abi3.so";

// torch's folder is site-packages/torch/lib.
std::filesystem::path beside_torch() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&at::cuda::getCurrentDeviceProperties), &info) == 0) return {};
  return std::filesystem::path(info.dli_fname).parent_path().parent_path().parent_path() / kLibrary;
}

// The operator, or why it is not there. Python's symbols in the library stay open: only a Python
// module needs them.
struct Package {
  std::optional<c10::OperatorHandle> forward;
  std::string problem;

  Package() {
    const char* said = std::getenv("ATELIER_FA3");
    const std::filesystem::path file = said ? std::filesystem::path(said) : beside_torch();
    std::error_code error;
    if (file.empty() || !std::filesystem::exists(file, error)) {
      problem = "the package fa3-fwd is not installed beside torch (" + file.string() + ")";
    } else if (dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL) == nullptr) {
      problem = std::string("the package fa3-fwd cannot be opened: ") + dlerror();
    } else {
      forward = c10::Dispatcher::singleton().findSchema({"fa3_fwd::fwd", ""});
      if (!forward) problem = file.string() + " has no operator fa3_fwd::fwd";
    }
  }
};

const Package& package() {
  static const Package one;
  return one;
}

// The arguments in the order of the operator's schema; what is not said here takes its default.
std::vector<c10::IValue> arguments(const c10::FunctionSchema& schema, const at::Tensor& q,
                                   const at::Tensor& k, const at::Tensor& v) {
  std::vector<c10::IValue> stack;
  for (const auto& argument : schema.arguments()) {
    if (argument.name() == "q") {
      stack.emplace_back(q);
    } else if (argument.name() == "k") {
      stack.emplace_back(k);
    } else if (argument.name() == "v") {
      stack.emplace_back(v);
    } else if (argument.name() == "num_splits") {
      stack.emplace_back(int64_t{1});
    } else {
      stack.push_back(argument.default_value().value_or(c10::IValue()));
    }
  }
  return stack;
}

}  // namespace

std::string hopper_attention_problem(c10::Device device, at::ScalarType type, int64_t head_width) {
  const bool is_e4m3 = type == at::kFloat8_e4m3fn;
  if (!device.is_cuda() || (type != at::kBFloat16 && !is_e4m3))
    return "FlashAttention 3 takes bfloat16 on a GPU";
  if (head_width % (is_e4m3 ? 16 : 8) != 0 || head_width > 256) {
    return std::string("FlashAttention 3 takes heads of at most 256 numbers, in steps of ") +
           (is_e4m3 ? "16 where they are e4m3" : "8");
  }
  const auto* gpu = at::cuda::getDeviceProperties(device.has_index() ? device.index() : c10::DeviceIndex(0));
  if (gpu->major != 9)
    return std::string("FlashAttention 3 is for compute capability 9, and this is ") + gpu->name;
  return package().problem;
}

AttentionOutput hopper_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (const auto problem = hopper_attention_problem(q.device(), q.scalar_type(), q.size(-1));
      !problem.empty())
    throw std::runtime_error(problem);
  const auto tokens_first = [](const at::Tensor& t) {
    return t.transpose(1, 2);
  };  // the package's [B, n, h, d]
  auto stack = arguments(package().forward->schema(), tokens_first(q), tokens_first(k), tokens_first(v));
  package().forward->callBoxed(stack);
  return {tokens_first(stack.at(0).toTensor()), stack.at(1).toTensor()};
}

}  // namespace atelier::nn
