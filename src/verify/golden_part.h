// One part of a pipeline that a golden folder records by itself.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "verify/verify.h"
#include "weights/store.h"

namespace atelier::verify {

// The weights and the config of one folder.
struct GoldenPart {
  std::unique_ptr<weights::WeightStore> store;
  Json config;
  GoldenPart(const std::filesystem::path& folder, std::vector<weights::NameRule> (*names)(const Json&));
};

// Null if there is none of this name.
const at::Tensor* find(const Tensors& tensors, const std::string& name);

}  // namespace atelier::verify
