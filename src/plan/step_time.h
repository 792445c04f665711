// What one step of the denoiser takes under a layout: arithmetic over the work of its blocks and the rates
// of a machine.
#pragma once
#include "base/model_facts.h"
#include "plan/hardware.h"
#include "plan/layouts.h"
#include "plan/parallel_config.h"

namespace atelier::plan {

// A request and the model that draws it.
struct StepQuery {
  LayoutQuery layout;
  ModelWork model = {};             // of as many blocks as layout.model has
  int64_t grid_tokens = 0;          // of the denoiser, split or not; 0: layout.work.image_tokens
  bool has_e4m3_attention = false;  // queries, keys and values travel, and are kept, in eight bits
};

// Of the busiest rank, in s. Idle is what PipeFusion's filling and draining leave, and its whole steps.
struct StepTime {
  double products = 0, attention = 0, pointwise = 0;
  double exchange = 0;  // messages that nothing hides, with what copies and merges they need
  double weights = 0;   // gathers of sharded weights that nothing hides
  double idle = 0;
  double seconds() const { return products + attention + pointwise + exchange + weights + idle; }
};

// Mean over the steps of a picture (one where work.steps is 0), for the pictures of one data group. degrees
// are valid for it.
StepTime step_time(const StepQuery& query, const ParallelConfig& degrees, const Hardware& hardware);

// One call of a block, before ranks cut it: the tokens that ask, those of a patch or all, and all
// that are asked.
struct BlockCall {
  double image = 0, text = 0;            // tokens of the grid, of the text
  double image_keys = 0, text_keys = 0;  // attended to
  double samples = 1;                    // pictures times branches
};
StepTime block_time(const BlockWork& block, const StepQuery& query, const BlockCall& call,
                    const ParallelConfig& degrees, const Hardware& hardware);

// Of a product [rows, *] with so many multiply-adds per row, s.
double product_seconds(double rows, double per_row, const Hardware& hardware);
// Of attention, all heads of all samples, s.
double attention_seconds(double queries, double keys, double heads, int head_size, const Hardware& hardware);

}  // namespace atelier::plan
