#include "models/presets.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/family.h"

namespace atelier::models {

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Family* family : families()) {
    for (const Preset& p : family->presets) names.emplace_back(p.name);
  }
  return names;
}

Json preset(const std::string& name) {
  const std::string base = name.substr(name.find('/') + 1);  // npos + 1 is 0
  for (const Family* family : families()) {
    for (const Preset& p : family->presets) {
      if (base == p.name || (!p.alias.empty() && base == p.alias)) return p.make();
    }
  }
  std::string known;
  for (const auto& n : preset_names()) known += (known.empty() ? "" : ", ") + n;
  throw Error(Kind::kUsage, str("no built-in configuration for ", name, "; dummy weights exist for ", known));
}

}  // namespace atelier::models
