// How a request names adapters: "PATH", "PATH:strength", "PATH@expert" or "PATH:strength@expert".
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
  std::string expert;  // the denoiser that it is for, by its component's name; empty: as the file says
};

// A word of a-z, 0-9 and "_", as components have it.
bool is_expert_name(std::string_view text);
// What stands behind the last "@" is an expert if it can be the name of one and no file of the whole name is
// there; what stands behind the last colon before it a strength if it is a finite number. Throws
// Error(kUsage) for no path.
AdapterRef adapter_ref(std::string_view text);
// Of a list; one text may name several, with semicolons between them.
std::vector<AdapterRef> adapter_refs(std::span<const std::string> texts);
std::string to_string(const AdapterRef& ref);  // that adapter_ref reads as the same, its strength said

}  // namespace atelier::request
