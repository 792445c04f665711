// From the name that a user gives to a model that can be loaded.
#pragma once
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "app/compat/environment.h"
#include "app/settings/resolve.h"
#include "pipeline/engine_config.h"

namespace atelier::app {

struct FoundModel {
  pipeline::ModelSpec spec;
  pipeline::ModelRepo folder;
  std::string name;      // for the header and the record of a picture: the id, or the folder's name
  std::string how;       // for people: "built-in", "local folder", "dummy weights, seed 0"
  std::string revision;  // of a model from the hub
  bool is_from_hub = false;
};

// Folders that hold models/mini and tests/parity: ATELIER_SHARE, then those above the program, nearest first.
// program: where this program is.
std::filesystem::path share_folder(const Environment& environment, const std::filesystem::path& program);
std::filesystem::path program_file();

// Downloads only with --download; tell: one line of progress. Throws Error(kUsage) with the command that
// fetches an absent model, Error(kCheckpoint) for a broken one; weights are not read. parts: of
// pipeline::ModelSpec; a single file is enough for the denoiser alone.
FoundModel find_model(const Resolved& resolved, const Environment& environment,
                      const std::function<void(const std::string&)>& tell, const std::stop_token& stop,
                      const std::string& parts = "all");

}  // namespace atelier::app
