// What the tensors of a checkpoint without a config tell about its model's sizes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "weights/store.h"

namespace atelier::models {

class FileSizes {
 public:
  // model: whose file it is, for messages: "a FLUX transformer".
  FileSizes(const weights::WeightStore& file, std::string_view model) : file_(file), model_(model) {}

  bool has(std::string_view name) const { return file_.has(name); }
  // Throws Error(kCheckpoint) where the tensor is missing or has no such dimension.
  int64_t size(std::string_view name, size_t dim) const;
  size_t dimensions(std::string_view name) const { return file_.shape(name).size(); }
  // How many tensors there are of a pattern with one "{}", from 0 on.
  int count(std::string_view pattern) const;

 private:
  const weights::WeightStore& file_;
  std::string model_;
};

}  // namespace atelier::models
