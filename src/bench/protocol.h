// What a protocol measures, as a table: which layouts, sizes and batches, and which question each
// of them answers.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace atelier::bench {

// What a measurement is for; one may serve several.
enum class Topic : unsigned {
  kScaling = 1,      // one GPU, and the same picture on 2, 4 and 8
  kStrategies = 2,   // how ranks share one picture
  kSizes = 4,        // larger pictures
  kBatches = 8,      // several prompts at once on one GPU
  kThroughput = 16,  // many pictures: modes of the SDXL scripts
  kGraphs = 32,      // the same without recorded graphs
  kTraffic = 64,     // what ranks tell each other: traced, not timed
};
std::string_view name_of(Topic topic);

struct Measurement {
  std::string id;        // names its folder: "ulysses_2-256x256-b1"
  std::string strategy;  // "ulysses=2"; of kThroughput's "dataparallel": "split", which follows the batch
  std::string mode;      // of kThroughput: "single", "multi", "dataparallel"
  int gpus = 1;
  int height = 0, width = 0;  // pixels
  int batch = 1;              // pictures that all ranks draw at a time
  int most_runs = 0;          // however many are asked for; 0: no limit
  bool has_graphs = true;
  unsigned topics = 0;
  bool is_for(Topic topic) const { return (topics & static_cast<unsigned>(topic)) != 0; }
};

// The protocols: the test plan's, whose measurements are of FLUX; one GPU and the modes of the SDXL scripts.
inline constexpr std::string_view kWholeProtocol = "flux", kThroughputProtocol = "throughput";

struct ProtocolQuery {
  std::string name = std::string(kWholeProtocol);
  int gpus = 1;                          // there are; more are asked for all the same, and stay unmeasured
  int height = 0, width = 0;             // pixels, of everything but sizes
  std::vector<int> sizes, batches;       // sides of square pictures in pixels; pictures
  int branches = 1;                      // 2: with classifier-free guidance
  bool is_gpu = false, is_unet = false;  // a UNet has no stages
};

// In the order in which they are to be run: one GPU first. Throws Error(kUsage) for a name that there is not.
std::vector<Measurement> measurements(const ProtocolQuery& query);

// "ulysses_2-256x256-b1".
std::string id_of(const Measurement& m);

}  // namespace atelier::bench
