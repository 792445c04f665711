// Fuzzes the bodies that clients send: a draft within the caps, or an ApiError with status 400.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "server/api_error.h"
#include "server/api_fields.h"
#include "server/json_body.h"

using namespace atelier;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const server::RequestCaps caps{.pixels = 1 << 20, .steps = 100, .n = 4, .prompt_bytes = 64, .adapters = 2};
  static const server::ApiFields fields(server::Endpoint::kGenerations, caps);
  try {
    const auto draft = fields.read(server::parsed_json(std::string(reinterpret_cast<const char*>(data), size)));
    const auto& r = draft.row.request;
    const bool is_within = r.prompt.size() <= 64 && draft.row.images.value_or(1) <= 4 && r.num_inference_steps.value_or(1) <= 100 &&
                           int64_t{r.width.value_or(1)} * r.height.value_or(1) <= caps.pixels && draft.adapters.size() <= 2;
    const bool names_a_file = r.image || r.mask || r.lora || !r.name.empty();
    if (!is_within || names_a_file) std::abort();
  } catch (const server::ApiError& e) {
    if (e.status != 400) std::abort();
  }
  return 0;
}
