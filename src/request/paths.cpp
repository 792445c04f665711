#include "request/paths.h"

#include <algorithm>

#include "base/text.h"
#include "request/file_inputs.h"

namespace atelier::request {
namespace {

using PathRule = std::function<std::string(const std::string&)>;

std::string rewritten(const std::string& list, const PathRule& spelled_out) {
  std::string out;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(';', begin), list.size());
    out += (begin > 0 ? ";" : "") +
           spelled_out(std::string(trim(std::string_view(list).substr(begin, end - begin))));
    begin = end + 1;
  }
  return out;
}

}  // namespace

void rewrite_paths(Request& r, const PathRule& spelled_out) {
  for (const auto& input : kFileInputs) {
    if (auto& file = r.*input.file) *file = spelled_out(*file);
  }
  for (auto* list : {&r.input_images, &r.reference_images}) {
    if (!*list) continue;
    for (auto& file : **list) file = spelled_out(file);
  }
  if (!r.lora) return;
  for (auto& adapters : *r.lora) adapters = rewritten(adapters, spelled_out);
}

}  // namespace atelier::request
