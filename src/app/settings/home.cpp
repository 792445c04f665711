#include "app/settings/home.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "hub/sources.h"

namespace atelier::app {
namespace {
namespace fs = std::filesystem;

constexpr const char* kOfNames = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";

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

fs::path path_variable(const Environment& environment, const std::string& name) {
  const std::string text = expand_home(value_of(environment, name), environment);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t dollar = std::min(text.find('$', at), text.size());
    out.append(text, at, dollar - at);
    if (dollar == text.size()) break;
    const bool is_braced = text.compare(dollar + 1, 1, "{") == 0;
    const size_t begin = dollar + (is_braced ? 2 : 1);
    const size_t end = std::min(text.find_first_not_of(kOfNames, begin), text.size());
    const auto known = environment.find(text.substr(begin, end - begin));
    const bool is_whole = known != environment.end() && (!is_braced || text.compare(end, 1, "}") == 0);
    out += is_whole ? known->second : text.substr(dollar, end - dollar);
    at = end + (is_whole && is_braced ? 1 : 0);
  }
  return out;
}

fs::path cache_folder(const Environment& environment) {
  const auto named = path_variable(environment, "XDG_CACHE_HOME");
  return named.empty() ? fs::path(home_folder(environment)) / ".cache" : named;
}

fs::path hub_folder(const Environment& environment) {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (auto named = path_variable(environment, name); !named.empty()) return named;
  }
  const auto get = [&](const char* name) { return path_variable(environment, name).string(); };
  return hub::hub_cache({"", get("HF_HOME"), get("XDG_CACHE_HOME"), home_folder(environment)});
}

std::string hub_token(const Environment& environment) {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    std::string token(trim(value_of(environment, name)));
    if (!token.empty()) return token;
  }
  if (is_true(value_of(environment, "HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return {};
  fs::path file = path_variable(environment, "HF_TOKEN_PATH");
  if (file.empty()) {
    const auto hub = path_variable(environment, "HF_HOME");
    file = (hub.empty() ? cache_folder(environment) / "huggingface" : hub) / "token";
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
