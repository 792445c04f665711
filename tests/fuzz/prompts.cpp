// Fuzzes what people write by hand: prompt files of the four kinds and configuration files. They are read, or refused
// by Error(kUsage). The first byte chooses the kind.
#include "request/prompts.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "app/settings/config.h"
#include "base/error.h"

using namespace atelier;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void read(std::string_view bytes, unsigned kind) {
  constexpr const char* kFiles[] = {"f.jsonl", "f.json", "f.txt", "f.csv", "f.yaml", "f.json"};
  if (kind >= 4) {
    const auto config = app::parse_config(std::string(bytes), kFiles[kind]);
    require(config.values.is_object());
    return;
  }
  const auto prompts = request::parse_prompts(bytes, kFiles[kind]);
  require(!prompts.rows.empty());
  for (const auto& row : prompts.rows) require(row.request.index >= 0 && row.images.value_or(1) >= 1);
  for (const auto& bad : prompts.bad) require(!bad.where.empty() && !bad.reason.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    read({reinterpret_cast<const char*>(data) + 1, size - 1}, data[0] % 6);
  } catch (const Error& e) {
    require(e.kind() == Kind::kUsage && std::string_view(e.what()).size() > 0);
  }
  return 0;
}
