#include "app/settings/home.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace atelier::app {
namespace {
namespace fs = std::filesystem;

std::string folder_of(const passwd* user) {
  return user && user->pw_dir ? user->pw_dir : "";
}

bool is_true(const std::string& value) {
  const std::string word = lower(value);
  return word == "1" || word == "on" || word == "yes" || word == "true";
}

}  // namespace

std::string home_folder(const Environment& environment) {
  const std::string home = value_of(environment, "HOME");
  return home.empty() ? folder_of(::getpwuid(::getuid())) : home;
}

std::string expand_home(std::string_view path, const Environment& environment) {
  if (!path.starts_with('~')) return std::string(path);
  const size_t slash = std::min(path.find('/'), path.size());
  const std::string user(path.substr(1, slash - 1));
  const std::string home = user.empty() ? home_folder(environment) : folder_of(::getpwnam(user.c_str()));
  return home.empty() ? std::string(path) : home + std::string(path.substr(slash));
}

fs::path cache_folder(const Environment& environment) {
  const std::string named = expand_home(value_of(environment, "XDG_CACHE_HOME"), environment);
  return named.empty() ? fs::path(home_folder(environment)) / ".cache" : fs::path(named);
}

std::string hub_token(const Environment& environment) {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    std::string token(trim(value_of(environment, name)));
    if (!token.empty()) return token;
  }
  if (is_true(value_of(environment, "HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return {};
  const auto path_of = [&](const char* name) {
    return expand_home(value_of(environment, name), environment);
  };
  fs::path file = path_of("HF_TOKEN_PATH");
  if (file.empty()) {
    const std::string hub = path_of("HF_HOME");
    file = (hub.empty() ? cache_folder(environment) / "huggingface" : fs::path(hub)) / "token";
  }
  std::error_code none;
  const auto status = fs::status(file, none);
  if (!fs::exists(status)) return {};
  if (!fs::is_regular_file(status))
    throw Error(Kind::kUsage, str("the file of the hub's token, ", file.string(), ", is no plain file"));
  return std::string(trim(read_file(file)));
}

std::string offline_variable(const Environment& environment) {
  for (const char* name : {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}) {
    if (is_true(value_of(environment, name))) return name;
  }
  return {};
}

}  // namespace atelier::app
