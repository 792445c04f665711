// How a request names adapters: "PATH" or "PATH:strength".
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::request {

struct AdapterRef {
  std::string path;  // of a file or a folder
  double strength = 1;
  bool has_own_strength = false;
};

// What stands behind the last colon is a strength if it is a finite number. Throws Error(kUsage) for no path.
AdapterRef adapter_ref(std::string_view text);
// Of a list; one text may name several, with semicolons between them.
std::vector<AdapterRef> adapter_refs(std::span<const std::string> texts);
std::string to_string(const AdapterRef& ref);  // that adapter_ref reads as the same, its strength said

}  // namespace atelier::request
