// Seeds of pictures that ask for none.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "request/request_list.h"

namespace atelier::app {

// Short enough to copy, long enough not to meet again.
uint64_t random_seed();

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

// All of a list, in memory; seeds that nobody gave are random.
std::vector<request::Request> with_seeds(const request::RequestList& requests);

}  // namespace atelier::app
