#include "verify/golden_part.h"

#include <nlohmann/json.hpp>

namespace atelier::verify {

GoldenPart::GoldenPart(const std::filesystem::path& folder,
                       std::vector<weights::NameRule> (*names)(const Json&))
    : store(weights::WeightStore::open(folder)), config(read_json(folder / "config.json")) {
  store->adopt(names(config));
}

const at::Tensor* find(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

}  // namespace atelier::verify
