#include "pipeline/image_processor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "pipeline/pixels.h"

namespace atelier::pipeline {
namespace {

constexpr const char* kFile = "image_processor/preprocessor_config.json";
// Pillow's numbers.
constexpr int kLanczos = 1, kBicubic = 3;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Kind::kCheckpoint, str(kFile, ": ", what));
}

int pixels(const Json& value, const char* key) {
  constexpr int kMost = 1 << 14;
  if (!value.is_number_integer() || value < 1 || value > kMost)
    refuse(str(key, " must be pixels from 1 to ", kMost, ", found ", value.dump()));
  return value.get<int>();
}

// {"height", "width"}, {"shortest_edge"} or a number.
std::array<int, 2> size_of(const Json& value, const char* key, bool number_is_square) {
  if (value.is_number()) {
    const int side = pixels(value, key);
    return {side, number_is_square ? side : 0};
  }
  if (value.is_object() && value.contains("shortest_edge")) return {pixels(value["shortest_edge"], key), 0};
  if (value.is_object() && value.contains("height") && value.contains("width"))
    return {pixels(value["height"], key), pixels(value["width"], key)};
  refuse(str(key, " is ", value.dump(), ", which is no size"));
}

std::array<double, 3> by_channel(const Json& config, const char* key,
                                 const std::array<double, 3>& otherwise) {
  const Json value = config.value(key, Json());
  if (value.is_null()) return otherwise;
  const bool fits = value.is_array() && value.size() == 3 &&
                    std::all_of(value.begin(), value.end(), [](const Json& n) { return n.is_number(); });
  if (!fits) refuse(str(key, " must be three numbers, found ", value.dump()));
  return value.get<std::array<double, 3>>();
}

media::Filter filter_of(const Json& value) {
  if (value == kLanczos) return media::Filter::kLanczos;
  if (value == kBicubic) return media::Filter::kBicubic;
  refuse(str("resample is ", value.dump(), "; this build has 1 (Lanczos) and 3 (bicubic)"));
}

// The middle of this size, with zeros where the picture has less.
at::Tensor middle(const at::Tensor& x, std::array<int, 2> size) {
  auto out = x;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t dim = axis + 1, have = out.size(dim), want = size[static_cast<size_t>(axis)];
    if (have >= want) {
      out = out.narrow(dim, (have - want) / 2, want);
    } else {
      auto sizes = out.sizes().vec();
      sizes[static_cast<size_t>(dim)] = want;
      auto wide = at::zeros(sizes, out.options());
      wide.narrow(dim, (want - have + 1) / 2, have).copy_(out);
      out = wide;
    }
  }
  return out;
}

}  // namespace

ImageProcessor::ImageProcessor(const Json& config, int64_t side) {
  if (!config.is_object()) refuse("is no JSON object");
  const auto flag = [&](const char* key) {
    const Json value = config.value(key, Json(true));
    if (!value.is_boolean()) refuse(str(key, " must be true or false, found ", value.dump()));
    return value.get<bool>();
  };
  resizes_ = flag("do_resize"), crops_ = flag("do_center_crop");
  rescales_ = flag("do_rescale"), normalises_ = flag("do_normalize");
  size_ = size_of(config.value("size", Json(side)), "size", false);
  crop_ = size_of(config.value("crop_size", Json(side)), "crop_size", true);
  if (crop_[1] == 0) crop_[1] = crop_[0];
  const Json factor = config.value("rescale_factor", Json(1 / 255.0));
  if (!factor.is_number()) refuse(str("rescale_factor must be a number, found ", factor.dump()));
  factor_ = factor.get<double>();
  mean_ = by_channel(config, "image_mean", {0.48145466, 0.4578275, 0.40821073});
  deviation_ = by_channel(config, "image_std", {0.26862954, 0.26130258, 0.27577711});
  filter_ = filter_of(config.value("resample", Json(kBicubic)));
}

std::array<int, 2> ImageProcessor::resized_to(const media::Image& picture) const {
  if (size_[1] != 0) return size_;
  const int shorter = std::min(picture.height, picture.width),
            longer = std::max(picture.height, picture.width);
  // Cut off to whole pixels, as the reference does.
  const auto other = static_cast<int64_t>(static_cast<double>(int64_t{size_[0]} * longer) / shorter);
  if (other * size_[0] > media::kMaxPixels)
    throw Error(Kind::kUsage, str("a picture of ", picture.width, "x", picture.height,
                                  " is resized for the image encoder until its shorter side has ", size_[0],
                                  " pixels; the other one would have ", other, ": cut the picture first"));
  const int far = static_cast<int>(other);
  return picture.height <= picture.width ? std::array{size_[0], far} : std::array{far, size_[0]};
}

at::Tensor ImageProcessor::operator()(const media::Image& picture) const {
  const auto size = resizes_ ? resized_to(picture) : std::array{picture.height, picture.width};
  auto x = pixels_of(resizes_ ? media::resized(picture, size[1], size[0], filter_) : picture)
               .permute({2, 0, 1})
               .to(at::kFloat);
  if (crops_) x = middle(x, crop_);
  if (rescales_) x = x * factor_;
  if (!normalises_) return x;
  const auto channels = [&](const std::array<double, 3>& numbers) {
    return at::tensor(at::ArrayRef<double>(numbers.data(), numbers.size()), x.options()).view({3, 1, 1});
  };
  return (x - channels(mean_)) / channels(deviation_);
}

}  // namespace atelier::pipeline
