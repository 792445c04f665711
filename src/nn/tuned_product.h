// Products of half types on a GPU by the algorithms of cuBLASLt that a ProductTuner has found for them. torch
// takes the first that the library proposes; of its eight proposals another one can take 12 % less time, most
// of all where rows are few, as on many ranks. All of them give the same bits, or are not taken.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <memory>

#include "nn/product_tuner.h"

namespace atelier::nn {

// A device's tuner while this lives, which is as long as models on the device do; at most one at a time.
class TunedProducts {
 public:
  // folder: where its table lies, a file for each kind of GPU and version of the library; empty: it is not
  // kept. Does nothing on the CPU.
  TunedProducts(c10::Device device, const std::filesystem::path& folder);
  ~TunedProducts();
  TunedProducts(const TunedProducts&) = delete;
  TunedProducts& operator=(const TunedProducts&) = delete;
  ProductTuner* tuner() const { return tuner_.get(); }  // null on the CPU

 private:
  c10::Device device_;
  std::unique_ptr<ProductTuner> tuner_;
};

// x W^T with what the epilogue says, [..., out]; x [..., in] and W [out, in] in one type. Undefined where the
// library's own choice is to be taken, as on the CPU and for numbers that are not there: whoever asks does
// that.
at::Tensor tuned_product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, Epilogue epilogue);
// y += x W^T, y [..., out]; false: nothing was done.
bool add_tuned_product_(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w);

// Grows when products of the device are computed by other algorithms than before.
int64_t product_generation(c10::Device device);

}  // namespace atelier::nn
