// The files that a recorded call shows to its model.
#pragma once
#include <filesystem>
#include <string>

#include "base/json.h"

namespace atelier::verify {

// Folders of frames that live as long as this object: links to pictures, in their order.
class FrameFolders {
 public:
  // Makes folders below the system's for temporary files, once they are needed.
  FrameFolders() = default;
  ~FrameFolders();
  FrameFolders(const FrameFolders&) = delete;

  // pictures: relative to `root`. Throws Error(kUsage) where no folder can be made.
  std::filesystem::path of(const Json& pictures, const std::filesystem::path& root);

 private:
  std::filesystem::path place_;
  int count_ = 0;
};

// The call as requests take it: {"png": FILE} by its path, a list of such frames as a folder of them, `video`
// and a list as `mask` under the names that requests have. root: of the recording.
Json with_files(const Json& call, const std::filesystem::path& root, FrameFolders& frames);

}  // namespace atelier::verify
