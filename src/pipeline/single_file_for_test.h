// What tests of single files share: the small recorded model's parts in one file, and whether they read the
// same.
#pragma once
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <array>
#include <span>
#include <string>

#include "base/testing.h"
#include "pipeline/model_repo.h"
#include "pipeline/testing.h"

namespace atelier::pipeline {

// The tensors of a component's folder, each behind a prefix.
inline void add(weights::Tensors& all, const std::string& component, const std::string& prefix) {
  for (const auto& item : std::filesystem::directory_iterator(kGolden / "model" / component)) {
    if (item.path().extension() != ".safetensors") continue;
    for (const auto& [name, tensor] : weights::read_tensors(item.path())) all[prefix + name] = tensor;
  }
}

class SingleFile : public ::testing::Test {
 protected:
  ModelRepo open(const weights::Tensors& tensors,
                 const std::filesystem::path& rest = kGolden / "model") const {
    weights::write_tensors(file_, tensors);
    return ModelRepo::open_single_files(std::span(&file_, 1), rest);
  }
  // Whether a component reads what the folder's does.
  static void expect_same(const ModelRepo& m, const std::string& component) {
    const auto folder = ModelRepo::open(kGolden / "model");
    const auto want = folder.weights(folder.component(component)), got = m.weights(m.component(component));
    for (const auto& [name, shape] : tensors_of(m.family(), m.component(component))) {
      at::Tensor a = at::zeros(shape), b = at::zeros(shape);
      want->read_into(a, name, shape, {}, {});
      got->read_into(b, name, shape, {}, {});
      EXPECT_TRUE(at::equal(a, b)) << component << " " << name;
    }
    want->check(), got->check();
  }
  // Whether the file holds the whole pipeline: nothing else has weights.
  void expect_whole(const weights::Tensors& tensors) const {
    constexpr std::array kParts{"transformer", "vae", "text_encoder", "text_encoder_2"};
    const Copy rest(kGolden / "model");
    for (const char* part : kParts) {
      for (const auto& item : std::filesystem::directory_iterator(rest.path() / part)) {
        if (item.path().extension() == ".safetensors") std::filesystem::remove(item.path());
      }
    }
    const auto m = open(tensors, rest.path());
    EXPECT_NO_THROW(m.check());
    for (const char* part : kParts) expect_same(m, part);
  }
  TemporaryFolder folder_;
  std::filesystem::path file_ = folder_ / "model.safetensors";
};

}  // namespace atelier::pipeline
