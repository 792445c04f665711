#include "app/run/adapters.h"

#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"

namespace atelier::app {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";

}  // namespace

std::string AdapterChoice::described(const std::string& path) {
  const request::AdapterRef ref{path};
  std::string parts;
  for (const auto& [component, changes] : adapters_.bind(std::span(&ref, 1))) {
    const auto tensors = changes.tensors();
    parts += str(parts.empty() ? "" : ", ", tensors.size(), " tensors of ", component);
    for (const auto& tensor : tensors) log::debug(str(path, " changes ", component, " ", tensor));
  }
  return str(path, " changes ", parts);
}

AdapterChoice::FileState AdapterChoice::state_of(const std::string& path) {
  FileState out{};
  const auto file = weights::find_adapter(path);
  size_t i = 0;
  for (const auto& place : {file, file.parent_path() / kConfigFile}) {
    struct stat s {};
    if (::stat(place.c_str(), &s) == 0)
      out[i] = {static_cast<int64_t>(s.st_dev), static_cast<int64_t>(s.st_ino), s.st_size,
                s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec};
    ++i;
  }
  return out;
}

const std::string& AdapterChoice::digest(const std::string& path) {
  const FileState state = state_of(path);
  if (const auto at = known_.find(path); at != known_.end() && at->second.state == state)
    return at->second.digest;
  weights::AdapterFile(path).check_numbers();
  KnownFile read{.state = state, .digest = weights::adapter_digest(path), .line = described(path)};
  if (!known_.contains(path)) order_.push_back(path);
  return (known_[path] = std::move(read)).digest;
}

void AdapterChoice::settle(request::Request& request) {
  request.lora_digest.reset();
  if (!request.lora) return;
  auto refs = request::adapter_refs(*request.lora);
  if (refs.empty()) return request.lora.reset();
  const std::scoped_lock lock(mutex_);
  adapters_.bind(refs);
  request.lora.emplace();
  request.lora_digest.emplace();
  for (auto& ref : refs) {
    if (!ref.has_own_strength) ref.strength = strength_;
    request.lora->push_back(to_string(ref));
    request.lora_digest->push_back(digest(ref.path));
  }
}

std::vector<std::string> AdapterChoice::lines() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& path : order_) out.push_back(known_.at(path).line);
  return out;
}

}  // namespace atelier::app
