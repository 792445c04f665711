// What planning needs to know of a model: its shape, and block by block what it multiplies and holds. Said by
// its family, counted by building it on no device.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace atelier {

struct ModelFacts {
  std::string name = "the model";
  int heads = 1, blocks = 1;
  std::vector<double> cost;                   // relative, per block; empty: all alike
  bool has_skips = false;                     // block n-1-i reads block i: folded route
  bool has_convolution_mixer = false;         // convolutions mix positions: cut by rows, no stages
  std::map<std::string, int64_t> parameters;  // of every component, by its folder; empty: not counted
};

// What one block does in one forward of one sample. Multiply-adds are those of linears and convolutions.
struct BlockWork {
  double per_token = 0;       // multiply-adds of a token of what is denoised
  double per_text_token = 0;  // of a token of the text that flows along; 0: none does
  double width = 0;           // channels of a token
  double self_width =
      0;  // heads times head size of what attends to the tokens of the block, over all attentions
  double cross_width = 0;  // the same of what attends to a text that stays outside
  int sums = 1;            // linears that close a feature region: what a tensor cut adds up over ranks
  bool has_text_weights =
      false;              // text and latents have weights of their own: smaller products, twice the sums
  double beside = 0;      // of per_token, what needs no attention and can run while its exchange travels
  double share = 1;       // tokens of the block per token of the grid: UNets halve their pictures
  int convolutions = 0;   // wider than a pixel: they need their neighbours' rows
  double modulation = 0;  // numbers of its modulation linears, in any unit
};

// Numbers of one denoiser by where they live.
struct WeightCounts {
  std::vector<int64_t> blocks;  // of each block, without its modulation tables
  int64_t tables = 0;           // evaluated once per request, by all ranks of a stage together
  int64_t outer = 0;            // embedders and heads
};

struct ModelWork {
  std::vector<BlockWork> blocks;  // empty: the family does not say
  int head_size = 64;
  int64_t more_text_tokens = 0;  // that come with those of max_sequence_length
  WeightCounts weights;          // of the first denoiser
};

}  // namespace atelier
