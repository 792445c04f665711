#include "app/run/seeds.h"

namespace atelier::app {

void SeedFiller::fill(request::Request& r) {
  if (r.seed) return;
  std::pair row{r.index, r.where};
  if (row_ != row) of_row_ = random_(), row_ = std::move(row);
  r.seed = of_row_ + static_cast<uint64_t>(r.sub);
}

}  // namespace atelier::app
