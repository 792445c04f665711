#include "request/adapters.h"

#include <charconv>
#include <iterator>

#include "base/error.h"
#include "base/text.h"

namespace atelier::request {

AdapterRef adapter_ref(std::string_view text) {
  AdapterRef out{.path = std::string(trim(text))};
  if (const size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    if (const auto strength = to_number(trim(text.substr(colon + 1))))
      out = {std::string(trim(text.substr(0, colon))), *strength, true};
  }
  if (out.path.empty()) throw Error(Kind::kUsage, "lora: an adapter is named as PATH or PATH:strength");
  return out;
}

std::vector<AdapterRef> adapter_refs(std::span<const std::string> texts) {
  std::vector<AdapterRef> out;
  for (std::string_view rest : texts) {
    for (bool has_more = true; has_more;) {
      const size_t end = rest.find(';');
      out.push_back(adapter_ref(rest.substr(0, end)));
      has_more = end != std::string_view::npos;
      if (has_more) rest.remove_prefix(end + 1);
    }
  }
  return out;
}

std::string to_string(const AdapterRef& ref) {
  char number[32];  // the shortest that reads as the same
  const auto end = std::to_chars(std::begin(number), std::end(number), ref.strength).ptr;
  return str(ref.path, ":", std::string_view(number, static_cast<size_t>(end - number)));
}

}  // namespace atelier::request
