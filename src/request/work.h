// From rows to pictures to batches.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "request/names.h"
#include "request/prompts.h"
#include "request/request_list.h"

namespace atelier::request {

struct PromptDefaults {
  int images = 1;                // num_images_per_prompt of rows that do not say
  std::optional<uint64_t> seed;  // of rows that do not say; unset stays unset
  // Of rows that say neither seed nor images: one picture each. Where there are any, a row's name is a folder
  // and its pictures are named by their seeds.
  std::vector<uint64_t> seeds = {};
  std::span<const std::string_view> kept = kPictureEndings;  // endings of names of rows' own
  std::string suffix = ".png";
  int node = 0, nodes = 1;  // which share of the rows is wanted
};

// One request per picture, in order. Picture s of a row has seed + s. A row whose name is refused, is also
// the name of an earlier row's picture, or would have to be a folder and a file, goes to prompts.bad. Names
// are compared over all rows, whichever node draws them. Of several nodes each gets a run of rows and the
// bad ones between them; sizes of runs differ by at most one, longer ones come first, and they are cut
// before anything is skipped, so that every node cuts alike. Takes the rows. Throws Error(kUsage) for more
// than ten million pictures.
RequestList expand(Prompts& prompts, const PromptDefaults& defaults);

// Runs of neighbours with equal batch keys, at most batch_size >= 1 each.
std::vector<std::vector<Request>> batches(const RequestList& requests, int batch_size);

}  // namespace atelier::request
