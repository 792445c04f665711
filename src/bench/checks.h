// The test plan's seven criteria, each with the number behind it, and what bound the run.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::bench {

// "Linear scaling (2x GPUs = ~2x speed)" contradicts the plan's own target of 2.6x on 4 GPUs; these say what
// counts as linear. Shares of the ideal.
inline constexpr double kLinearAt2 = 0.85, kLinearAt4 = 0.65, kLinearData = 0.95;
// The fullest rank over the mean of all.
inline constexpr double kBalanced = 1.25;
// What exact layouts may differ by: levels of 255, and the share of values that differ.
inline constexpr int kExactLevels = 1;
inline constexpr double kExactShare = 1e-3;
// What layouts with stale keys must reach, each picture; below it they are no picture of the same
// prompt any more.
inline constexpr double kLeastPsnr = 20, kLeastSsim = 0.7;

enum class CheckVerdict { kPass, kFail, kNotMeasurable };
std::string_view name_of(CheckVerdict verdict);

struct Check {
  std::string what;
  CheckVerdict verdict = CheckVerdict::kNotMeasurable;
  std::string found;      // the number, or why there is none
  std::string threshold;  // what it is held to
};

std::vector<Check> success_checks(const Json& result);

// Of a layout that draws what one rank draws, or not: {"verdict": "same" | "differs" | "close" | "below
// the floor", "why"}.
struct Judgement {
  std::string verdict, why;
};
Judgement judge(const Json& quality, bool is_exact);

// What limits the run, in one sentence with its number.
std::string bound_by(const Json& result);

// Speed of `what` ("ms_per_step") on this row's ranks over one GPU's and over its ranks; none
// without a baseline.
std::optional<double> speed_up(const Json& result, const Json& row, const char* what);

}  // namespace atelier::bench
