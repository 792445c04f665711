// Checks a call's contract and sends it to the CPU twin or the CUDA implementation.
#include "kernels/quantise.h"

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/cuda.h"

namespace atelier::kernels {

void norm_modulate_e4m3(LaunchTarget where, ElementType dtype, const E4m3Rows& out, const void* x,
                        const void* shift, const void* scale, int64_t n, int64_t batch, int64_t channels,
                        int64_t mod_stride, double eps) {
  ENSURE(n >= 0 && batch >= 0 && channels >= 0);
  if (n == 0 || batch == 0 || channels == 0) return;
  const NormModulateE4m3Call call{dtype, out, x, shift, scale, n, batch, channels, mod_stride, eps};
  where.cuda ? cuda::norm_modulate_e4m3(where.stream, call) : cpu::norm_modulate_e4m3(call);
}

void quantise_e4m3(LaunchTarget where, ElementType dtype, const E4m3Rows& out,
                   std::span<const RowSegment> segments, int64_t rows) {
  ENSURE(rows >= 0 && static_cast<int64_t>(segments.size()) <= kMaxSegments);
  QuantiseE4m3Call call{dtype, out, {}, 0, rows, 0};
  for (const RowSegment& s : segments) {
    ENSURE(s.channels >= 0 && (rows <= 1 || s.row_stride >= s.channels));
    if (s.channels == 0) continue;
    call.segments[call.count++] = s;
    call.channels += s.channels;
  }
  if (rows == 0 || call.channels == 0) return;
  where.cuda ? cuda::quantise_e4m3(where.stream, call) : cpu::quantise_e4m3(call);
}

}  // namespace atelier::kernels
