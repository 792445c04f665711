// The build without CUDA.
#include "weights/upload.h"

#include "base/error.h"

namespace atelier::weights {

#ifndef ATELIER_CUDA
std::unique_ptr<Uploader> make_uploader(c10::Device device) {
  throw Error(Kind::kUsage,
              str("this build has no CUDA: cannot load weights to ", device.str(), "; use device cpu"));
}
#endif

}  // namespace atelier::weights
