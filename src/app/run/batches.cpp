#include "app/run/batches.h"

#include <algorithm>
#include <memory>

namespace atelier::app {

Batches::Batches(const request::RequestList& requests, int batch_size, int groups, int repeats)
    : requests_(requests), repeats_(repeats) {
  const auto n = static_cast<size_t>(groups);
  shares_.each = static_cast<size_t>(std::max(1, batch_size / groups));
  shares_.total = requests.size();
  // a group alone has nobody to share the rest with
  shares_.full = n == 1 ? shares_.total : shares_.total / (n * shares_.each) * n * shares_.each;
  const size_t rest = shares_.total - shares_.full;
  shares_.last = (rest + n - 1) / n;
  // rest = n * last - missing: the first groups draw `last`, the others one less
  shares_.longer = shares_.full + (n - (n * shares_.last - rest)) * shares_.last;
}

size_t Batches::Shares::most_at(size_t place) const {
  if (place < full) return std::min(each, full - place);
  if (place < longer) return std::min(last, longer - place);
  return std::min(last - 1, total - place);
}

Batches::BatchWalk::BatchWalk(const request::RequestList& requests, const Shares& shares, int repeats)
    : requests_(&requests), shares_(shares), repeats_(repeats), at_(requests.begin()) {
  ++*this;
}

Batches::BatchWalk& Batches::BatchWalk::operator++() {
  batch_.clear();
  if (place_ == shares_.total && --repeats_ > 0) place_ = 0, at_ = requests_->begin();
  if (place_ == shares_.total) return *this;
  const size_t most = shares_.most_at(place_);
  const std::string key = request::batch_key(*at_);
  do {
    batch_.push_back(*at_);
    ++at_, ++place_;
  } while (batch_.size() < most && request::batch_key(*at_) == key);
  return *this;
}

cluster::BatchSource Batches::source() const {
  return [at = std::make_shared<BatchWalk>(begin())] {
    auto batch = **at;
    if (!batch.empty()) ++*at;
    return batch;
  };
}

}  // namespace atelier::app
