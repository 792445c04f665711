// The degrees of one run, and their short spelling: "cfg=2, pipefusion=2, ring=2".
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plan/mesh.h"

namespace atelier::plan {

// Whether ranks that draw together code pictures by rows, each its own: where a picture is worth it
// (codes_by_rows), always, or never, which leaves all of it to the first of them.
enum class PictureRows : uint8_t { kBySize, kAlways, kNever };

struct ParallelConfig {
  int data = 1;
  int cfg = 1;  // 2: one branch of classifier-free guidance per half
  int pipeline = 1;
  int ring = 1, kv_gather = 1, ulysses = 1, tensor = 1;
  int patches = 0;        // 0: as many as stages; see patch_count
  int warmup = 1;         // whole steps before the patches start to flow
  bool sync = false;      // every step whole: exact
  bool simulate = false;  // patches flow with one stage too: what several stages draw, for comparison
  PictureRows parallel_vae = PictureRows::kBySize;  // reuses the ranks
  int shard = 1;  // ranks of the sequence group that share each block's weights; reuses the ranks
  bool collective =
      false;  // Ulysses sends messages although ranks can store into each other's memory: the same bits
  bool overlap =
      true;  // messages travel while ranks compute; else they are waited for at once: the same bits
  std::vector<int> stage_blocks = {};  // of each stage, as the user has set them; empty: by cost
  bool operator==(const ParallelConfig&) const = default;
};

// Degrees along the axes, outer to inner: what Mesh takes.
std::array<int, kAxes> mesh_sizes(const ParallelConfig& degrees);
// Ranks that share the tokens of a picture: ring x kv_gather x ulysses. The product as text leaves out
// kv_gather where it is 1: "ring 2 x ulysses 4".
int sequence_size(const ParallelConfig& degrees);
std::string sequence_product(const ParallelConfig& degrees);
// The number of ranks: the product of all degrees. VAE and weight shards reuse them.
int world_size(const ParallelConfig& degrees);
// Patches that really flow: 1 with one stage (unless simulated) or with sync.
int patch_count(const ParallelConfig& degrees);

// Reads "word=value, word=value"; separators are commas, semicolons and white space, case and -/_ do not
// matter. Words without a value are switches: "cfg" is cfg=2, "sync", "parallel_vae" (of pictures of any
// size). An empty text is one rank. Throws Error(kUsage) naming a word that is unknown (with the known ones),
// given twice or whose value is wrong.
ParallelConfig parse_strategy(std::string_view text);
// The texts of several, between bars: "ulysses=2 | ring=2". At least one; it may be empty.
std::vector<std::string> split_strategies(std::string_view text);
std::vector<ParallelConfig> parse_strategies(std::string_view text);

// The spelling that parse_strategy reads back, without the defaults: "cfg=2, ulysses=4"; "one rank" has none:
// "data=1".
std::string to_string(const ParallelConfig& degrees);
// Every factor and the product: "data 1 x cfg 2 x pipefusion 1 x ring 1 x kv_gather 1 x ulysses 4 x tensor
// 1 = 8".
std::string product(const ParallelConfig& degrees);

}  // namespace atelier::plan
