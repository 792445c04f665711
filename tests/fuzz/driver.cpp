// Runs a fuzz target where libFuzzer is missing: SECONDS of random changes to the files of the seed folders.
//   target SECONDS FOLDER...
// Without coverage it finds less; the last input is kept in fuzz-last so that a crash can be repeated.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

std::string changed(std::string bytes, const std::vector<std::string>& seeds, std::mt19937_64& random) {
  const auto below = [&](size_t n) { return n ? static_cast<size_t>(random() % n) : 0; };
  for (size_t edits = 1 + below(6); edits > 0; --edits) {
    const size_t at = below(bytes.size() + 1);
    switch (below(6)) {
      case 0: if (at < bytes.size()) bytes[at] = static_cast<char>(random()); break;
      case 1: bytes.insert(at, 1, static_cast<char>(random())); break;
      case 2: bytes.erase(at, 1 + below(8)); break;
      case 3: bytes.insert(at, bytes.substr(below(bytes.size() + 1), below(40))); break;
      case 4: {
        const auto& other = seeds[below(seeds.size())];
        bytes = bytes.substr(0, at) + other.substr(below(other.size() + 1));
        break;
      }
      default: {
        constexpr const char* kWords[] = {"18446744073709551615", "-9223372036854775808", "1e999", "[[[[[[[[", "NaN", "\\ud800", "null", "\"\""};
        bytes.insert(at, kWords[below(std::size(kWords))]);
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s SECONDS FOLDER...\n", argv[0]);
    return 2;
  }
  std::vector<std::string> seeds;
  for (int i = 2; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream in(entry.path(), std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "the folders hold no seed\n");
    return 2;
  }
  std::mt19937_64 random(1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[1]));
  long runs = 0;
  while (std::chrono::steady_clock::now() < end) {
    const auto input = changed(seeds[random() % seeds.size()], seeds, random);
    std::ofstream("fuzz-last", std::ios::binary) << input;
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    ++runs;
  }
  std::printf("Done %ld runs\n", runs);
  return 0;
}
