// Who says what, and who wins: flag > environment > config file > default, per setting, with the winner's
// name.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "app/compat/environment.h"
#include "app/settings/settings.h"

namespace atelier::app {

enum class Precedence { kDefault, kFile, kEnvironment, kFlag };

struct Origin {
  Precedence level = Precedence::kDefault;
  std::string text = "default";  // "--seed", "DG_XDIT_RING_DEGREE", "run.yaml:3"
};

// A flag as it was given.
struct Given {
  std::string name;  // canonical
  std::string spelling;
  std::vector<std::string> words;
};

struct Resolved {
  Surface surface = kT2i;
  Settings settings;
  std::map<std::string, Origin> origins;  // of settings that somebody set
  std::vector<std::string> notes;         // one sentence each, for the user
  std::vector<std::string> warnings;
  std::filesystem::path gemm_cache;  // the folder, whoever says so; empty: none

  Origin origin(const std::string& name) const;
  bool is_set(const std::string& name) const { return origins.count(name) > 0; }
};

// A message of a room below, which names settings and not flags, with who set them behind it:
// "cannot use output_dir x (output_dir: --output-directory)".
std::string with_origins(const std::string& message, const Resolved& resolved);

// config: the file of --config; empty: none. Throws Error(kUsage): unknown or ill-typed keys, variables and
// flags, unknown --optimize words, settings that contradict each other, settings that this build refuses.
Resolved resolve(Surface surface, const std::vector<Given>& flags, const Environment& environment,
                 const std::filesystem::path& config);

// What no later stage can use: refused settings, contradictions, numbers out of range; fills notes. Part of
// resolve.
void validate(Resolved& resolved);
// Words of --optimize set what nobody of the same level or above has set. Part of resolve.
void apply_optimize(Resolved& resolved);

}  // namespace atelier::app
