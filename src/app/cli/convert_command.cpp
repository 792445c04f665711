// atelier convert: a checkpoint's tensors under the names of another tool.
#include <filesystem>
#include <iostream>
#include <map>
#include <set>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "base/error.h"
#include "base/fingerprint.h"
#include "base/quote.h"
#include "base/text.h"
#include "models/spellings.h"
#include "weights/rename.h"

namespace atelier::app {
namespace {

namespace fs = std::filesystem;

struct ConvertArguments {
  std::string from, to, tool, prefix;
  double shard_gb = 5;
};

// False: --help was asked for.
bool parse(const Arguments& arguments, ConvertArguments& a) {
  CLI::App app(
      "Writes the tensors of IN under the names that another tool gives them. Numbers, types and order stay, "
      "so "
      "that there and back again gives the same file.",
      "atelier convert");
  app.add_option("IN", a.from, "a .safetensors file, an index.json, or the folder of one component")
      ->required();
  app.add_option("OUT", a.to, "a .safetensors file, or a folder for shards")->required();
  app.add_option("--to", a.tool,
                 "whose names: diffusers, native (the model's own repository, ComfyUI) or xdit")
      ->required();
  app.add_option("--prefix", a.prefix, "stands before every name in OUT, such as model.diffusion_model.");
  app.add_option("--max_shard_size", a.shard_gb, "of a file in a folder, in GB (default 5)")
      ->check(CLI::PositiveNumber);
  if (!parse_arguments(app, arguments)) return false;
  if (!is_utf8(a.prefix))
    throw Error(Kind::kUsage,
                "--prefix must be UTF-8, as names of tensors are, found " + in_quotes(a.prefix));
  return true;
}

// What every name becomes. Throws Error(kCheckpoint) listing all that have no other name.
std::map<std::string, std::string> new_names(const std::vector<std::string>& names,
                                             const models::RecognisedNames& from, const models::Spelling& to,
                                             const ConvertArguments& a) {
  const auto& spelling = from.model.spellings[from.spelling];
  std::map<std::string, std::string> all;
  std::set<std::string> taken;
  std::vector<std::string> unmapped;
  for (const auto& name : names) {
    const auto common = spelling.common_of(std::string_view(name).substr(from.prefix.size()));
    const auto other = common ? to.spelled_of(*common) : std::nullopt;
    const bool leads_back = other && to.common_of(*other) == common && taken.insert(*other).second;
    if (leads_back) {
      all[name] = a.prefix + *other;
    } else {
      unmapped.push_back(in_quotes(name));
    }
  }
  if (!unmapped.empty()) {
    throw Error(Kind::kCheckpoint, str(a.from, ": ", unmapped.size(), " of ", names.size(), " tensors of ",
                                       from.model.what, " (", spelling.tool, ") have no name of ", to.tool,
                                       ": ", list_text(unmapped, 8), "; nothing was written"));
  }
  return all;
}

}  // namespace

int convert_command(const Arguments& arguments) {
  ConvertArguments a;
  if (!parse(arguments, a)) return 0;
  const auto names = weights::tensor_names(a.from);
  const auto from = models::recognise_names(names, a.from);
  const auto& to = models::spelling_of(from.model, a.tool);
  const auto renamed = new_names(names, from, to, a);
  const auto made =
      weights::rename_tensors(a.from, {.to = a.to, .max_shard_bytes = static_cast<int64_t>(a.shard_gb * 1e9)},
                              [&](const std::string& name) { return renamed.at(name); });
  std::cout << from.model.what << ", " << from.model.spellings[from.spelling].tool << " -> " << to.tool
            << ": " << made.tensors << " tensors, " << size_text(made.bytes) << ", 0 unmapped\n";
  for (const auto& file : made.files)
    std::cout << "sha256 " << fingerprint(file, Depth::kFull) << "  " << file.string() << "\n";
  return 0;
}

}  // namespace atelier::app
