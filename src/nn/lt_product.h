// A product by one algorithm of cuBLASLt, and which algorithms that library proposes for it. Only in builds
// with CUDA.
#pragma once
#include <cublasLt.h>

#include <string>
#include <vector>

#include "nn/product_table.h"

namespace atelier::nn {

// 0: the process has loaded no cuBLASLt that this program can call.
size_t cublaslt_version();

// Throws std::runtime_error for what the library refuses.
class LtProduct {
 public:
  struct Operands {
    const void *x = nullptr, *w = nullptr, *bias = nullptr;
    void* y = nullptr;
  };
  explicit LtProduct(const ProductShape& shape);
  // Best first, as the library guesses.
  std::vector<std::string> proposals();
  // On the current stream.
  void run(const Operands& operands, const std::string& algorithm);

 private:
  bool has_bias() const {
    return shape_.epilogue == Epilogue::kBias || shape_.epilogue == Epilogue::kBiasGelu;
  }
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value);

  ProductShape shape_;
  cublasLtMatmulDescOpaque_t product_{};
  // The library counts columns first: y^T [out, rows] = W [in, out]^T x [in, rows].
  cublasLtMatrixLayoutOpaque_t x_{}, w_{}, y_{};
};

}  // namespace atelier::nn
