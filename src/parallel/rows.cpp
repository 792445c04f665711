// Halo rows between neighbours, and the gather of a picture.
#include "parallel/rows.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "base/check.h"

namespace atelier::parallel {
namespace {

// Halo rows on their way down (to the next rank, which wants them above its own) or up.
struct Flow {
  comm::Comm& group;
  int to, from;     // -1: the picture's edge
  at::Tensor halo;  // for this rank; zeros at the edge
  at::Tensor sent;
  comm::Work work;

  Flow(comm::Comm& g, int step, at::Tensor zeros) : group(g), halo(std::move(zeros)) {
    const auto peer = [&](int r) { return r >= 0 && r < group.size() ? r : -1; };
    to = peer(group.rank() + step);
    from = peer(group.rank() - step);
  }
  // edge: this rank's rows that the neighbour needs.
  void exchange(const at::Tensor& edge) {
    sent = edge.contiguous();
    work = group.send_recv(sent, to, halo, from);
  }
  void receive() {
    at::Tensor none;
    group.send_recv(none, -1, halo, from).wait();
  }
  void send(const at::Tensor& edge) {
    at::Tensor none;
    sent = edge.contiguous();
    work = group.send_recv(sent, to, none, -1);
  }
};

at::Tensor rows_like(const at::Tensor& x, int64_t rows) {
  return at::zeros({x.size(0), x.size(1), rows, x.size(3)}, x.options());
}

}  // namespace

at::Tensor RowsHalo::pad(const at::Tensor& x, int64_t above, int64_t below) {
  ran_ = true;
  const int64_t rows = x.size(2);
  Flow down(group_, 1, rows_like(x, above)), up(group_, -1, rows_like(x, below));
  // The neighbours cannot tell how many rows this rank holds, so every message has the full height of the
  // halo.
  if (above > 0 && rows >= above) down.exchange(x.narrow(2, rows - above, above));
  if (above > 0 && rows < above) {
    down.receive();
    down.send(at::cat({down.halo, x}, 2).narrow(2, rows, above));
  }
  if (below > 0 && rows >= below) up.exchange(x.narrow(2, 0, below));
  if (below > 0 && rows < below) {
    up.receive();
    up.send(at::cat({x, up.halo}, 2).narrow(2, 0, below));
  }
  down.work.wait();
  up.work.wait();
  const auto like_x = [&](const at::Tensor& t) { return t.contiguous(x.suggest_memory_format()); };
  return at::cat({like_x(down.halo), x, like_x(up.halo)}, 2);
}

at::Tensor gather_rows(comm::Comm& group, const at::Tensor& part, int64_t latent_rows) {
  const Partition cut{latent_rows, group.size()};
  const int64_t share = cut[group.rank()].size;
  int64_t multiple = share > 0 ? part.size(-2) / share : 0;
  if (cut[group.size() - 1].size == 0) {  // a rank without rows cannot know it
    auto told = at::full({1}, multiple, part.options().dtype(at::kLong));
    group.broadcast(told, 0);
    multiple = told.item<int64_t>();
    group.check_alive();  // an aborted broadcast leaves anything there
  }
  const int64_t rows = part.size(-2), cols = part.size(-1);
  ENSURE(rows == share * multiple);
  auto sizes = part.sizes().vec();
  sizes[sizes.size() - 2] = latent_rows * multiple;
  int64_t pictures = 1;
  for (size_t i = 0; i + 2 < sizes.size(); ++i) pictures *= sizes[i];
  std::vector<int64_t> split;
  for (int r = 0; r < group.size(); ++r) split.push_back(cut[r].size * multiple * pictures * cols);
  auto whole = at::empty({latent_rows * multiple, pictures, cols}, part.options());
  group.all_gather(whole, part.reshape({pictures, rows, cols}).transpose(0, 1).contiguous(), split).wait();
  return whole.transpose(0, 1).reshape(sizes).contiguous();
}

}  // namespace atelier::parallel
