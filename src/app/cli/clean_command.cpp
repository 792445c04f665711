// atelier clean: what caches take, and their removal, one scope at a time.
#include <algorithm>
#include <iostream>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "app/doctor/caches.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

// The folder, where it leads if it is a link, and what of it is meant where that is not all.
std::string place_of(const CacheFolder& cache) {
  std::string out = cache.folder.string();
  std::error_code error;
  if (std::filesystem::is_symlink(cache.folder, error))
    out += " -> " + std::filesystem::weakly_canonical(cache.folder, error).string();
  if (cache.parts == std::vector{cache.folder}) return out;
  constexpr size_t kNamed = 4;
  std::string names;
  for (size_t i = 0; i < std::min(kNamed, cache.parts.size()); ++i)
    names += (i == 0 ? "" : ", ") + cache.parts[i].lexically_relative(cache.folder).string();
  if (cache.parts.size() > kNamed) names += str(" and ", cache.parts.size() - kNamed, " more");
  return out + ": " + (names.empty() ? "nothing" : names) + "; what else is in it stays";
}

}  // namespace

int clean_command(const Arguments& arguments) {
  CLI::App app(
      "Lists what caches take. Nothing is removed without --yes, and then only what is named: by itself this "
      "program's own cache. Tokens of logins are never removed.",
      "atelier clean");
  CacheScopes scopes;
  bool is_sure = false, is_dry = false;
  app.add_flag("--hf", scopes.hub, "also the Hugging Face cache: every downloaded model");
  app.add_flag("--torch", scopes.torch, "also PyTorch's cache");
  app.add_flag("--xdit", scopes.xdit, "also xDiT's cache");
  app.add_flag("--pip", scopes.pip, "also pip's cache");
  app.add_option("--venv", scopes.venv, "also this virtual environment");
  app.add_flag("--yes", is_sure, "remove what is listed");
  app.add_flag("--dry_run", is_dry, "list only (the default)");
  if (!parse_arguments(app, arguments)) return 0;
  if (is_sure && is_dry) throw Error(Kind::kUsage, "--yes and --dry_run say different things; keep one");
  const auto caches = find_caches(environment(), scopes);
  int64_t all = 0;
  for (const auto& c : caches) {
    std::cout << (c.is_wanted ? is_sure ? "remove  " : "would   " : "keep    ") << report::bytes_text(c.bytes)
              << "  " << place_of(c) << "  (" << c.what << (c.is_wanted ? "" : "; " + c.flag) << ")\n";
    for (const auto& kept : c.kept) std::cout << "keep    token  " << kept.string() << "\n";
    if (c.is_wanted) all += c.bytes;
  }
  if (!is_sure) {
    std::cout << report::bytes_text(all) << " would be freed; nothing was removed (--yes removes)\n";
    return 0;
  }
  int64_t freed = 0;
  for (const auto& c : caches) {
    if (c.is_wanted) freed += remove_cache(c);
  }
  std::cout << report::bytes_text(freed) << " freed\n";
  return 0;
}

}  // namespace atelier::app
