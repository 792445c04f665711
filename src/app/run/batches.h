// The batches of a run, made one by one while they are drawn.
#pragma once
#include <cstddef>
#include <iterator>
#include <vector>

#include "cluster/batch_run.h"
#include "request/request_list.h"

namespace atelier::app {

// What the groups draw at a time: batch_size / groups pictures each while there are full rounds; the rest in
// equal parts, so that no group waits for more than one picture of another. Pictures of one batch are
// neighbours of equal shape (request::batch_key).
class Batches {
 public:
  // All of the list, `repeats` times. The list must outlive this and its walks.
  Batches(const request::RequestList& requests, int batch_size, int groups, int repeats = 1);

 private:
  // How many pictures a batch may hold, by the place of its first one.
  struct Shares {
    size_t each = 0;    // up to `full`
    size_t full = 0;    // then the rest begins,
    size_t last = 0;    // of so many
    size_t longer = 0;  // up to here, and of one less behind it
    size_t total = 0;
    size_t most_at(size_t place) const;
  };

 public:
  class BatchWalk {
   public:
    using value_type = std::vector<request::Request>;
    using difference_type = std::ptrdiff_t;
    BatchWalk(const request::RequestList& requests, const Shares& shares, int repeats);
    const value_type& operator*() const { return batch_; }
    BatchWalk& operator++();
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return batch_.empty(); }

   private:
    const request::RequestList* requests_;
    Shares shares_;
    int repeats_;  // left, this one too
    request::RequestList::Iterator at_;
    size_t place_ = 0;
    value_type batch_;
  };
  BatchWalk begin() const { return {requests_, shares_, repeats_}; }
  std::default_sentinel_t end() const { return {}; }
  cluster::BatchSource source() const;

 private:
  const request::RequestList& requests_;
  Shares shares_;
  int repeats_;
};

}  // namespace atelier::app
