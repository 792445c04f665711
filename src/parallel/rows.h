// Pictures whose rows are held by several ranks, in runs from top to bottom: halo rows for convolutions, and
// the gather.
#pragma once
#include "comm/comm.h"
#include "nn/seams.h"

namespace atelier::parallel {

// Any number of rows per rank is legal: a rank with fewer rows than a neighbour needs passes on what lies
// behind it.
class RowsHalo : public nn::RowHalo {
 public:
  // group: in the order of the rows.
  explicit RowsHalo(comm::Comm& group) : group_(group) {}
  // [B, C, rows, W] -> [B, C, above + rows + below, W]; one message to each neighbour that needs rows.
  at::Tensor pad(const at::Tensor& x, int64_t above, int64_t below) override;
  bool holds_all() const override { return holds_all_; }
  void hold_all(bool value) { holds_all_ = value; }
  bool ran() const { return ran_; }

 private:
  comm::Comm& group_;
  bool holds_all_ = false;
  bool ran_ = false;
};

// [..., rows held, W] -> the whole picture, or video, on every rank. latent_rows were cut over the group;
// each rank holds the same multiple of its share.
at::Tensor gather_rows(comm::Comm& group, const at::Tensor& part, int64_t latent_rows);

}  // namespace atelier::parallel
