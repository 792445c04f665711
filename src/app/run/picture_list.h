// The table of pictures that the SDXL scripts write: generated.csv and its like, a line for every file.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "request/request.h"

namespace atelier::app {

class PictureList {
 public:
  // pictures: the folder that names of requests start from. has_gpus: with a last column gpu_id. Throws
  // Error(kUsage) for a file that is there and is no such table.
  PictureList(std::filesystem::path file, std::filesystem::path pictures, bool has_gpus);

  // gpu: empty: as an earlier run's line has it.
  void add(const request::Request& request, const std::string& gpu);
  // Lines of earlier runs stay, unless their file is gone or was added now. Throws as write_file_atomically.
  void write() const;

 private:
  using Cells = std::vector<std::string>;
  std::vector<std::string> columns() const;
  std::vector<Cells> read() const;  // of the file as it is now

  std::filesystem::path file_, pictures_;
  bool has_gpus_;
  std::vector<Cells> lines_;
};

}  // namespace atelier::app
