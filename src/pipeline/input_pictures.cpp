#include "pipeline/input_pictures.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "base/digest.h"
#include "base/error.h"
#include "media/input.h"
#include "media/resample.h"
#include "pipeline/pixels.h"

namespace atelier::pipeline {
namespace {

at::Tensor mask_of(const std::vector<uint8_t>& bytes, at::IntArrayRef sizes) {
  auto t = at::empty(sizes, at::TensorOptions(at::kByte));
  std::memcpy(t.data_ptr(), bytes.data(), bytes.size());
  return t;
}

using MakeTensor = std::function<at::Tensor(const media::Image&)>;

// Each file once: `make` of what it holds, by its path.
class Files {
 public:
  explicit Files(MakeTensor make) : make_(std::move(make)) {}
  const at::Tensor& operator()(const std::string& file, const std::optional<std::string>& digest) {
    auto& made = made_[file];
    if (!made.defined()) made = read(file, digest);
    return made;
  }

 private:
  at::Tensor read(const std::string& file, const std::optional<std::string>& digest) const {
    const auto bytes = media::read_picture_file(file);
    if (digest && sha256(bytes) != *digest)
      throw Error(Kind::kUsage, str(file, " has changed since this run began; start the run again"));
    try {
      return make_(media::decode_upright(bytes));
    } catch (const Error& e) {
      throw Error(e.kind(), str(file, ": ", e.what()));
    }
  }

  MakeTensor make_;
  std::map<std::string, at::Tensor> made_;
};

}  // namespace

InputPictures read_inputs(request::Requests batch, const models::Grid& grid, int64_t spatial) {
  const int64_t height = grid.latent_rows * spatial, width = grid.latent_cols * spatial;
  const auto fitted = [&](const media::Image& picture) {
    return media::resized(picture, static_cast<int>(width), static_cast<int>(height));
  };
  Files images([&](const media::Image& p) { return pixels_of(fitted(p)); });
  Files masks([&](const media::Image& p) {
    const auto whole = mask_of(media::binary(fitted(p)), {height, width});
    return whole.slice(0, 0, std::nullopt, spatial).slice(1, 0, std::nullopt, spatial);
  });
  std::vector<at::Tensor> pixels, drawn;
  for (const auto& r : batch) {
    pixels.push_back(images(*r.image, r.image_sha256));
    if (r.mask) drawn.push_back(masks(*r.mask, r.mask_sha256));
  }
  return {at::stack(pixels), drawn.empty() ? at::Tensor() : at::stack(drawn)};
}

}  // namespace atelier::pipeline
