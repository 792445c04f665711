// atelier verify: one folder of recorded values, or the matrix of folders and layouts.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "app/run/device_choice.h"
#include "app/run/find_model.h"
#include "app/settings/dtype.h"
#include "base/error.h"
#include "base/json_problem.h"
#include "base/printable.h"
#include "pipeline/device.h"
#include "pipeline/engine_config.h"
#include "plan/parallel_config.h"
#include "verify/parity_matrix.h"
#include "verify/verify.h"

namespace atelier::app {

namespace {

struct VerifyArguments {
  verify::VerifyOptions options;
  std::string folder, strategy, device = "cpu", dtype, tier = "exact", attention_dtype = "auto", matrix;
  bool tf32 = false, is_matrix = false;
};

// False: --help was asked for.
bool parse(const Arguments& arguments, VerifyArguments& a) {
  CLI::App app("Repeats the call that DIR/golden.json describes and compares every recorded tensor.",
               "atelier verify");
  app.add_option("DIR", a.folder, "folder with golden.json");
  app.add_option("--only", a.options.only, "compare only names that match this glob; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--strategy", a.strategy,
                 "layout, such as \"ulysses=2, ring=2\"; several: \"ulysses=2 | ring=2\". Ranks are threads, "
                 "on the CPU or with a GPU each");
  app.add_option("--device", a.device, "cpu (default), auto, cuda or cuda:N");
  app.add_option("--torch_dtype", a.dtype, "of the denoiser: float32 (default), bfloat16, float16");
  app.add_option(
      "--tier", a.tier,
      "products of the blocks: exact (default), fast, fast-strict; errors are told beside those of bfloat16");
  app.add_option(
      "--attention_dtype", a.attention_dtype,
      "queries, keys and values of the blocks: auto (default), fp8_e4m3; errors are told beside those "
      "of bfloat16");
  app.add_flag("--enable_tf32", a.tf32, "let float32 products on the GPU use TF32");
  auto* matrix = app.add_option("--matrix", a.matrix,
                                "draw under every layout of this file and compare with one rank; "
                                "default: the matrix of the program");
  matrix->expected(0, 1);
  if (!parse_arguments(app, arguments)) return false;
  a.is_matrix = matrix->count() > 0;
  return true;
}

int verify_matrix(const std::string& given) {
  const auto share = share_folder(environment(), program_file());
  const auto file = given.empty() ? share / "tests" / "parity" / "matrix.json" : std::filesystem::path(given);
  if (!std::filesystem::exists(file)) {
    throw Error(Kind::kUsage, str(file.string(), ": there is no such file; name a matrix: --matrix FILE"));
  }
  std::vector<verify::MatrixRow> rows;
  try {
    rows = verify::run_matrix(read_json(file), share, [](const verify::MatrixRow& row) {
      std::cout << verify::line_of(row) << std::endl;
    });
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " is no matrix of layouts: ", json_problem(e)));
  }
  const auto failed = std::count_if(rows.begin(), rows.end(), [](const auto& row) { return !row.passed; });
  std::cout << rows.size() << " layouts compared, " << failed << " failed\n";
  return failed == 0 && !rows.empty() ? 0 : 1;
}

// With further layouts behind it, an error is one of this layout alone.
bool verify_layout(const verify::VerifyOptions& options, bool is_one_of_many) {
  try {
    const auto result = verify::verify(options);
    verify::print(result, std::cout);
    return result.passed();
  } catch (const Error& e) {
    if (!is_one_of_many) throw;
    std::cout << "error: " << printable(e.what()) << std::endl;
    return false;
  }
}

}  // namespace

int verify_command(const Arguments& arguments) {
  VerifyArguments a;
  if (!parse(arguments, a)) return 0;
  if (a.is_matrix && !a.folder.empty()) {
    throw Error(Kind::kUsage,
                "verify takes a folder or --matrix, not both (a matrix file is written --matrix=FILE)");
  }
  if (a.is_matrix) return verify_matrix(a.matrix);
  if (a.folder.empty())
    throw Error(Kind::kUsage, "verify needs a folder: atelier verify DIR, or atelier verify --matrix");
  auto& o = a.options;
  o.folder = a.folder;
  o.device = choose_device(a.device, pipeline::cuda_devices()).device;
  if (o.device.is_cuda() && !o.device.has_index()) o.device = c10::Device(c10::kCUDA, 0);
  o.denoiser = dtype_of(a.dtype);
  o.tier = pipeline::tier_named(a.tier);
  o.attention_dtype = pipeline::attention_dtype_named(a.attention_dtype);
  pipeline::set_tf32(a.tf32 ? pipeline::Tf32::kOn : pipeline::Tf32::kOff);
  pipeline::use_device(o.device);
  const auto layouts = plan::parse_strategies(a.strategy);
  int failed = 0;
  for (const auto& layout : layouts) {
    if (layouts.size() > 1)
      std::cout << "layout " << (layout == plan::ParallelConfig{} ? "one rank" : plan::to_string(layout))
                << std::endl;
    o.degrees = layout;
    failed += verify_layout(o, layouts.size() > 1) ? 0 : 1;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace atelier::app
