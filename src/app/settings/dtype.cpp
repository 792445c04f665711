// Names of number types.
#include "app/settings/dtype.h"

#include "base/error.h"

namespace atelier::app {

std::string dtype_name(std::string_view spelling) {
  if (spelling.empty()) return {};
  for (const auto* known : {"float32 fp32 f32 float", "bfloat16 bf16", "float16 fp16 f16 half"}) {
    std::istringstream words(known);
    std::string first, word;
    words >> first;
    if (spelling == first) return first;
    while (words >> word) {
      if (spelling == word) return first;
    }
  }
  throw Error(Kind::kUsage, str("dtype \"", spelling, "\" is unknown; choose float32, bfloat16 or float16"));
}

at::ScalarType dtype_of(std::string_view spelling) {
  const std::string name = dtype_name(spelling);
  return name == "bfloat16" ? at::kBFloat16 : name == "float16" ? at::kHalf : at::kFloat;
}

}  // namespace atelier::app
