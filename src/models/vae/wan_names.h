// The names of Wan's autoencoders in their original repository.
#pragma once
#include <vector>

#include "weights/names.h"

namespace atelier::models {

// What the names of the modules depend on.
struct WanVaeModules {
  bool is_residual = false;  // 2.2, whose levels nest
  int64_t levels = 4, layers = 2;
};

// Original names (wan/modules/vae.py, vae2_2.py) to those of diffusers; one rule for each module, and no
// tensor has two.
std::vector<weights::NameRule> wan_vae_names(const WanVaeModules& modules);

}  // namespace atelier::models
