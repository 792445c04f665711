// What lies beside the weights that a folder's parts are read from.
#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "pipeline/model_repo.h"

namespace atelier::pipeline {
namespace {

bool is_pickle(const std::string& name) {
  return !name.ends_with(".safetensors") && !name.ends_with(".gguf") && !name.ends_with(".json");
}

// How to read one of the files that are not; is_only: of the only denoiser, which may come from a file.
std::string how_to_choose(const std::vector<std::string>& beside, const std::filesystem::path& root,
                          const std::string& part, bool is_only) {
  const auto other = std::find_if_not(beside.begin(), beside.end(), is_pickle);
  if (other == beside.end()) return "pickles never are";
  if (!is_only || other->ends_with(".json"))
    return str("to read another, move what is not wanted out of ", shell_word((root / part).string()));
  return str("to read ", *other, ": --model_name ", shell_word((root / part / *other).string()),
             " --base_model ", shell_word(root.string()));
}

}  // namespace

std::vector<std::string> ModelRepo::unread_files() const {
  std::vector<std::string> out;
  for (const auto& c : components_) {
    if (is_dummy() || !c.file.empty() || !std::filesystem::is_directory(root_ / c.name)) continue;
    try {
      const auto files = weights::files_of(root_ / c.name);
      if (files.beside.empty()) continue;
      const bool is_only = c.kind == Component::ComponentKind::kDenoiser && experts().size() == 1;
      out.push_back(str("of ", c.name, " ", list_text(files.read, 3), " is read, and not ",
                        list_text(files.beside, 3), " beside it; ",
                        how_to_choose(files.beside, root_, c.name, is_only)));
    } catch (const Error&) {
      continue;  // whoever opens it says why
    }
  }
  return out;
}

}  // namespace atelier::pipeline
