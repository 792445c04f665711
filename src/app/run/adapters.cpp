#include "app/run/adapters.h"

#include "base/error.h"
#include "base/log.h"

namespace atelier::app {

void AdapterChoice::describe(const std::string& path) {
  const request::AdapterRef ref{path};
  std::string parts;
  for (const auto& [component, changes] : adapters_.bind(std::span(&ref, 1))) {
    const auto tensors = changes.tensors();
    parts += str(parts.empty() ? "" : ", ", tensors.size(), " tensors of ", component);
    for (const auto& tensor : tensors) log::debug(str(path, " changes ", component, " ", tensor));
  }
  lines_.push_back(str(path, " changes ", parts));
}

const std::string& AdapterChoice::digest(const std::string& path) {
  const auto [at, is_new] = digests_.try_emplace(path);
  if (is_new) {
    weights::AdapterFile(path).check_numbers();
    at->second = weights::adapter_digest(path);
    describe(path);
  }
  return at->second;
}

void AdapterChoice::settle(request::Request& request) {
  request.lora_digest.reset();
  if (!request.lora) return;
  auto refs = request::adapter_refs(*request.lora);
  if (refs.empty()) return request.lora.reset();
  adapters_.bind(refs);
  request.lora.emplace();
  request.lora_digest.emplace();
  for (auto& ref : refs) {
    if (!ref.has_own_strength) ref.strength = strength_;
    request.lora->push_back(to_string(ref));
    request.lora_digest->push_back(digest(ref.path));
  }
}

}  // namespace atelier::app
