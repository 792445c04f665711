// Seeds of pictures that ask for none.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "request/request.h"

namespace atelier::app {

// Gives pictures without a seed one, in their order: a random number for each row, plus the sub-index.
class SeedFiller {
 public:
  explicit SeedFiller(std::function<uint64_t()> random) : random_(std::move(random)) {}
  void fill(request::Request& request);

 private:
  std::function<uint64_t()> random_;
  uint64_t of_row_ = 0;
  std::optional<std::pair<int64_t, std::string>> row_;  // the last one that got a number: index and where
};

}  // namespace atelier::app
