// Which pictures to draw: prompts from flags or files, with everything that a prompt does not say filled in.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "app/run/find_model.h"
#include "app/run/layout_choice.h"
#include "app/settings/resolve.h"
#include "base/json.h"
#include "request/item.h"
#include "request/prompts.h"

namespace atelier::app {

struct RequestSet {
  std::vector<request::Item> items;  // without seeds where none is asked for
  std::vector<request::BadRow> bad;  // rows and pictures that cannot be drawn
  double true_cfg = 1;               // scale of the negative branch
  std::string true_cfg_why;          // one clause for the header; empty: no picture has such a branch
  int64_t max_sequence_length = 0;
  Extent extent;  // the least picture, for limits
  std::vector<std::string> notes;
};

// Prompts of the settings; throws Error(kUsage) naming the flags when there is none.
request::Prompts read_prompts(const Resolved& resolved);
// suffix: of the file names, ".png". Throws Error(kUsage) for sizes that the model cannot draw, unless a row
// of the file asks for them: then the row is bad.
RequestSet make_requests(const Resolved& resolved, const pipeline::ModelRepo& folder,
                         request::Prompts prompts, const std::string& suffix);

// What decides how all pictures of a run look, for records and resuming.
Json run_settings(const Resolved& resolved, const FoundModel& model, const cluster::Job& job,
                  const RequestSet& pictures);

// Gives pictures without a seed one: `random` plus the sub-index.
void fill_seeds(std::vector<request::Item>& items, uint64_t random);

}  // namespace atelier::app
