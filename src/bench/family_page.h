// The page of a model family in the manner of the performance report that compares hardware: every machine's
// fastest layouts, latency by layout, scalability, and what that report says, which stays its own.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "bench/document.h"

namespace atelier::bench {

// One layout on one machine.
struct FamilyRow {
  std::string hardware;  // "NVIDIA H200", "8xA100 (NVLink)"
  std::string model, layout;
  int gpus = 1;
  int side = 0;  // pixels of a square picture
  int steps = 0;
  double ms_per_step = 0;
  double least = 0, most = 0;  // of the runs; 0: not told
  Basis source = Basis::kMeasured;
  std::string from;  // the file, or what the numbers rest on
};

// Rows of a result file, those of models whose name begins with `model` (in any case); where: its name.
std::vector<FamilyRow> family_rows(const Json& result, const std::string& model, const std::string& where);

// reported: the report that this family has is cited section by section; false for families that have none.
struct FamilyQuery {
  std::string family;
  bool is_reported = false;
  std::vector<std::string> hardware;  // in the order of the sections
  std::vector<FamilyRow> rows;
};
// Adds rows that were measured. Times are compared within one model and one file alone, for other models
// compute other things and other files are of other days: each has a section of its own where a machine has
// several.
void add_measured(FamilyQuery& query, std::vector<FamilyRow> rows);
Document family_page(const FamilyQuery& query);

}  // namespace atelier::bench
