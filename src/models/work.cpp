#include "models/work.h"

#include <string_view>

#include "models/family.h"

namespace atelier::models {
namespace {

struct Entry {
  std::string_view family;
  ModelWork (*work)(const Json& config);
};

constexpr Entry kEntries[] = {{"flux", work_flux},
                              {"hunyuan_dit", work_hunyuan_dit},
                              {"pixart_alpha", work_pixart},
                              {"pixart", work_pixart},
                              {"sd3", work_sd3},
                              {"sdxl", work_sdxl},
                              {"wan", work_wan},
                              {"wan_i2v", work_wan},
                              {"wan_vace", work_wan}};

}  // namespace

ModelWork work_of(const Family& family, const Json& config) {
  for (const auto& [name, work] : kEntries) {
    if (name == family.name) return work(config);
  }
  return {};
}

}  // namespace atelier::models
