// The adapters that clients may name: files of one folder, known by their names without the suffix.
#pragma once
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace atelier::server {

class AdapterShelf {
 public:
  // folder: empty: there are none. Throws Error(kUsage) for one that cannot be read.
  explicit AdapterShelf(std::filesystem::path folder);

  std::vector<std::string> names() const;
  // Throws ApiError (400) for a name that is not there.
  std::filesystem::path file(const std::string& name) const;
  // Looks at the folder again; how many there are. Throws Error(kUsage).
  size_t reload();

 private:
  const std::filesystem::path folder_;
  mutable std::mutex mutex_;
  std::map<std::string, std::filesystem::path> files_;
};

}  // namespace atelier::server
