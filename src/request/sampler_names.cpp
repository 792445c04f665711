#include "request/sampler_names.h"

#include <algorithm>
#include <map>

namespace atelier::request {
namespace {

// "dpm++ 2m" and "dpm++-2m" as "dpmpp_2m".
std::string one_spelling(std::string_view word) {
  std::string out;
  for (const char c : word) out += c == '+' ? 'p' : c == ' ' || c == '-' || c == '/' ? '_' : c;
  if (out.ends_with("_gpu")) out.resize(out.size() - 4);  // where ComfyUI's noise is drawn
  return out;
}

// Of nodes around Wan's own two samplers, where it is the second of them with noise. Elsewhere "DPM++ SDE" is
// another sampler.
constexpr std::string_view kWrapperSde = "dpm++_sde";

}  // namespace

std::string sampler_named(std::string_view word) {
  static const std::map<std::string, std::string, std::less<>> elsewhere{
      {"euler_ancestral", "euler_a"},
      {"dpmpp", "dpmpp_2m"},
      {"uni_pc", "unipc"},
      {"uni_pc_bh2", "unipc"},
      {"flowmatch_euler", "flow_euler"},
      {"eulerdiscretescheduler", "euler"},
      {"eulerancestraldiscretescheduler", "euler_a"},
      {"heundiscretescheduler", "heun"},
      {"ddimscheduler", "ddim"},
      {"ddpmscheduler", "ddpm"},
      {"lcmscheduler", "lcm"},
      {"dpmsolvermultistepscheduler", "dpmpp_2m"},
      {"flowdpmsolvermultistepscheduler", "dpmpp_2m"},
      {"unipcmultistepscheduler", "unipc"},
      {"flowunipcmultistepscheduler", "unipc"},
      {"flowmatcheulerdiscretescheduler", "flow_euler"},
      {"flowmatchheundiscretescheduler", "flow_heun"},
      {"flowmatchlcmscheduler", "flow_lcm"},
  };
  std::string name = word == kWrapperSde ? "dpmpp_2m_sde" : one_spelling(word), curve;
  for (const std::string_view end : {"_karras", "_exponential", "_beta"}) {
    if (!name.ends_with(end)) continue;
    curve = end;
    name.resize(name.size() - end.size());
  }
  const auto at = elsewhere.find(name);
  return (at == elsewhere.end() ? name : at->second) + curve;
}

}  // namespace atelier::request
