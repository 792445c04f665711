// atelier edit: the flags of a command that follows instructions about pictures, for which a model of that
// kind is needed.
#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "base/error.h"
#include "models/family.h"

namespace atelier::app {
namespace {

// All that draw pictures begin with one if asked to; none is told what to change about one.
std::string families() {
  std::string names;
  for (const auto* family : models::families()) {
    if (!family->video) names += str(names.empty() ? "" : ", ", family->name);
  }
  return names;
}

}  // namespace

int edit_command(const Arguments& arguments) {
  const FlagSet set{
      .surface = kT2i,
      .name = "edit",
      .about =
          "Edits pictures by instruction. Flags as Diffgentor has them; --a_b and --a-b are one "
          "flag. No family of this build can: t2i --image begins with a picture instead.",
      .values = {{"input"},
                 {"output_csv"},
                 {"instruction_key"},
                 {"image_cache_dir"},
                 {"filter_rows"},
                 {"prompt_enhance_type"}}};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  throw Error(
      Kind::kUsage,
      str("edit needs a model that follows instructions about a picture; families of this build that do: ",
          "none. Image to image, and drawing a masked part anew, is there for ", families(),
          ": atelier t2i --image FILE [--mask FILE] --strength 0.6 --prompt TEXT"));
}

}  // namespace atelier::app
