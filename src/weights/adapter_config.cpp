#include "weights/adapter_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/quote.h"
#include "base/text.h"

namespace atelier::weights {
namespace {

// In the order of the file: the first pattern that matches counts.
using Ordered = nlohmann::ordered_json;

constexpr const char* kHeaderKey = "lora_adapter_metadata";
constexpr std::string_view kPeftPrefix = "base_model.model.";
// Bytes of a regular expression, and of what it is tried on: the library's matcher recurses.
constexpr size_t kMostPattern = 1000, kMostPath = 1000;
// What multiplies the time of a match: tests ahead run anew at every place, counts repeat what they follow.
constexpr int kMostAhead = 2, kMostCounts = 2, kMostTimes = 20;

bool takes_little_time(std::string_view pattern) {
  int ahead = 0, counts = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const auto rest = pattern.substr(i);
    if (rest.starts_with('\\')) ++i;
    if (rest.starts_with("(?=") || rest.starts_with("(?!")) ++ahead;
    if (!rest.starts_with('{')) continue;
    ++counts;
    const auto inside = rest.substr(1, rest.find('}') - 1);  // "2", "1,3"
    const auto comma = std::min(inside.find(','), inside.size());
    for (const auto number : {inside.substr(0, comma), inside.substr(std::min(comma + 1, inside.size()))}) {
      if (!number.empty() && to_integer(number).value_or(kMostTimes + 1) > kMostTimes) return false;
    }
  }
  return ahead <= kMostAhead && counts <= kMostCounts;
}

// By the matcher whose time is a polynomial: the usual one tries every way to read a path, as many as 2^n.
std::regex expression(const std::string& pattern) {
  auto kind = std::regex::ECMAScript;
#ifdef __GLIBCXX__
  kind |= std::regex_constants::__polynomial;
#endif
  return std::regex("(.*\\.)?(" + pattern + ")$", kind);
}

[[noreturn]] void refuse(std::string_view where, std::string_view what) {
  throw Error(Kind::kCheckpoint, str(where, ": ", what));
}

Ordered parse(std::string_view text, std::string_view where) {
  Ordered json = json_depth(text) > kMaxDepth ? Ordered(Ordered::value_t::discarded)
                                              : Ordered::parse(text, nullptr, false);
  if (!json.is_object()) refuse(where, "it is no JSON object; download the adapter again");
  return json;
}

// The words of one part, each read once.
class PartReader {
 public:
  PartReader(const Ordered& words, std::string_view where) : words_(words), where_(where) {}

  PartScales run() const {
    refuse_kinds();
    PartScales out;
    if (const Ordered* alpha = find("lora_alpha")) out.alpha = number(*alpha, "lora_alpha");
    if (const Ordered* patterns = find("alpha_pattern")) read_patterns(*patterns, out);
    out.divides_by_root = says("use_rslora");
    out.has_norms = says("use_dora");
    return out;
  }

 private:
  const Ordered* find(const char* key) const {
    const auto at = words_.find(key);
    return at == words_.end() || at->is_null() ? nullptr : &*at;
  }
  bool says(const char* key) const {
    const Ordered* word = find(key);
    return word && word->is_boolean() && word->get<bool>();
  }
  double number(const Ordered& value, std::string_view key) const {
    if (!value.is_number()) refuse(where_, str(key, " is no number but ", in_quotes(value.dump())));
    return value.get<double>();
  }

  void refuse_kinds() const {
    if (const Ordered* kind = find("peft_type"); kind && *kind != "LORA") {
      refuse(where_,
             str("it is an adapter of the kind ", in_quotes(kind->dump()), "; only LORA is read here"));
    }
    constexpr std::array kSwitches{"fan_in_fan_out", "use_qalora",   "layer_replication",
                                   "use_bdlora",     "arrow_config", "velora_config"};
    for (const char* key : kSwitches) {
      const Ordered* word = find(key);
      if (word && *word != false) refuse(where_, str("its setting ", key, " is not supported here"));
    }
    // Those that change the model's own weights before they train.
    constexpr std::array kStarts{"pissa", "olora", "corda", "loftq", "lora_ga"};
    const Ordered* start = find("init_lora_weights");
    if (!start || !start->is_string()) return;
    for (const std::string_view known : kStarts) {
      if (!start->get<std::string>().starts_with(known)) continue;
      refuse(where_, str("init_lora_weights ", start->dump(), " changes the model's own weights; convert it ",
                         "to a plain LoRA with PEFT"));
    }
  }

  void read_patterns(const Ordered& patterns, PartScales& out) const {
    if (!patterns.is_object()) refuse(where_, "alpha_pattern is no object");
    for (const auto& [pattern, alpha] : patterns.items()) {
      if (pattern.size() > kMostPattern) refuse(where_, "alpha_pattern holds a pattern that is too long");
      if (!takes_little_time(pattern)) {
        refuse(where_, str("alpha_pattern holds ", in_quotes(pattern), ", with more than ", kMostAhead,
                           " tests ahead or ", kMostCounts, " counts, or a large one"));
      }
      try {
        out.of_pattern.emplace_back(expression(pattern), number(alpha, "alpha_pattern"));
      } catch (const std::regex_error&) {
        refuse(where_, str("alpha_pattern holds ", in_quotes(pattern), ", which is no regular expression"));
      }
    }
  }

  const Ordered& words_;
  std::string_view where_;
};

}  // namespace

double PartScales::scale(std::string_view path, int64_t rank, std::optional<double> own_alpha) const {
  const auto wide = static_cast<double>(rank);
  double counts = own_alpha.value_or(alpha.value_or(wide));
  if (!own_alpha && path.size() <= kMostPath) {
    for (const auto& [pattern, value] : of_pattern) {
      if (!std::regex_match(path.begin(), path.end(), pattern)) continue;
      counts = value;
      break;
    }
  }
  return counts / (divides_by_root ? std::sqrt(wide) : wide);
}

AdapterScales scales_of_folder(const std::filesystem::path& config) {
  const Ordered words = parse(read_file(config), config.string());
  return {{std::string(kPeftPrefix), PartReader(words, config.string()).run()}};
}

AdapterScales scales_of_header(const FileMetadata& metadata, const std::filesystem::path& file) {
  const auto at = metadata.find(kHeaderKey);
  if (at == metadata.end()) return {};
  const std::string where = str(file.string(), ": ", kHeaderKey);
  const Ordered all = parse(at->second, where);
  std::map<std::string, Ordered> parts;  // "text_encoder.r": word r of part text_encoder
  for (const auto& [key, value] : all.items()) {
    const size_t behind = key.find('.') + 1;  // 0: of a model of one part
    parts[key.substr(0, behind)][key.substr(behind)] = value;
  }
  AdapterScales out;
  for (const auto& [part, words] : parts) out.emplace(part, PartReader(words, where).run());
  return out;
}

}  // namespace atelier::weights
