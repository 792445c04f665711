// What planning needs to know of a model: said by its family, counted by building it on no device.
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

}  // namespace atelier
