#include "server/adapter_shelf.h"

#include "base/error.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "server/api_error.h"

namespace atelier::server {

namespace fs = std::filesystem;

namespace {

bool holds_weights(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") return true;
  }
  return false;
}

}  // namespace

AdapterShelf::AdapterShelf(fs::path folder)
    : folder_(folder.empty() ? fs::path() : fs::absolute(folder).lexically_normal()) {
  reload();
}

size_t AdapterShelf::reload() {
  std::map<std::string, fs::path> found;
  std::error_code error;
  if (!folder_.empty()) {
    for (const auto& entry : fs::directory_iterator(folder_, error)) {
      std::error_code ignored;
      const bool is_file = entry.is_regular_file(ignored) && entry.path().extension() == ".safetensors";
      const bool is_folder = entry.is_directory(ignored) && holds_weights(entry.path());
      if (is_file || is_folder) found[is_file ? entry.path().stem() : entry.path().filename()] = entry.path();
    }
    if (error)
      throw Error(Kind::kUsage, str("lora_dir ", folder_.string(), " cannot be read: ", error.message()));
  }
  const std::scoped_lock lock(mutex_);
  files_ = std::move(found);
  return files_.size();
}

std::vector<std::string> AdapterShelf::names() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, file] : files_) out.push_back(name);
  return out;
}

fs::path AdapterShelf::file(const std::string& name) const {
  const auto known = names();
  const std::scoped_lock lock(mutex_);
  const auto at = files_.find(name);
  if (at != files_.end()) return at->second;
  throw ApiError(400, "unknown_adapter",
                 str("lora: there is no adapter ", in_quotes(name),
                     did_you_mean(name, known, "; GET /v1/adapters lists all")),
                 "lora");
}

}  // namespace atelier::server
