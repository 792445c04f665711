// Checks a call's contract and sends it to the CPU twin or the CUDA implementation.
#include "kernels/pictures.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/cuda.h"

namespace atelier::kernels {
namespace {

bool is_empty(const Pixels& p) {
  ENSURE(p.batch >= 0 && p.positions >= 0 && p.channels >= 0);
  return p.batch == 0 || p.positions == 0 || p.channels == 0;
}

// Three blocks for each multiprocessor of a large GPU, which hold them all at once.
constexpr int64_t kMostRuns = 3 * 132;

int64_t runs_of(const Pixels& p) {
  return std::clamp<int64_t>(p.positions / 32, 1, kMostRuns);
}

}  // namespace

int64_t moments_scratch(const Pixels& p) {
  return 2 * p.batch * runs_of(p) * p.channels;
}

void group_moments(LaunchTarget where, ElementType dtype, const Pixels& pixels, int64_t groups,
                   double* moments, double* scratch) {
  ENSURE(!is_empty(pixels) && groups > 0 && pixels.channels % groups == 0);
  const GroupMomentsCall call{dtype, pixels, groups, moments, scratch, runs_of(pixels)};
  where.cuda ? cuda::group_moments(where.stream, call) : cpu::group_moments(call);
}

void group_norm(LaunchTarget where, ElementType dtype, void* out, const Pixels& pixels, const GroupRule& r) {
  if (is_empty(pixels)) return;
  ENSURE(r.groups > 0 && pixels.channels % r.groups == 0);
  const GroupNormCall call{dtype, out, pixels, r.moments, r.weight, r.shift, r.groups, r.eps, r.nonlinearity};
  where.cuda ? cuda::group_norm(where.stream, call) : cpu::group_norm(call);
}

void channel_norm(LaunchTarget where, ElementType dtype, void* out, const Pixels& p, const ChannelRule& r) {
  if (is_empty(p)) return;
  const ChannelNormCall call{dtype, out, p, r.weight, r.scale, r.least, r.nonlinearity};
  where.cuda ? cuda::channel_norm(where.stream, call) : cpu::channel_norm(call);
}

void add_pixels(LaunchTarget where, ElementType dtype, void* x, const Pixels& y) {
  if (is_empty(y)) return;
  const AddPixelsCall call{dtype, x, y};
  where.cuda ? cuda::add_pixels(where.stream, call) : cpu::add_pixels(call);
}

void weave(LaunchTarget where, ElementType dtype, void* out, const void* x, const void* bias, int64_t batch,
           int64_t rows, int64_t cols, int64_t channels) {
  ENSURE(batch >= 0 && rows >= 0 && cols >= 0 && channels >= 0);
  if (batch == 0 || rows == 0 || cols == 0 || channels == 0) return;
  const WeaveCall call{dtype, out, x, bias, batch, rows, cols, channels};
  where.cuda ? cuda::weave(where.stream, call) : cpu::weave(call);
}

}  // namespace atelier::kernels
