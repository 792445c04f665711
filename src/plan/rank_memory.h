// What every rank of a layout holds, by part: arithmetic over counted weights, and over buffers as
// they were measured.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/parallel_config.h"
#include "plan/picture_rows.h"
#include "plan/step_time.h"

namespace atelier::plan {

// Bytes of a number of each part.
struct NumberSizes {
  double blocks = 2;    // of the denoiser's blocks; 1 in eight bits
  double denoiser = 2;  // of the rest of it, and of activations
  double encoders = 2, vae = 2;
};

// Encoders come in while they run; every part does; the denoiser's blocks do, one by one.
enum class Offload : uint8_t { kNone, kEncoders, kWhole, kBlocks };

// What the layout does not say.
struct MemoryQuery {
  NumberSizes sizes;
  int64_t encoders = 0, vae = 0;               // numbers
  int64_t shared_encoders = 0;                 // of encoders: cut over the ranks of a data group
  int64_t denoisers = 1;                       // experts, each of model.weights
  int64_t pixels = 0;                          // of one picture or frame
  int64_t latent_rows = 0;                     // of it
  int64_t frames = 1;                          // decoded one after another, kept as numbers of 32 bits
  int64_t frames_at_once = 1;                  // of these, that one latent frame makes
  int64_t vae_width = 128;                     // its channels at the size of the picture
  bool has_tiles = false, has_slices = false;  // the picture is decoded in tiles; pictures one by one
  Offload offload = Offload::kNone;
  bool is_device = true;  // a GPU; otherwise a lower bound: host memory is given back while it runs
};

// What the autoencoder of a data group is given at once, of a batch of so many.
CodedPicture coded_picture(const MemoryQuery& memory, int64_t batch);

// Of one rank, in bytes.
struct RankMemory {
  int64_t denoiser = 0;  // its share of the weights, with blocks that are on their way
  int64_t encoders = 0, vae = 0;
  int64_t keys = 0;         // PipeFusion's stale keys and values
  int64_t activations = 0;  // of a step
  int64_t pictures = 0;     // of decoding
  int64_t moved = 0;        // what offloading takes off the sum: parts that are not there at the same time
  int64_t weights() const { return denoiser + encoders + vae; }
  int64_t total() const { return weights() + keys + activations + pictures - moved; }
};

// Of the ranks of one data group, in the order of the mesh. query.model.weights must be counted.
std::vector<RankMemory> rank_memory(const StepQuery& query, const MemoryQuery& memory,
                                    const ParallelConfig& degrees);
// The rank that holds most.
size_t fullest(const std::vector<RankMemory>& ranks);
// "denoiser 17.6 GiB, encoders 9.1 GiB, ...": the parts that are there.
std::string in_words(const RankMemory& memory);

}  // namespace atelier::plan
