// Words of the surfaces that users come from, as data, and the parser over them.
#include "plan/parallel_config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace atelier::plan {
namespace {

struct Word {
  int ParallelConfig::*number;          // at least one of the two is set, or neither: parallel_vae
  bool ParallelConfig::*flag;           // beside a number: what a number above 1 switches on
  int least, most;                      // of a number; 0: no upper bound
  std::vector<std::string_view> names;  // the first is the canonical one
  bool is_switch() const { return !number; }
};

const std::vector<Word>& words() {
  static const std::vector<Word> kWords{
      {&ParallelConfig::data,
       nullptr,
       1,
       0,
       {"data", "dp", "d", "data_parallel", "data_degree", "data_parallel_degree", "data_parallel_size"}},
      {&ParallelConfig::cfg,
       nullptr,
       1,
       2,
       {"cfg", "cfg_parallel", "use_cfg_parallel", "cfg_degree", "cfg_parallel_degree", "guidance", "g"}},
      {&ParallelConfig::pipeline,
       nullptr,
       1,
       0,
       {"pipefusion", "pipefusion_parallel", "pipefusion_degree", "pipefusion_parallel_degree", "pp", "p",
        "stages"}},
      {&ParallelConfig::ring, nullptr, 1, 0, {"ring", "ring_degree", "ring_parallel", "r"}},
      {&ParallelConfig::kv_gather,
       nullptr,
       1,
       0,
       {"kv_gather", "kv_gather_degree", "kv_gather_parallel", "gather", "k"}},
      {&ParallelConfig::ulysses,
       nullptr,
       1,
       0,
       {"ulysses", "ulysses_degree", "ulysses_parallel", "u", "rows", "rows_degree"}},
      {&ParallelConfig::tensor,
       nullptr,
       1,
       0,
       {"tensor", "tp", "t", "tensor_parallel", "tensor_degree", "tensor_parallel_degree",
        "tensor_parallel_size"}},
      {&ParallelConfig::patches, nullptr, 1, 0, {"patches", "num_pipeline_patch"}},
      {&ParallelConfig::warmup, nullptr, 0, 0, {"warmup", "warmup_steps"}},
      {&ParallelConfig::shard, nullptr, 1, 0, {"shard", "fully_shard", "fully_shard_degree"}},
      {nullptr, &ParallelConfig::sync, 0, 0, {"sync", "pipefusion_sync"}},
      {nullptr, nullptr, 0, 0, {"parallel_vae", "use_parallel_vae"}},
      {nullptr, &ParallelConfig::collective, 0, 0, {"collective"}},
      {nullptr, &ParallelConfig::overlap, 0, 0, {"overlap_p2p_comm"}},
      {&ParallelConfig::pipeline,
       &ParallelConfig::sync,  // exact stages: every step whole
       1,
       0,
       {"pipeline_parallel_size", "pipeline_parallel"}},
  };
  return kWords;
}

std::string known_words() {
  std::string list;
  for (const Word& word : words()) list += str(list.empty() ? "" : ", ", word.names.front());
  return list;
}

std::string nearest_word(std::string_view name) {
  std::string_view best;
  size_t least = 3;  // a word farther away is no typing error
  for (const Word& word : words()) {
    for (std::string_view known : word.names) {
      if (known.size() < 3) continue;
      if (const size_t distance = edit_distance(name, known); distance < least) {
        least = distance;
        best = known;
      }
    }
  }
  return std::string(best);
}

const Word& look_up(std::string_view name, std::string_view text) {
  for (const Word& word : words()) {
    if (std::find(word.names.begin(), word.names.end(), name) != word.names.end()) return word;
  }
  const std::string nearest = nearest_word(name);
  throw Error(Kind::kUsage, str("strategy \"", text, "\": unknown word \"", name, "\"",
                                nearest.empty() ? "" : ", did you mean \"" + nearest + "\"?",
                                "; known words: ", known_words()));
}

std::optional<bool> as_switch(std::string_view value) {
  for (std::string_view yes : {"true", "yes", "on", "1"}) {
    if (value == yes) return true;
  }
  for (std::string_view no : {"false", "no", "off", "0"}) {
    if (value == no) return false;
  }
  return std::nullopt;
}

std::optional<int> as_number(std::string_view value) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return number;
}

void set(ParallelConfig& degrees, const Word& word, std::string_view name, std::string_view value,
         std::string_view text) {
  if (word.is_switch()) {
    const auto flag = as_switch(value.empty() ? "true" : value);
    if (flag && word.flag) return void(degrees.*word.flag = *flag);
    if (flag) return void(degrees.parallel_vae = *flag ? PictureRows::kAlways : PictureRows::kNever);
    throw Error(Kind::kUsage,
                str("strategy \"", text, "\": ", name, "=", value, " is neither true nor false"));
  }
  const bool is_guidance = word.number == &ParallelConfig::cfg;
  std::optional<int> number = as_number(value);
  if (is_guidance && !number) {
    if (const auto flag = as_switch(value.empty() ? "true" : value)) number = *flag ? 2 : 1;
  }
  if (!number || *number < word.least || (word.most && *number > word.most)) {
    const std::string range =
        word.most ? str(word.least, " or ", word.most) : str("a whole number from ", word.least);
    throw Error(Kind::kUsage,
                str("strategy \"", text, "\": ", name, "=", value, ": the value must be ", range));
  }
  degrees.*word.number = *number;
  if (word.flag && *number > 1) degrees.*word.flag = true;
}

bool separates(char c) {
  return c == ',' || c == ';' || std::isspace(static_cast<unsigned char>(c));
}

// Lower case, '-' as '_', no space around '=': "CFG-Parallel = 2" -> "cfg_parallel=2".
std::string normalised(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '=') {
      while (!out.empty() && std::isspace(static_cast<unsigned char>(out.back()))) out.pop_back();
    } else if (std::isspace(static_cast<unsigned char>(c)) && !out.empty() && out.back() == '=') {
      continue;
    }
    const bool is_sign = !out.empty() && out.back() == '=';
    out += c == '-' && !is_sign ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

int product_of(std::span<const int> sizes) {
  int64_t product = 1;  // stays below 2^62: a mistyped degree must not overflow
  for (int size : sizes) product = std::min<int64_t>(product * size, std::numeric_limits<int>::max());
  return static_cast<int>(product);
}

}  // namespace

std::array<int, kAxes> mesh_sizes(const ParallelConfig& d) {
  return {d.data, d.cfg, d.pipeline, d.ring, d.kv_gather, d.ulysses, d.tensor};
}

int sequence_size(const ParallelConfig& degrees) {
  return product_of(std::array{degrees.ring, degrees.kv_gather, degrees.ulysses});
}

std::string sequence_product(const ParallelConfig& d) {
  return str("ring ", d.ring, d.kv_gather > 1 ? str(" x kv_gather ", d.kv_gather) : "", " x ulysses ",
             d.ulysses);
}

int world_size(const ParallelConfig& degrees) {
  return product_of(mesh_sizes(degrees));
}

int patch_count(const ParallelConfig& degrees) {
  if ((degrees.pipeline == 1 && !degrees.simulate) || degrees.sync) return 1;
  return degrees.patches == 0 ? degrees.pipeline : degrees.patches;
}

ParallelConfig parse_strategy(std::string_view text) {
  const std::string line = normalised(text);
  ParallelConfig degrees;
  std::vector<const Word*> seen;
  for (size_t at = 0; at < line.size();) {
    if (separates(line[at])) {
      ++at;
      continue;
    }
    const size_t end = std::find_if(line.begin() + at, line.end(), separates) - line.begin();
    const std::string_view entry = std::string_view(line).substr(at, end - at);
    at = end;
    const size_t equals = entry.find('=');
    const std::string_view name = entry.substr(0, equals);
    const bool has_value = equals != std::string_view::npos;
    const Word& word = look_up(name, text);
    const auto says_the_same = [&word](const Word* other) {
      return other == &word || (word.number && other->number == word.number);
    };
    if (std::any_of(seen.begin(), seen.end(), says_the_same)) {
      throw Error(Kind::kUsage,
                  str("strategy \"", text, "\": ", word.names.front(), " is given twice (", name, ")"));
    }
    seen.push_back(&word);
    const std::string_view value = has_value ? entry.substr(equals + 1) : std::string_view();
    const bool may_stand_alone = word.is_switch() || word.number == &ParallelConfig::cfg;
    if (value.empty() && (has_value || !may_stand_alone)) {
      throw Error(Kind::kUsage,
                  str("strategy \"", text, "\": ", name, " needs a value, such as ", name, "=2"));
    }
    set(degrees, word, name, value, text);
  }
  return degrees;
}

std::vector<std::string> split_strategies(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('|', at), text.size());
    const auto part = text.substr(at, end - at);
    const size_t first = part.find_first_not_of(' '), last = part.find_last_not_of(' ');
    out.emplace_back(first == std::string_view::npos ? "" : part.substr(first, last - first + 1));
    at = end + 1;
  }
  return out;
}

std::vector<ParallelConfig> parse_strategies(std::string_view text) {
  std::vector<ParallelConfig> out;
  for (const auto& one : split_strategies(text)) out.push_back(parse_strategy(one));
  return out;
}

std::string to_string(const ParallelConfig& degrees) {
  const ParallelConfig plain;
  std::string text;
  for (const Word& word : words()) {
    std::string value;
    if (word.number && word.flag) continue;  // another word for a number and a switch
    if (word.number) {
      if (degrees.*word.number == plain.*word.number) continue;
      value = str("=", degrees.*word.number);
    } else if (word.flag) {
      if (degrees.*word.flag == plain.*word.flag) continue;
      value = degrees.*word.flag ? "" : "=false";
    } else {
      if (degrees.parallel_vae == plain.parallel_vae) continue;
      value = degrees.parallel_vae == PictureRows::kAlways ? "" : "=false";
    }
    text += str(text.empty() ? "" : ", ", word.names.front(), value);
  }
  return text.empty() ? "data=1" : text;
}

std::string product(const ParallelConfig& degrees) {
  const auto sizes = mesh_sizes(degrees);
  std::string text;
  for (int axis = 0; axis < kAxes; ++axis) {
    text += str(axis ? " x " : "", axis_name(static_cast<Axis>(axis)), " ", sizes[axis]);
  }
  return text + str(" = ", world_size(degrees));
}

}  // namespace atelier::plan
