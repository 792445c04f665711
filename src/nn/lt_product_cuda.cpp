// The library is the one that torch has loaded. Its functions are found by name, so that a build needs its
// headers and no file to link.
#include <ATen/cuda/CUDAContext.h>
#include <dlfcn.h>

#include <array>
#include <cstring>
#include <stdexcept>

#include "base/error.h"
#include "nn/lt_product.h"

namespace atelier::nn {
namespace {

constexpr int kMostProposals = 8;

struct Library {
  decltype(&cublasLtMatmul) multiply = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) propose = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) init_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  bool is_there = false;

  Library() {
    is_there = find(multiply, "cublasLtMatmul") && find(propose, "cublasLtMatmulAlgoGetHeuristic") &&
               find(init_product, "cublasLtMatmulDescInit_internal") &&
               find(set_product, "cublasLtMatmulDescSetAttribute") &&
               find(init_layout, "cublasLtMatrixLayoutInit_internal") &&
               find(init_preference, "cublasLtMatmulPreferenceInit_internal") &&
               find(set_preference, "cublasLtMatmulPreferenceSetAttribute") &&
               find(version, "cublasLtGetVersion");
  }

 private:
  template <class Function>
  static bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    return function != nullptr;
  }
};

const Library& library() {
  static const Library one;
  return one;
}

void expect(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(str("cuBLASLt: ", what, ": status ", static_cast<int>(status)));
}

cublasLtEpilogue_t epilogue_of(Epilogue epilogue) {
  if (epilogue == Epilogue::kBias) return CUBLASLT_EPILOGUE_BIAS;
  return epilogue == Epilogue::kBiasGelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

void layout(cublasLtMatrixLayoutOpaque_t& out, cudaDataType_t type, int64_t rows, int64_t cols,
            int64_t stride) {
  expect(library().init_layout(&out, sizeof out, type, static_cast<uint64_t>(rows),
                               static_cast<uint64_t>(cols), stride),
         "layout");
}

}  // namespace

size_t cublaslt_version() {
  return library().is_there ? library().version() : 0;
}

template <class Value>
void LtProduct::set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  expect(library().set_product(&product_, attribute, &value, sizeof value), "attribute");
}

LtProduct::LtProduct(const ProductShape& shape) : shape_(shape) {
  const auto type = shape.type == at::kHalf ? CUDA_R_16F : CUDA_R_16BF;
  expect(library().init_product(&product_, sizeof product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(shape.epilogue));
  if (has_bias()) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
  layout(w_, type, shape.in, shape.out, shape.weight_stride);
  layout(x_, type, shape.in, shape.rows, shape.in);
  layout(y_, type, shape.out, shape.rows, shape.out);
}

std::vector<std::string> LtProduct::proposals() {
  const auto& lt = library();
  cublasLtMatmulPreferenceOpaque_t preference{};
  expect(lt.init_preference(&preference, sizeof preference), "preference");
  const size_t workspace = at::cuda::getCUDABlasLtWorkspaceSize();
  expect(
      lt.set_preference(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace),
      "workspace");
  std::array<cublasLtMatmulHeuristicResult_t, kMostProposals> found{};
  int count = 0;
  expect(lt.propose(at::cuda::getCurrentCUDABlasLtHandle(), &product_, &w_, &x_, &y_, &y_, &preference,
                    kMostProposals, found.data(), &count),
         "proposals");
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    const auto& one = found[static_cast<size_t>(i)];
    if (one.state == CUBLAS_STATUS_SUCCESS)
      out.emplace_back(reinterpret_cast<const char*>(&one.algo), sizeof one.algo);
  }
  return out;
}

void LtProduct::run(const Operands& o, const std::string& algorithm) {
  if (has_bias()) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias);
  cublasLtMatmulAlgo_t algo;
  if (algorithm.size() != sizeof algo)
    throw std::runtime_error("an algorithm of another version of cuBLASLt");
  std::memcpy(&algo, algorithm.data(), sizeof algo);
  const float one = 1, beta = shape_.epilogue == Epilogue::kAdd ? 1 : 0;
  expect(library().multiply(at::cuda::getCurrentCUDABlasLtHandle(), &product_, &one, o.w, &w_, o.x, &x_,
                            &beta, o.y, &y_, o.y, &y_, &algo, at::cuda::getCUDABlasLtWorkspace(),
                            at::cuda::getCUDABlasLtWorkspaceSize(), at::cuda::getCurrentCUDAStream()),
         "product");
}

}  // namespace atelier::nn
