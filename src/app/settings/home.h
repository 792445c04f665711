// Where a user's own files are, as the shell has it.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "app/compat/environment.h"

namespace atelier::app {

// HOME, or the home of this user as the system knows it.
std::string home_folder(const Environment& environment);
// "~" and "~user" at the beginning of a path in place of their folders; anything else as it stands.
std::string expand_home(std::string_view path, const Environment& environment);
// The folder or file that a variable names. "~" is the home, and, as in Python's expandvars, "$NAME" and
// "${NAME}" are the values of variables that are set: files of settings hold both. Empty: it names none.
std::filesystem::path path_variable(const Environment& environment, const std::string& name);
// Where models from the hub are kept: HF_HUB_CACHE, or what HF_HOME, XDG_CACHE_HOME and HOME say.
std::filesystem::path hub_folder(const Environment& environment);
// Where programs keep what they can make again: XDG_CACHE_HOME, or ~/.cache.
std::filesystem::path cache_folder(const Environment& environment);
// The token that downloads are made with: HF_TOKEN, or the file that `hf auth login` writes.
// [huggingface_hub, constants.py: HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME, HF_HUB_DISABLE_IMPLICIT_TOKEN]
std::string hub_token(const Environment& environment);
// Whether a variable says that nothing may be fetched: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE; its
// name, or empty.
std::string offline_variable(const Environment& environment);

}  // namespace atelier::app
