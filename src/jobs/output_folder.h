// The folder that pictures go to. Files are opened relative to its handle, so no name and no symbolic link
// inside of it leads outside, and a file under its final name is always whole.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atelier::jobs {

// A new name for a temporary file or folder of this process.
std::string temporary_name();
// Whether that is one of this process, or of another of this host that sees processes under the same numbers.
bool is_temporary_of(std::string_view name, pid_t process);

class OutputFolder {
 public:
  // Creates the folder and tries whether a file can be written. Throws Error(kUsage) naming the folder if
  // not.
  explicit OutputFolder(const std::filesystem::path& folder);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Writes a temporary file, flushes it, renames it to the name (see check_name); folders of the name are
  // created. Any thread. Throws Error(kItem) for a refused name or one that goes through a symbolic link,
  // Error(kCapacity) when the disk is full, Error(kUsage) when the folder cannot be written or has vanished;
  // leaves no temporary file.
  void write(std::string_view name, std::string_view bytes);

  // The same for a folder of files, given as names and bytes; one that has the name already is replaced.
  void write_folder(std::string_view name, const std::vector<std::pair<std::string, std::string>>& files);

 private:
  int open_parent(const std::filesystem::path& parent);

  std::filesystem::path path_;
  int handle_ = -1;
  std::mutex mutex_;
  std::set<std::string> cleaned_;  // folders whose leftovers of dead processes are gone
};

}  // namespace atelier::jobs
