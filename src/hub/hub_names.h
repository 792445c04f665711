// Short names of published models, as data: what people type instead of a hub id.
#pragma once
#include <string_view>
#include <vector>

namespace atelier::hub {

struct Alias {
  std::string_view name, id;
};

// All short names; the part of an id behind its slash is one too.
std::vector<Alias> aliases();

}  // namespace atelier::hub
