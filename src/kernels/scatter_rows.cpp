#include "kernels/scatter_rows.h"

#include <cstring>
#include <span>
#include <stdexcept>

#include "base/check.h"

namespace atelier::kernels {

#ifndef ATELIER_CUDA
void cuda::scatter_rows(void*, const RowScatter&) {
  throw std::logic_error("internal error: a CUDA kernel was asked of a build without CUDA");
}
#endif

namespace {

void on_cpu(const RowScatter& s) {
  const char* from = static_cast<const char*>(s.from);
  for (const RowTarget& t : std::span(s.targets, static_cast<size_t>(s.target_count))) {
    for (int64_t row = 0; row < t.rows; ++row, from += s.row_bytes)
      std::memcpy(static_cast<char*>(t.data) + row * t.stride, from, static_cast<size_t>(s.row_bytes));
  }
}

}  // namespace

void scatter_rows(LaunchTarget where, const RowScatter& s) {
  ENSURE(s.row_bytes >= 0 && s.target_count >= 0 && s.target_count <= kMaxRowTargets);
  int64_t rows = 0;
  for (const RowTarget& t : std::span(s.targets, static_cast<size_t>(s.target_count))) {
    ENSURE(t.rows == 0 || (t.rows > 0 && t.data && (t.rows == 1 || t.stride >= s.row_bytes)));
    rows += t.rows;
  }
  if (rows == 0 || s.row_bytes == 0) return;
  where.cuda ? cuda::scatter_rows(where.stream, s) : on_cpu(s);
}

}  // namespace atelier::kernels
