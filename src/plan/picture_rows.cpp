#include "plan/picture_rows.h"

namespace atelier::plan {
namespace {

// 512 x 512: mini on two ranks, on a machine with five times more to do than cores, where every message waits
// for its turn, decodes 256 x 256 in 0.8 s by rows and in 0.4 alone, 512 x 512 in 3.0 and 4.4.
constexpr int64_t kLeastPixelsOfCpus = kLeastPixels / 3;

}  // namespace

int replica_size(const ParallelConfig& degrees) {
  return world_size(degrees) / degrees.data;
}

bool may_code_by_rows(const ParallelConfig& degrees, bool has_tiles) {
  if (replica_size(degrees) < 2 || degrees.parallel_vae == PictureRows::kNever) return false;
  return degrees.parallel_vae == PictureRows::kAlways || !has_tiles;
}

bool codes_by_rows(const ParallelConfig& degrees, const CodedPicture& picture) {
  if (!may_code_by_rows(degrees, picture.has_tiles)) return false;
  if (degrees.parallel_vae == PictureRows::kAlways) return true;
  return picture.latent_rows >= kLeastLatentRows * replica_size(degrees) &&
         picture.pixels >= (picture.is_device ? kLeastPixels : kLeastPixelsOfCpus);
}

}  // namespace atelier::plan
