// Where a model's files are: a name given by a person becomes a folder. Torch-free, reads no environment.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace atelier::hub {

// Values of the environment variables of these names; empty if unset.
struct HubEnvironment {
  std::string hf_hub_cache;    // HF_HUB_CACHE, or HUGGINGFACE_HUB_CACHE
  std::string hf_home;         // HF_HOME
  std::string xdg_cache_home;  // XDG_CACHE_HOME
  std::string home;            // HOME
};

// The folder that holds models--org--name. Precedence: HF_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, HOME/.cache/huggingface/hub.
std::filesystem::path hub_cache(const HubEnvironment& environment);

enum class Provenance { kLocalFolder, kLocalFile, kBuiltIn, kCache, kDownload };
std::string_view to_string(Provenance how);  // "Hugging Face cache"

struct ModelSource {
  std::filesystem::path folder;  // the model folder, or a single file of tensors
  std::string id;                // "org/name", "mini", "mini-video", or the path as given
  std::string revision;          // the commit where it is known, otherwise empty
  Provenance how = Provenance::kLocalFolder;
};

struct SourceOptions {
  std::filesystem::path built_in;  // folder of the built-in models, each under its own name
  std::filesystem::path cache;     // hub_cache(...)
  std::string revision;            // branch, tag or commit; empty: main
};

// A model that would have to be fetched first, or fetched again.
class NotHere : public Error {
 public:
  explicit NotHere(const std::string& message) : Error(Kind::kUsage, message) {}
};

// A local folder or file wins, then a built-in model, then aliases and ids looked up in the cache. Throws
// NotHere with the exact command that downloads it when it is not there or incomplete, Error(kUsage) for
// names that cannot be a model.
ModelSource resolve(std::string_view name, const SourceOptions& options);

// The models that come with the program: "mini" draws pictures, "mini-video" videos.
std::span<const std::string_view> built_in_models();

// "FLUX.1-dev", "flux-dev", "black-forest-labs/FLUX.1-dev" -> "black-forest-labs/FLUX.1-dev"; empty if the
// name is no alias and no id.
std::string hub_id(std::string_view name);

// Components that model_index.json of a diffusers folder names (transformer, vae, ...) but whose folder is
// absent or empty. Throws Error(kCheckpoint) if the file is broken.
std::vector<std::string> missing_components(const std::filesystem::path& folder);

}  // namespace atelier::hub
