#include "models/spellings.h"

#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "weights/names.h"

namespace atelier::models {

std::optional<SpelledModel> wan_transformer_spellings(std::span<const std::string> names);
std::optional<SpelledModel> wan_vae_spellings(std::span<const std::string> names);

namespace {

constexpr Speller kSpellers[] = {wan_transformer_spellings, wan_vae_spellings};

// What stands before the mark in the first name that ends in it.
std::optional<std::string> prefix_of(std::span<const std::string> names, const std::string& mark) {
  for (const auto& name : names) {
    if (name == mark) return std::string();
    if (name.ends_with("." + mark)) return name.substr(0, name.size() - mark.size());
  }
  return std::nullopt;
}

std::vector<std::string> without(const std::string& prefix, std::span<const std::string> names,
                                 const std::string& place) {
  std::vector<std::string> short_names, others;
  for (const auto& name : names) {
    if (name.starts_with(prefix)) {
      short_names.push_back(name.substr(prefix.size()));
    } else {
      others.push_back(in_quotes(name));
    }
  }
  if (!others.empty()) {
    throw Error(Kind::kCheckpoint, str(place, ": its model stands behind ", in_quotes(prefix), ", but ",
                                       others.size(), " of ", names.size(), " tensors do not: ",
                                       list_text(others, 5), "; convert one component at a time"));
  }
  return short_names;
}

std::optional<std::string> led(std::string_view name, std::string_view from, std::string_view to) {
  const auto found = weights::match(from, name);
  return found ? std::optional(weights::fill(to, *found)) : std::nullopt;
}

}  // namespace

std::optional<std::string> Spelling::common_of(std::string_view name) const {
  for (const auto& p : pairs) {
    if (auto found = led(name, p.spelled, p.common)) return found;
  }
  return std::nullopt;
}

std::optional<std::string> Spelling::spelled_of(std::string_view name) const {
  for (const auto& p : pairs) {
    if (auto found = led(name, p.common, p.spelled)) return found;
  }
  return std::nullopt;
}

RecognisedNames recognise_names(std::span<const std::string> names, const std::string& place) {
  std::string known;
  for (const auto speller : kSpellers) {
    const auto about = speller({});
    known += (known.empty() ? "" : " and ") + about->what;
    for (size_t i = 0; i < about->spellings.size(); ++i) {
      const auto prefix = prefix_of(names, about->spellings[i].mark);
      if (!prefix) continue;
      const auto model = speller(without(*prefix, names, place));
      return {*model, i, *prefix};
    }
  }
  throw Error(Kind::kCheckpoint, str(place, ": none of its ", names.size(),
                                     " tensors marks a model whose names can be changed; there are ", known));
}

const Spelling& spelling_of(const SpelledModel& model, const std::string& tool) {
  std::string known;
  for (const auto& s : model.spellings) {
    if (s.tool == tool) return s;
    known += (known.empty() ? "" : ", ") + s.tool;
  }
  throw Error(Kind::kUsage, str(model.what, " has no names of \"", tool, "\"; there are ", known));
}

}  // namespace atelier::models
