#include "weights/names.h"

#include <algorithm>
#include <array>

namespace atelier::weights {
namespace {

// torch.compile; FSDP; its activation checkpointing; Lightning; DDP and AveragedModel.
constexpr std::array<std::string_view, 5> kWrappers{
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module"};

}  // namespace

std::string unwrapped(std::string_view name) {
  std::string out;
  for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.')) {
    const auto part = name.substr(0, dot);
    if (std::find(kWrappers.begin(), kWrappers.end(), part) == kWrappers.end())
      out.append(name.substr(0, dot + 1));
    name.remove_prefix(dot + 1);
  }
  return out.append(name);
}

std::string unwrapped_flat(std::string_view name) {
  std::string out(name);
  for (const auto wrapper : kWrappers) {
    if (!wrapper.starts_with('_')) continue;
    const std::string word = std::string(wrapper) + "_";
    for (size_t at = out.find(word); at != std::string::npos; at = out.find(word)) out.erase(at, word.size());
  }
  return out;
}

std::optional<Match> match(std::string_view pattern, std::string_view name) {
  Match found;
  while (!pattern.empty()) {
    if (pattern.starts_with("{}")) {
      const auto digits = std::min(name.find_first_not_of("0123456789"), name.size());
      if (digits == 0) return std::nullopt;
      found.indices.emplace_back(name.substr(0, digits));
      pattern.remove_prefix(2);
      name.remove_prefix(digits);
    } else {
      if (name.empty() || name.front() != pattern.front()) return std::nullopt;
      pattern.remove_prefix(1);
      name.remove_prefix(1);
    }
  }
  if (!name.empty() && name.front() != '.') return std::nullopt;
  found.suffix = name;
  return found;
}

std::string fill(std::string_view pattern, const Match& match) {
  std::string out;
  size_t index = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i).starts_with("{}") && index < match.indices.size()) {
      out += match.indices[index++];
      ++i;
    } else {
      out += pattern[i];
    }
  }
  return out + match.suffix;
}

bool is_added(std::string_view canonical) {
  return canonical.ends_with(".added.weight");
}

}  // namespace atelier::weights
