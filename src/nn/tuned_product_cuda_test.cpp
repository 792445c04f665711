// Measured algorithms of products give the bits that torch's own choice gives.
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "base/scratch.h"
#include "nn/linear.h"
#include "nn/testing.h"
#include "nn/tuned_product.h"

namespace atelier::nn {
namespace {

using namespace std::chrono_literals;

TEST(CudaTunedProducts, GiveTheBitsOfTheLibrarysOwnChoice) {
  if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
  const c10::InferenceMode guard;
  const Scratch folder;
  const c10::Device device(c10::kCUDA, 0);
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(type);
    const auto on_gpu = [&](at::IntArrayRef sizes, uint64_t seed) {
      return random(sizes, at::kFloat, seed).to(type).to(device);
    };
    const int64_t in = 1536, out = 2304;
    const Weight w(on_gpu({out, in}, 1)), both(on_gpu({out, in + 768}, 2));
    const auto bias = on_gpu({out}, 3);
    const Linear with_bias(w, bias, nullptr), plain(w, {}, nullptr), of_two(both, bias, nullptr);
    std::vector<at::Tensor> x, more;
    for (const int64_t rows : {200, 1152, 2304}) {
      x.push_back(on_gpu({rows, 1, in}, 4));
      more.push_back(on_gpu({rows, 1, 768}, 5));
    }
    const auto all = [&] {
      std::vector<at::Tensor> y;
      for (size_t i = 0; i < x.size(); ++i) {
        y.push_back(with_bias(x[i]));
        y.push_back(plain(x[i]));
        y.push_back(with_bias.gelu(x[i]));
        y.push_back(of_two({x[i], more[i]}));
        y.push_back(y[5 * i + 1].clone());  // the plain one
        plain.add_to_(y.back(), x[i]);
      }
      return y;
    };
    const auto want = all();
    const TunedProducts products(device, folder.path());
    {
      const ProductTuner::Busy work(products.tuner());
      for (const auto& y : all()) ASSERT_TRUE(y.defined());
      EXPECT_EQ(product_generation(device), 0);
    }
    ASSERT_TRUE(products.tuner()->wait_settled(60s));
    const auto got = all();
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(got[i].view(at::kShort).equal(want[i].view(at::kShort))) << "product " << i;
    EXPECT_EQ(product_generation(device), products.tuner()->used());
  }
  EXPECT_FALSE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace atelier::nn
