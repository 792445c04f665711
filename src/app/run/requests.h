// Which pictures to draw: prompts from flags or files, with everything that a prompt does not say filled in.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "app/run/find_model.h"
#include "app/run/layout_choice.h"
#include "app/settings/resolve.h"
#include "pipeline/engine_config.h"
#include "request/prompts.h"
#include "request/request_list.h"

namespace atelier::app {

// Who turned classifier-free guidance on.
// kFamily: guidance_scale itself; kGuidance: it stands in for a true_cfg_scale.
enum class CfgSource { kNone, kSetting, kModel, kFamily, kGuidance, kUsual };

struct RequestSet {
  request::RequestList requests;            // without seeds where none is asked for
  std::vector<request::BadRow> bad;         // rows and pictures that cannot be drawn
  CfgSource cfg_source = CfgSource::kNone;  // kNone: no picture has a second branch
  double cfg = 1;                           // of the last picture that has one
  Extent extent;                            // the least picture, for limits
  std::vector<std::string> notes;
  std::vector<std::string> adapters;  // a line for people about each
};

class AdapterChoice;

struct RowOptions {
  bool is_probe =
      false;  // stands for rows that come later, which name the files that the model must be shown
  AdapterChoice* adapters = nullptr;  // which remembers what it has read; null: one of this call's own
};

// Prompts of the settings; throws Error(kUsage) naming the flags when there is none.
request::Prompts read_prompts(const Resolved& resolved);
// suffix: of the file names, ".png". Throws Error(kUsage) for sizes that the model cannot draw, unless a row
// of the file asks for them: then the row is bad.
RequestSet make_requests(const Resolved& resolved, const pipeline::ModelRepo& folder,
                         request::Prompts prompts, const std::string& suffix, const RowOptions& options = {});

// Of files whose names do not say: as asked, or else what fits pictures or videos.
std::string output_format_of(const Resolved& resolved, const pipeline::ModelRepo& model);

}  // namespace atelier::app
