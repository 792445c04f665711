// atelier verify: one folder of recorded values, or the matrix of folders and layouts.
#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.h"
#include "app/device_choice.h"
#include "app/dtype.h"
#include "base/error.h"
#include "engine/device.h"
#include "engine/verify.h"
#include "parallel/strategy.h"

namespace atelier::app {

int verify_command(const Arguments& arguments) {
  std::string folder, strategy, device = "cpu", dtype;
  std::vector<std::string> only;
  bool tf32 = false;
  CLI::App app("Repeats the call that DIR/golden.json describes and compares every recorded tensor.",
               "atelier verify");
  app.add_option("DIR", folder, "folder with golden.json");
  app.add_option("--only", only, "compare only names that match this glob; may be repeated")
      ->expected(1)
      ->take_all();
  app.add_option("--strategy", strategy,
                 "layout, such as \"ulysses=2, ring=2\": ranks are threads on the CPU");
  app.add_option("--device", device, "cpu (default), auto, cuda or cuda:N");
  app.add_option("--torch_dtype", dtype, "of the denoiser: float32 (default), bfloat16, float16");
  app.add_flag("--enable_tf32", tf32, "let float32 products on the GPU use TF32");
  try {
    app.parse(Arguments(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return 0;
  } catch (const CLI::ParseError& e) {
    throw Error(Kind::kUsage, e.what());
  }
  if (folder.empty()) throw Error(Kind::kUsage, "verify needs a folder: atelier verify DIR");
  engine::VerifyOptions o;
  o.folder = folder;
  o.only = only;
  o.device = choose_device(device, engine::cuda_devices()).device;
  if (o.device.is_cuda() && !o.device.has_index()) o.device = c10::Device(c10::kCUDA, 0);
  o.denoiser = dtype_of(dtype);
  o.degrees = parallel::parse_strategy(strategy);
  engine::set_tf32(tf32 ? engine::Tf32::kOn : engine::Tf32::kOff);
  engine::use_device(o.device);
  const auto result = engine::verify(o);
  engine::print(result, std::cout);
  return result.passed() ? 0 : 1;
}

}  // namespace atelier::app
