// Small things that the room's tests share.
#pragma once
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace atelier {

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "weights-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The message of the Error that `act` throws, which must be of this kind; "no error" otherwise.
inline std::string message_of(Kind kind, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.kind() == kind ? e.what() : std::string("another kind: ") + e.what();
  }
  return "no error";
}

}  // namespace atelier
