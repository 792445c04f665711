// Figures of the documents this protocol comes from, with what they were measured on. They are nobody's here:
// they stand in columns of their own.
#pragma once
#include <optional>
#include <span>
#include <string_view>

#include "base/json.h"

namespace atelier::bench {

enum class About { kScaling, kSpeedUp, kThroughput, kCompile, kHybrid, kHardware };

struct Cited {
  std::string_view id, what;
  std::string_view value;            // as it is written there: "2.6x", "1.26x to 1.76x"
  std::optional<double> number;      // where it is one
  int gpus = 0;                      // 0: of none in particular
  std::string_view mode;             // of throughput: as Measurement::mode
  std::string_view hardware, model;  // of the source; "not said" where it does not say
  std::string_view steps, compile;
  std::string_view source;
  std::string_view remark = {};  // where documents contradict each other, or themselves
  About about = About::kScaling;
};

std::span<const Cited> cited_figures();
Json to_json(const Cited& figure);

}  // namespace atelier::bench
