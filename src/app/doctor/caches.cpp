#include "app/doctor/caches.h"

#include <algorithm>

#include "app/settings/home.h"
#include "base/error.h"

namespace atelier::app {
namespace fs = std::filesystem;
namespace {

// File names of tokens, wherever they lie in a cache. [huggingface_hub, constants.py: HF_TOKEN_PATH,
// HF_STORED_TOKENS_PATH]
bool is_token(const fs::path& file) {
  const auto name = file.filename();
  return name == "token" || name == "stored_tokens" || name == ".netrc";
}

// Files below a folder that are to go, and tokens, which are not. Links are counted as nothing
// and not followed.
struct Contents {
  std::vector<fs::path> files, tokens;
  int64_t bytes = 0;
};

Contents contents_of(const fs::path& folder, const fs::path& token) {
  Contents out;
  std::error_code error;
  for (auto at =
           fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied, error);
       !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    const auto status = at->symlink_status(error);
    if (error || fs::is_directory(status)) continue;
    if (is_token(at->path()) || at->path() == token) {
      out.tokens.push_back(at->path());
      continue;
    }
    out.files.push_back(at->path());
    if (fs::is_regular_file(status)) out.bytes += static_cast<int64_t>(at->file_size(error));
  }
  return out;
}

class Finder {
 public:
  Finder(const Environment& variables, std::vector<CacheFolder>& out) : variables_(variables), out_(out) {
    cache_ = cache_folder(variables);
    token_ = path_of("HF_TOKEN_PATH");
  }

  fs::path path_of(const char* name) const { return expand_home(value_of(variables_, name), variables_); }
  const fs::path& cache() const { return cache_; }

  void add(std::string what, std::string flag, const fs::path& folder, bool is_wanted) {
    std::error_code error;
    if (folder.empty() || !fs::is_directory(folder, error)) return;
    auto contents = contents_of(folder, token_);
    out_.push_back(
        {std::move(what), std::move(flag), folder, contents.bytes, is_wanted, std::move(contents.tokens)});
  }

 private:
  const Environment& variables_;
  std::vector<CacheFolder>& out_;
  fs::path cache_, token_;
};

}  // namespace

std::vector<CacheFolder> find_caches(const Environment& variables, const CacheScopes& scopes) {
  std::vector<CacheFolder> out;
  Finder find(variables, out);
  const auto or_in_cache = [&](const char* variable, const char* name) {
    const auto named = find.path_of(variable);
    return named.empty() ? find.cache() / name : named;
  };
  find.add("this program's own", "", find.cache() / "atelier", true);
  const auto home = or_in_cache("HF_HOME", "huggingface");
  find.add("Hugging Face: downloaded models; the login stays", "--hf", home, scopes.hub);
  const auto hub = find.path_of("HF_HUB_CACHE");
  if (!hub.empty() && fs::path(hub).lexically_normal() != (home / "hub").lexically_normal())
    find.add("Hugging Face: downloaded models", "--hf", hub, scopes.hub);
  find.add("PyTorch: hub and compiled kernels", "--torch", or_in_cache("TORCH_HOME", "torch"), scopes.torch);
  find.add("xDiT", "--xdit", find.cache() / "xdit", scopes.xdit);
  find.add("pip: downloaded packages", "--pip", or_in_cache("PIP_CACHE_DIR", "pip"), scopes.pip);
  if (!scopes.venv.empty()) {
    const fs::path venv = expand_home(scopes.venv, variables);
    if (!fs::exists(venv / "pyvenv.cfg"))
      throw Error(Kind::kUsage,
                  str("--venv ", scopes.venv, ": no virtual environment (it has no pyvenv.cfg)"));
    find.add("virtual environment", "--venv", venv, true);
  }
  return out;
}

int64_t remove_cache(const CacheFolder& cache) {
  int64_t freed = 0;
  std::error_code error;
  const auto contents = contents_of(cache.folder, {});
  for (const auto& file : contents.files) {
    if (std::find(cache.kept.begin(), cache.kept.end(), file) != cache.kept.end()) continue;
    const bool is_regular = fs::is_regular_file(fs::symlink_status(file, error));
    const auto size = is_regular ? static_cast<int64_t>(fs::file_size(file, error)) : 0;
    if (fs::remove(file, error)) freed += size;
  }
  // Folders that are empty now, from the inside out.
  std::vector<fs::path> folders{cache.folder};
  for (auto at = fs::recursive_directory_iterator(cache.folder, error);
       !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    if (fs::is_directory(at->symlink_status(error))) folders.push_back(at->path());
  }
  std::sort(folders.begin(), folders.end(), [](const fs::path& a, const fs::path& b) {
    return std::distance(a.begin(), a.end()) > std::distance(b.begin(), b.end());
  });
  for (const auto& folder : folders) fs::remove(folder, error);  // only where nothing is in it
  return freed;
}

}  // namespace atelier::app
