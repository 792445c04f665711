#include "bench/checks.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "bench/document.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

constexpr const char* kSharedCores =
    "ranks on the CPU share its cores, which one rank has to itself: not measurable here";

std::string percent(double share) {
  return number_text(100 * share) + " %";
}

CheckVerdict verdict_of(bool is_passed) {
  return is_passed ? CheckVerdict::kPass : CheckVerdict::kFail;
}

Check installation(const Json& result) {
  Check c{"Installation successful", CheckVerdict::kFail, "nothing was drawn",
          "one GPU or rank draws, nothing fails"};
  const Json* row = baseline(result);
  if (!row) return c;
  const double drawn = measured(*row, "drawn").value_or(0), failed = measured(*row, "failed").value_or(0);
  c.verdict = verdict_of(drawn > 0 && failed == 0);
  c.found = str(drawn, " pictures drawn, ", failed, " failed");
  return c;
}

Check detection(const Json& result) {
  const double gpus = number(result.at("machine"), "gpus");
  Check c{"Multi-GPU detection working", CheckVerdict::kNotMeasurable,
          str(gpus, gpus == 1 ? " GPU is" : " GPUs are", " here"), "at least 2 GPUs are found"};
  if (gpus >= 2) c.verdict = CheckVerdict::kPass;
  return c;
}

Check functional(const Json& result) {
  Check c{"Parallel inference functional", CheckVerdict::kNotMeasurable,
          "no layout of several ranks could be measured",
          str("every layout draws; exact ones differ by at most ", kExactLevels, " level in at most ",
              kExactShare, " of the values")};
  int drew = 0, all = 0, same = 0, compared = 0;
  for (const auto& row : result.at("rows")) {
    if (gpus_of(row) < 2 || row["status"] == status::kNotHere || row["status"] == status::kImpossible)
      continue;
    ++all;
    drew += is_measured(row);
    const Json* q = quality_of(result, row);
    if (!q || row["league"] != "lossless") continue;
    ++compared;
    same += q->value("verdict", "") == "same";
  }
  if (all == 0) return c;
  c.verdict = verdict_of(drew == all && same == compared);
  c.found = str(drew, " of ", all, " layouts of several ranks drew; ", same, " of ", compared,
                " exact ones drew the picture of one");
  return c;
}

// The largest share of the ideal that a lossless layout of so many GPUs reaches; none: not measured.
std::optional<double> efficiency(const Json& result, Topic topic, int gpus, const char* what) {
  std::optional<double> best;
  for (const auto* row : rows_for(result, topic)) {
    if (gpus_of(*row) != gpus || (*row)["league"] != "lossless") continue;
    if (topic == Topic::kThroughput && row->at("asked").value("mode", "") != "multi") continue;
    const auto factor = speed_up(result, *row, what);
    if (factor) best = std::max(best.value_or(0), *factor / gpus);
  }
  return best;
}

Check linear(const Json& result) {
  Check c{"Linear scaling achieved", CheckVerdict::kNotMeasurable, "",
          str("of the ideal: ", percent(kLinearAt2), " on 2 GPUs and ", percent(kLinearAt4),
              " on 4 for one picture, ", percent(kLinearData), " for many")};
  bool is_met = true, is_known = false;
  const auto look = [&](std::optional<double> share, double least, const std::string& what) {
    if (!share) return;
    is_known = true;
    is_met &= *share >= least;
    c.found += str(c.found.empty() ? "" : ", ", what, " ", percent(*share));
  };
  look(efficiency(result, Topic::kScaling, 2, "ms_per_step"), kLinearAt2, "one picture on 2:");
  look(efficiency(result, Topic::kScaling, 4, "ms_per_step"), kLinearAt4, "on 4:");
  look(efficiency(result, Topic::kThroughput, 2, "pictures_per_second"), kLinearData, "many on 2:");
  look(efficiency(result, Topic::kThroughput, 4, "pictures_per_second"), kLinearData, "on 4:");
  if (!is_known) {
    c.found = "fewer than 2 GPUs were measured";
  } else if (!is_on_gpus(result)) {
    c.found += str("; ", kSharedCores);
  } else {
    c.verdict = verdict_of(is_met);
  }
  return c;
}

Check nvlink(const Json& result) {
  Check c{"NVLink utilization confirmed", CheckVerdict::kNotMeasurable, "",
          "the driver's counters of the links move"};
  double bytes = 0;
  bool is_readable = false;
  for (const auto& row : result.at("rows")) {
    if (!is_measured(row)) continue;
    for (const auto& gpu : row.at("measured").value("gpus", Json::array())) {
      if (!gpu.contains("nvlink_sent_bytes")) continue;
      is_readable = true;
      bytes += number(gpu, "nvlink_sent_bytes");
    }
  }
  if (is_readable) {
    c.verdict = verdict_of(bytes > 0);
    c.found = str(number_text(bytes / 1e9), " GB went over NVLink in all measurements");
    return c;
  }
  double rate = 0;
  for (const auto& t : result.value("traffic", Json::array()))
    for (const auto& v : t.value("collectives", Json::array())) rate = std::max(rate, number(v, "gb_per_s"));
  c.found = is_on_gpus(result) ? "counters are not readable on this machine" : "no GPU is here";
  if (rate > 0) c.found += str("; timed collectives reached ", number_text(rate), " GB/s");
  return c;
}

Check balance(const Json& result) {
  Check c{"Memory distribution balanced", CheckVerdict::kNotMeasurable,
          "no layout of several ranks could be measured",
          str("the fullest rank holds at most ", kBalanced, " times the mean")};
  const Json* widest = nullptr;
  for (const auto* row : rows_for(result, Topic::kScaling)) {
    if (is_measured(*row) && gpus_of(*row) > 1 && (!widest || gpus_of(*row) > gpus_of(*widest))) widest = row;
  }
  const auto held = widest ? peaks(*widest) : std::vector<double>();
  if (held.size() < 2) return c;
  const double mean = std::accumulate(held.begin(), held.end(), 0.) / static_cast<double>(held.size());
  const double most = *std::max_element(held.begin(), held.end()) / mean;
  c.verdict = verdict_of(most <= kBalanced);
  c.found = str(number_text(most), " times the mean under ", layout_of(*widest),
                "; rank 0 also encodes texts and decodes pictures");
  return c;
}

Check high_resolution(const Json& result) {
  const double plain = number(result.at("asked"), "height");
  Check c{"High-resolution generation working", CheckVerdict::kNotMeasurable, "no larger size was asked for",
          str("every size above ", plain, " px draws")};
  double most = 0, seconds = 0;
  bool is_met = true;
  for (const auto* row : rows_for(result, Topic::kSizes)) {
    const double side = number(row->at("asked"), "height");
    if (side <= plain || (*row)["status"] == status::kNotHere) continue;
    is_met &= is_measured(*row);
    const auto took = measured(*row, "picture_s");
    if (took && (side > most || *took < seconds)) most = side, seconds = *took;
  }
  if (most == 0 && is_met) return c;
  c.verdict = verdict_of(is_met);
  c.found = most == 0 ? "none drew" : str(most, " px in ", number_text(seconds), " s");
  return c;
}

}  // namespace

std::string_view name_of(CheckVerdict verdict) {
  if (verdict == CheckVerdict::kNotMeasurable) return "not measurable";
  return verdict == CheckVerdict::kPass ? "pass" : "fail";
}

std::optional<double> speed_up(const Json& result, const Json& row, const char* what) {
  const Json* one = baseline(result);
  const auto its = one ? measured(*one, what) : std::nullopt, mine = measured(row, what);
  if (!its || !mine || *its <= 0 || *mine <= 0) return std::nullopt;
  return std::string_view(what) == "pictures_per_second" ? *mine / *its : *its / *mine;
}

std::vector<Check> success_checks(const Json& result) {
  return {installation(result), detection(result), functional(result),     linear(result),
          nvlink(result),       balance(result),   high_resolution(result)};
}

Judgement judge(const Json& quality, bool is_exact) {
  const double levels = number(quality, "most_levels"), share = number(quality, "share");
  if (is_exact) {
    const bool is_same = levels <= kExactLevels && share <= kExactShare;
    return {is_same ? "same" : "differs", is_same ? "" : "an exact layout must draw the picture of one GPU"};
  }
  if (levels == 0) return {"same", ""};
  const bool is_close = number(quality, "psnr_least", kLeastPsnr) >= kLeastPsnr &&
                        number(quality, "ssim_least", 1) >= kLeastSsim;
  return {is_close ? "close" : "below the floor",
          str("approximate by design: held to ", kLeastPsnr, " dB and SSIM ", kLeastSsim)};
}

std::string bound_by(const Json& result) {
  constexpr double kLate = 0.9, kMuch = 0.3;
  const Json* one = baseline(result);
  if (!one) return "not known: one GPU alone was not measured";
  const double picture = measured(*one, "picture_s").value_or(0),
               denoise = measured(*one, "denoise_s").value_or(0),
               decode = measured(*one, "decode_s").value_or(0),
               rate = measured(*one, "pictures_per_second").value_or(0);
  const double store = measured(*one, "store_s").value_or(0);
  const auto many = [&](const char* where) {
    const auto found = efficiency(result, Topic::kThroughput, 2, "pictures_per_second");
    return found && *found < kLate
               ? str("; many pictures on 2 reach ", percent(*found), " of the ideal, for want of ", where)
               : "";
  };
  if (picture > 0 && rate * picture < kLate) {
    return str("storage: pictures come at ", percent(rate * picture),
               " of the rate at which they are drawn; storing one takes ", number_text(store), " s");
  }
  if (!is_on_gpus(result)) {
    return str("the CPU: its ", number(result.at("machine"), "cores"), " cores spend ",
               percent(denoise / picture), " of a picture in denoising", many("cores"));
  }
  double share = 0;
  std::string layout;
  for (const auto& t : result.value("traffic", Json::array())) {
    if (number(t, "share") > share) share = number(t, "share"), layout = layout_of(t);
  }
  if (share > kMuch)
    return str("messages between GPUs: under way for ", percent(share), " of a picture's time under ", layout,
               many("the host's cores or storage"));
  if (decode > denoise)
    return str("decoding: ", percent(decode / picture), " of a picture's time",
               many("the host's cores or storage"));
  return str("the GPU's arithmetic: denoising is ", percent(denoise / picture), " of a picture's time",
             many("the host's cores or storage"));
}

}  // namespace atelier::bench
