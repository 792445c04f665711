// Names of number types, as people spell them.
#pragma once
#include <c10/core/ScalarType.h>

#include <string>
#include <string_view>

namespace atelier::app {

// "bf16", "bfloat16", "fp16", "half", ... -> "float32", "bfloat16", "float16"; "" stays "". Throws
// Error(kUsage).
std::string dtype_name(std::string_view spelling);
at::ScalarType dtype_of(std::string_view spelling);

}  // namespace atelier::app
