// PipeFusion's attention: a patch attends to its own fresh keys and values and to the last ones of all other
// patches. Fang et al. (arXiv 2405.14430).
#pragma once
#include <cstdint>
#include <map>
#include <tuple>

#include "nn/attention.h"

namespace atelier::parallel {

// What the first patches of a request find.
enum class Start : uint8_t {
  kWarm,  // the keys of a whole pass
  kCold,  // nothing: a patch attends to the patches before it, until all have come by once
};

// Stands between Ring and the kernel: what it keeps is keyed (buffers, branch, layer, whose keys), one buffer
// each, in the order [patch][rank][stream]. Buffers keep their addresses as long as the shape of requests
// does not change.
class StaleKv : public nn::AttentionOp {
 public:
  explicit StaleKv(nn::AttentionOp& next, Start start = Start::kWarm) : next_(next), start_(start) {}
  // The whole sequence fills all slots; a patch replaces its own and attends to all that are filled. A patch
  // before any whole pass of the request is a bug if the start is warm; if it is cold, the patches of the
  // first step come in order. One patch: nothing is kept.
  nn::AttentionOutput run(const nn::CallContext&, const nn::AttentionLayer&, nn::KvExtent,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse) override;
  // buffers: as in CallContext. Nothing is filled any more.
  void begin_request(int buffers);
  // A whole pass has filled all slots, though a recorded graph did it without run().
  void ran_whole(int buffers);
  void forget(int buffers);
  int64_t bytes(int buffers) const;
  bool ran() const { return ran_; }  // a patch attended to stale keys

 private:
  struct Kept {
    at::Tensor slots;    // [tokens of all patches, B, 2, h, d]
    int64_t filled = 0;  // tokens of this request, from the first slot on
  };
  std::map<std::tuple<int, int, int, int>, Kept> kept_;
  nn::AttentionOp& next_;
  const Start start_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
