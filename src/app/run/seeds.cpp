#include "app/run/seeds.h"

#include <random>

namespace atelier::app {

uint64_t random_seed() {
  return std::random_device()() & 0x7fffffffu;
}

void SeedFiller::fill(request::Request& r) {
  if (r.seed) return;
  std::pair row{r.index, r.where};
  if (row_ != row) of_row_ = random_(), row_ = std::move(row);
  r.seed = of_row_ + static_cast<uint64_t>(r.sub);
}

std::vector<request::Request> with_seeds(const request::RequestList& requests) {
  SeedFiller seeds(random_seed);
  std::vector<request::Request> out;
  for (request::Request request : requests) {
    seeds.fill(request);
    out.push_back(std::move(request));
  }
  return out;
}

}  // namespace atelier::app
