// The parity matrix: one request drawn under many layouts, ranks as threads, compared with one rank.
#pragma once
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::verify {

struct MatrixRow {
  std::string model, layout, reference;  // reference: "one rank", or the same stale schedule on one rank
  int ranks = 1;
  double max_error = 0;  // of the final latents, over their rms
  // The 8-bit pictures. Latents differ in their last bits, so a value that lies on the edge between two
  // levels may be rounded either way: at most one level, in less than one value of a thousand.
  int levels = 0;        // the largest difference
  double differing = 0;  // share of values that differ
  bool passed = false;
  std::string problem;
};

// tests/parity/matrix.json: {"tolerance": .., "cases": [{"model", "request", "exact": [strategy..], "stale":
// [..]}]}. A case may also say its "dtype", "tier", "attention_dtype", "tolerance", "levels" and "differing".
// "deterministic": true, of the matrix: bits are compared, under the layouts that are not refused then, and
// each picture of a batch is drawn alone too. Model folders are relative to `root`. Throws Error(kUsage,
// kCheckpoint).
std::vector<MatrixRow> run_matrix(const Json& matrix, const std::filesystem::path& root,
                                  const std::function<void(const MatrixRow&)>& on_row);
std::string line_of(const MatrixRow& row);

}  // namespace atelier::verify
