// One block per row: its threads copy it in the widest units that every address allows.
#include "kernels/device.cuh"
#include "kernels/scatter_rows.h"

namespace atelier::kernels::cuda {
namespace {

struct alignas(16) Sixteen {
  uint4 words;
};

__device__ __forceinline__ void store(Sixteen* to, Sixteen value) {
  store16(to, value.words);
}
template <class Unit>
__device__ __forceinline__ void store(Unit* to, Unit value) {
  *to = value;
}

struct Args {
  RowScatter scatter;
  int64_t rows;
};

template <class Unit>
__global__ void copy(const __grid_constant__ Args args) {
  const RowScatter& s = args.scatter;
  const int64_t units = s.row_bytes / static_cast<int64_t>(sizeof(Unit));
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    int64_t within = row;
    int t = 0;
    while (within >= s.targets[t].rows) within -= s.targets[t++].rows;
    const auto* from = reinterpret_cast<const Unit*>(static_cast<const char*>(s.from) + row * s.row_bytes);
    auto* to = reinterpret_cast<Unit*>(static_cast<char*>(s.targets[t].data) + within * s.targets[t].stride);
    for (int64_t i = threadIdx.x; i < units; i += blockDim.x) store(to + i, from[i]);
  }
}

// Is every address and step a multiple of this?
bool all_multiples(const RowScatter& s, int64_t bytes) {
  const auto fits = [bytes](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  if (!fits(s.from) || s.row_bytes % bytes != 0) return false;
  return std::all_of(s.targets, s.targets + s.target_count, [&](const RowTarget& t) {
    return t.rows == 0 || (fits(t.data) && t.stride % bytes == 0);
  });
}

template <class Unit>
void run(void* stream, const RowScatter& s, int64_t rows) {
  const int64_t units = s.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const auto threads = static_cast<unsigned>(std::clamp<int64_t>((units + 31) / 32 * 32, 32, 256));
  launch(copy<Unit>, dim3(static_cast<unsigned>(std::min<int64_t>(rows, 1 << 30))), threads, stream,
         Args{s, rows});
}

}  // namespace

void scatter_rows(void* stream, const RowScatter& s) {
  int64_t rows = 0;
  for (int t = 0; t < s.target_count; ++t) rows += s.targets[t].rows;
  if (all_multiples(s, 16)) return run<Sixteen>(stream, s, rows);
  if (all_multiples(s, 2)) return run<uint16_t>(stream, s, rows);
  run<uint8_t>(stream, s, rows);
}

}  // namespace atelier::kernels::cuda
