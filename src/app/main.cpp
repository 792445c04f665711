#include <iostream>
#include "engine/verify.h"
#include "base/error.h"
int main(int argc, char** argv) {
  atelier::engine::VerifyOptions o; o.folder = argv[1]; for (int i = 2; i < argc; ++i) { if (std::string(argv[i]) == "bf16") o.denoiser = at::kBFloat16; else o.only.push_back(argv[i]); }
  try { auto r = atelier::engine::verify(o); atelier::engine::print(r, std::cout); return r.passed() ? 0 : 1; }
  catch (const std::exception& e) { std::cerr << e.what() << "\n"; return 2; }
}
