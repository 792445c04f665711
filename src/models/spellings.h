// Checkpoints that several tools write under names of their own: which model it is, and all its spellings.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::models {

// A module or tensor in the spelling that all have in common, and in a tool's own. "{}" stands for one index,
// which is the same in both; what lies below follows.
struct NamePair {
  std::string common, spelled;
};

struct Spelling {
  std::string tool;             // "diffusers"
  std::string mark;             // a tensor that every checkpoint in this spelling has, and in no other
  std::vector<NamePair> pairs;  // the first that fits counts

  std::optional<std::string> common_of(std::string_view spelled) const;
  std::optional<std::string> spelled_of(std::string_view common) const;
};

struct SpelledModel {
  std::string what;                 // "a Wan transformer"
  std::vector<Spelling> spellings;  // of every tool
};

// Told from tensors in any spelling, without a prefix; none: another model.
using Speller = std::optional<SpelledModel> (*)(std::span<const std::string> names);

// A checkpoint's model, the spelling that its mark shows, and what stands before all its names.
struct RecognisedNames {
  SpelledModel model;
  size_t spelling = 0;  // of the model's
  std::string prefix;
};

// Throws Error(kCheckpoint) where no mark is found, or where tensors do not stand behind the prefix of the
// mark. place: for messages.
RecognisedNames recognise_names(std::span<const std::string> names, const std::string& place);

// The spelling of a tool. Throws Error(kUsage) naming those that there are.
const Spelling& spelling_of(const SpelledModel& model, const std::string& tool);

}  // namespace atelier::models
