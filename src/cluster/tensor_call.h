// Work on tensors that lie in a memory file of the caller: workers of this host map it, so that no tensor
// goes through a socket.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::cluster {

struct TensorRef {
  std::string dtype;  // float32, float16, bfloat16, int64
  std::vector<int64_t> shape;
  int64_t offset = 0;  // in the file, a multiple of 16
  int64_t bytes() const;
};

struct TensorCall {
  std::string action;            // predict or decode: see pipeline::Pipeline
  std::filesystem::path memory;  // of the file; stays as it is until the call is answered
  TensorRef latents, timesteps;  // timesteps: to predict
  std::map<std::string, TensorRef> inputs;
  std::vector<std::string> adapters;
  int expert = 0;
  int64_t result = 0;        // where the answer goes, float32
  int64_t result_bytes = 0;  // that there is room for
};
Json to_json(const TensorCall& call);
// Throws Error(kUsage) naming what is missing or not as it should be.
TensorCall tensor_call_from_json(const Json& json);

// A memory file, mapped for as long as the object lives.
class MappedTensors {
 public:
  // Throws Error(kUsage) where it cannot be opened.
  explicit MappedTensors(const std::filesystem::path& file);
  ~MappedTensors();
  MappedTensors(const MappedTensors&) = delete;
  MappedTensors& operator=(const MappedTensors&) = delete;

  // A view of the file. Throws Error(kUsage) for what lies outside of it.
  at::Tensor view(const TensorRef& ref) const;

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace atelier::cluster
