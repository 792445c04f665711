// Caches on this machine that documents of other tools tell people to remove, and how to do it without
// losing a login.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "app/compat/environment.h"

namespace atelier::app {

// What may be removed besides this program's own cache.
struct CacheScopes {
  bool hub = false, torch = false, xdit = false, pip = false;
  std::string venv;  // folder of a virtual environment; empty: none
};

struct CacheFolder {
  std::string what, flag;  // flag: that names its scope; empty: this program's own
  std::filesystem::path folder;
  std::vector<std::filesystem::path>
      parts;                                // all that may go: the folder, or what is a cache's in it by name
  int64_t bytes = 0;                        // of files in the parts, what is kept left out
  bool is_wanted = false;                   // in a scope
  std::vector<std::filesystem::path> kept;  // never removed: tokens
};

// Those that are there, as XDG_CACHE_HOME, HF_HOME, HF_HUB_CACHE, HF_TOKEN_PATH, TORCH_HOME and PIP_CACHE_DIR
// say. These variables may name a folder that holds other things too, such as /workspace or a home: there,
// only what the libraries call by names of their own is theirs. Throws Error(kUsage) for a venv that is none,
// or that shares its folder with other things.
std::vector<CacheFolder> find_caches(const Environment& variables, const CacheScopes& scopes);

// Removes its parts but what is kept, and the folder itself where that leaves nothing. Links in it are
// removed, never followed. Returns the bytes of files that are gone.
int64_t remove_cache(const CacheFolder& cache);

}  // namespace atelier::app
