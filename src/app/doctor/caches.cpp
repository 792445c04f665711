#include "app/doctor/caches.h"

#include <algorithm>
#include <functional>

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

// Files below folders that are to go, and tokens, which are not. Links are counted as nothing and not
// followed.
struct Contents {
  std::vector<fs::path> files, tokens, folders;
  int64_t bytes = 0;
};

Contents contents_of(const std::vector<fs::path>& parts, const fs::path& token) {
  Contents out;
  std::error_code error;
  const auto add = [&](const fs::path& file) {
    const auto status = fs::symlink_status(file, error);
    if (error) return;
    if (fs::is_directory(status)) return out.folders.push_back(file);
    if (is_token(file) || file == token) return out.tokens.push_back(file);
    out.files.push_back(file);
    if (fs::is_regular_file(status)) out.bytes += static_cast<int64_t>(fs::file_size(file, error));
  };
  for (const auto& part : parts) {
    add(part);
    const auto options = fs::directory_options::skip_permission_denied;
    for (auto at = fs::recursive_directory_iterator(part, options, error);
         !error && at != fs::recursive_directory_iterator(); at.increment(error))
      add(at->path());
    error.clear();
  }
  return out;
}

using IsPart = std::function<bool(const fs::path& name)>;

bool is_one_of(const fs::path& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name.string()) != names.end();
}

// Entries of a folder whose names are a cache's.
std::vector<fs::path> entries_of(const fs::path& folder, const IsPart& is_part) {
  std::vector<fs::path> out;
  std::error_code error;
  for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    if (is_part(at->path().filename())) out.push_back(at->path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// [huggingface_hub, file_download.py: repo_folder_name, and .locks; constants.py]
bool is_hub_entry(const fs::path& name) {
  const auto text = name.string();
  for (const char* kind : {"models--", "datasets--", "spaces--"}) {
    if (text.starts_with(kind)) return true;
  }
  return is_one_of(name, {".locks", "version.txt", "version_diffusers_cache.txt", "CACHEDIR.TAG"});
}

// What Hugging Face's libraries keep below HF_HOME, logins left out.
std::vector<fs::path> parts_of_hub_home(const fs::path& home) {
  auto out = entries_of(home / "hub", is_hub_entry);
  for (auto& part : entries_of(home, [](const fs::path& name) { return name == "xet"; }))
    out.push_back(std::move(part));
  for (auto& part : entries_of(home / "modules", [](const fs::path& name) {
         return is_one_of(name, {"transformers_modules", "datasets_modules", "diffusers_modules"});
       }))
    out.push_back(std::move(part));
  return out;
}

// [torch.hub: checkpoints, trusted_list, and a folder with a hubconf.py for each repository]
std::vector<fs::path> parts_of_torch(const fs::path& home) {
  return entries_of(home / "hub", [&](const fs::path& name) {
    std::error_code error;
    return is_one_of(name, {"checkpoints", "trusted_list"}) ||
           fs::exists(home / "hub" / name / "hubconf.py", error);
  });
}

std::vector<fs::path> parts_of_pip(const fs::path& folder) {
  return entries_of(folder, [](const fs::path& name) {
    return is_one_of(name, {"http", "http-v2", "wheels", "selfcheck", "selfcheck.json"});
  });
}

bool is_venv_entry(const fs::path& name) {
  return is_one_of(name, {"bin", "include", "lib", "lib64", "share", "etc", "pyvenv.cfg", ".gitignore",
                          ".lock", "CACHEDIR.TAG"});
}

bool has(const std::vector<fs::path>& all, const fs::path& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

class Finder {
 public:
  Finder(const Environment& variables, std::vector<CacheFolder>& out) : variables_(variables), out_(out) {
    cache_ = cache_folder(variables);
    token_ = path_of("HF_TOKEN_PATH");
  }

  fs::path path_of(const char* name) const { return path_variable(variables_, name); }
  const fs::path& cache() const { return cache_; }

  void add(std::string what, std::string flag, const fs::path& folder, std::vector<fs::path> parts,
           bool is_wanted) {
    std::error_code error;
    if (folder.empty() || !fs::is_directory(folder, error)) return;
    auto contents = contents_of(parts, token_);
    for (const auto& name : {"token", "stored_tokens"}) {  // told although they are in no part
      const auto file = folder / name;
      if (fs::is_regular_file(file, error) && !has(contents.tokens, file)) contents.tokens.push_back(file);
    }
    out_.push_back({std::move(what), std::move(flag), folder, std::move(parts), contents.bytes, is_wanted,
                    std::move(contents.tokens)});
  }

  // A folder that has its name from these libraries is theirs as a whole; in one that a variable names,
  // parts are.
  void add(std::string what, std::string flag, const char* variable, const char* name,
           std::vector<fs::path> (*parts_of)(const fs::path&), bool is_wanted) {
    const auto usual = cache_ / name, named = path_of(variable);
    const bool is_usual = named.empty() || named.lexically_normal() == usual.lexically_normal();
    const auto& folder = is_usual ? usual : named;
    add(std::move(what), std::move(flag), folder, is_usual ? std::vector{folder} : parts_of(folder),
        is_wanted);
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
  const auto own = find.cache() / "atelier";
  find.add("this program's own", "", own, {own}, true);
  find.add("Hugging Face: downloaded models; the login stays", "--hf", "HF_HOME", "huggingface",
           parts_of_hub_home, scopes.hub);
  const auto home = find.path_of("HF_HOME").empty() ? find.cache() / "huggingface" : find.path_of("HF_HOME");
  const auto hub = hub_folder(variables);
  if (hub.lexically_normal() != (home / "hub").lexically_normal())
    find.add("Hugging Face: downloaded models", "--hf", hub, entries_of(hub, is_hub_entry), scopes.hub);
  find.add("PyTorch: hub and compiled kernels", "--torch", "TORCH_HOME", "torch", parts_of_torch,
           scopes.torch);
  find.add("xDiT", "--xdit", find.cache() / "xdit", {find.cache() / "xdit"}, scopes.xdit);
  find.add("pip: downloaded packages", "--pip", "PIP_CACHE_DIR", "pip", parts_of_pip, scopes.pip);
  if (!scopes.venv.empty()) {
    const fs::path venv = expand_home(scopes.venv, variables);
    if (!fs::exists(venv / "pyvenv.cfg"))
      throw Error(Kind::kUsage,
                  str("--venv ", scopes.venv, ": no virtual environment (it has no pyvenv.cfg)"));
    const auto foreign = entries_of(venv, [](const fs::path& name) { return !is_venv_entry(name); });
    if (!foreign.empty())
      throw Error(Kind::kUsage,
                  str("--venv ", scopes.venv, ": it also holds ", foreign.front().filename().string(),
                      ", which is no part of a virtual environment: move that away first"));
    find.add("virtual environment", "--venv", venv, {venv}, true);
  }
  return out;
}

int64_t remove_cache(const CacheFolder& cache) {
  int64_t freed = 0;
  std::error_code error;
  const auto contents = contents_of(cache.parts, {});
  for (const auto& file : contents.files) {
    if (has(cache.kept, file)) continue;
    const bool is_regular = fs::is_regular_file(fs::symlink_status(file, error));
    const auto size = is_regular ? static_cast<int64_t>(fs::file_size(file, error)) : 0;
    if (fs::remove(file, error)) freed += size;
  }
  // Folders that are empty now, from the inside out.
  auto folders = contents.folders;
  folders.push_back(cache.folder);
  std::sort(folders.begin(), folders.end(), [](const fs::path& a, const fs::path& b) {
    return std::distance(a.begin(), a.end()) > std::distance(b.begin(), b.end());
  });
  for (const auto& folder : folders) fs::remove(folder, error);  // only where nothing is in it
  return freed;
}

}  // namespace atelier::app
