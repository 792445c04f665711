// A text encoder that replays a device graph for texts of a length that it has met before.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "models/text_encoder.h"
#include "pipeline/graph_cache.h"

namespace atelier::pipeline {

class RecordedEncoder {
 public:
  RecordedEncoder(std::unique_ptr<models::TextEncoder> encoder, c10::Device device,
                  std::unique_ptr<GraphBackend> graphs);  // null: nothing is recorded
  struct Result {
    models::TextStates text;  // without lengths
    bool is_finite;
  };
  // One text: ids [1, T] on the CPU, mask alike or undefined. layer: as in models::TextCall. Waits for the
  // device.
  Result encode(const at::Tensor& ids, const at::Tensor& mask, int layer);

 private:
  // Memory that keeps its addresses.
  struct EncoderBuffers {
    int id = 0;  // of their graph
    at::Tensor ids, mask;
    models::TextStates out;
    at::Tensor is_finite;  // bool, no dimensions
  };
  void run(EncoderBuffers& b, int layer) const;

  std::unique_ptr<models::TextEncoder> encoder_;
  c10::Device device_;
  GraphCache graphs_;
  std::map<std::string, EncoderBuffers> buffers_;  // by kind of text
  int next_id_ = 1;
};

}  // namespace atelier::pipeline
