// Rules that turn a checkpoint's tensor names into canonical ones, as data. Torch-free.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/partition.h"

namespace atelier::weights {

// How the names of a layer's matrix and of its bias end in every checkpoint.
inline constexpr std::string_view kWeightEnding = ".weight", kBiasEnding = ".bias";

// One tensor of the checkpoint, or a range of its rows.
struct SourcePart {
  std::string name;  // "{}" stands for one index (digits)
  Range rows = {};   // size 0: all rows
};

// canonical <- parts, stacked along `axis` (0 rows, 1 columns): "double.{}.image.qkv" <- to_q, to_k, to_v.
// A name matches a tensor's whole name or everything below it: "text_model.encoder" covers
// "text_model.encoder.layers.0.mlp.fc1.weight", so that one rule renames a prefix, and a layer's name without
// ".weight"/".bias" covers both. The k-th "{}" of every part equals the k-th "{}" of the canonical name.
struct NameRule {
  std::string canonical;
  std::vector<SourcePart> parts;
  int axis = 0;
  bool is_transposed = false;  // the one part is a matrix that lies on its side
};

// A stored name without what training writes into it: compiled, checkpointed and sharded modules put a part
// of their own before the names of what they wrap (torch.compile, FSDP, DDP, Lightning), anywhere in a name:
// "blocks.0._orig_mod.attn.weight", "module.blocks.0.attn.weight".
std::string unwrapped(std::string_view name);
// The same for names with '_' between all words, where a plain "module" may be a model's own.
std::string unwrapped_flat(std::string_view name);

// Whether a canonical tensor is one that no checkpoint has: zeros, to which adapters may add.
bool is_added(std::string_view canonical);

// What a pattern left open.
struct Match {
  std::vector<std::string> indices;  // in the order of "{}"
  std::string suffix;                // empty, or begins with '.'
};

std::optional<Match> match(std::string_view pattern, std::string_view name);
// The pattern with its indices filled in and the suffix appended.
std::string fill(std::string_view pattern, const Match& match);

}  // namespace atelier::weights
