#include "app/run/adapters.h"

#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "pipeline/shown_inputs.h"

namespace atelier::app {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";

}  // namespace

std::string AdapterChoice::described(const request::AdapterRef& adapter) {
  std::string out = str(adapter.path, " changes ");
  const char* between = "";
  for (const auto& [component, changes] : adapters_.bind(std::span(&adapter, 1))) {
    const auto tensors = changes.tensors();
    out += str(between, tensors.size(), " tensors of ", component);
    between = ", ";
    for (const auto& tensor : tensors) log::debug(str(adapter.path, " changes ", component, " ", tensor));
  }
  for (const auto& expert : adapters_.unmentioned(adapter))
    out += str("; one that is for ", expert, " is named as PATH@", expert);
  return out;
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

const std::string& AdapterChoice::digest(const request::AdapterRef& adapter) {
  const auto& path = adapter.path;
  const std::string name = adapter.expert.empty() ? path : str(path, "@", adapter.expert);
  const FileState state = state_of(path);
  if (const auto at = known_.find(name); at != known_.end() && at->second.state == state)
    return at->second.digest;
  weights::AdapterFile(path).check_numbers();
  KnownFile read{.state = state, .digest = weights::adapter_digest(path), .line = described(adapter)};
  if (!known_.contains(name)) order_.push_back(name);
  return (known_[name] = std::move(read)).digest;
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
    request.lora_digest->push_back(digest(ref));
  }
}

std::string AdapterChoice::control_problem(const request::Request& request) {
  const auto refs = request::adapter_refs(request.lora.value_or(std::vector<std::string>{}));
  const std::scoped_lock lock(mutex_);
  return pipeline::control_problem(model_, adapters_.widening(refs), request);
}

std::vector<std::string> AdapterChoice::lines() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& path : order_) out.push_back(known_.at(path).line);
  return out;
}

}  // namespace atelier::app
