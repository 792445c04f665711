// Two results against each other, as a gate: what got worse by more than its noise.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::bench {

// What was measured of one thing, under a name that is the same in every result of it.
struct Entry {
  std::string name;    // model, layout, size, batch, steps, type
  std::string device;  // "NVIDIA H200"
  struct Number {
    double value = 0;
    double noise = 0;  // share of it: half the way from the least run to the 90th percentile
    int runs = 1;
  };
  std::map<std::string, Number> numbers;  // by quantity: "ms_per_step"
  std::string problem;                    // why there are none
};

// Of a protocol's result, of bench.json, and of files with "rows", in a list or by name. Throws Error(kUsage)
// for a file without rows; where: names it.
std::vector<Entry> entries_of(const Json& result, const std::string& where);

struct GateRule {
  double tolerance = 0.05;  // changes up to this share never count
  int least_runs = 3;       // of both; fewer decide nothing
};

enum class Outcome { kSame, kBetter, kWorse, kGone, kTooFewRuns };

struct Delta {
  std::string name, quantity;
  double before = 0, after = 0;
  double change = 0;  // share; positive is worse
  double limit = 0;   // share that it must exceed: the tolerance, or the noise of either
  Outcome outcome = Outcome::kSame;
};

// Of everything that both hold, and kGone for what only the first does. Throws Error(kUsage) where they have
// nothing in common, or were measured on other devices.
std::vector<Delta> compare(const std::vector<Entry>& before, const std::vector<Entry>& after,
                           const GateRule& rule);

bool is_regression(const std::vector<Delta>& comparisons);
std::string line_of(const Delta& comparison);
Json to_json(const std::vector<Delta>& comparisons, const GateRule& rule);

}  // namespace atelier::bench
