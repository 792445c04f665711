// The attention kernel: cuDNN where it applies, otherwise the libraries' other fused kernels. Innermost
// AttentionOp.
#pragma once
#include <set>
#include <string>
#include <tuple>

#include "nn/attention.h"

namespace atelier::nn {

// kOrdered: sums in one order, under OrderedArithmetic; all keys are then on one rank.
enum class SdpaBackend { kAuto, kCudnn, kFlash, kFlash3, kEfficient, kProducts, kMath, kOrdered };

// Scaled dot-product attention, scale 1/sqrt(d), no mask. q [Nq, B, h, d], kv [N, B, 2, h, d]. e4m3 goes to
// FlashAttention-3 as it is, to every other kernel as the same values in the model's type.
class Sdpa : public AttentionOp {
 public:
  explicit Sdpa(SdpaBackend backend = SdpaBackend::kAuto) : backend_(backend) {}
  AttentionOutput run(const CallContext&, const AttentionLayer&, KvExtent, const at::Tensor& q,
                      const at::Tensor& kv, Lse) override;
  // Names of the kernels that really ran.
  std::set<std::string> used() const;

 private:
  SdpaBackend backend_;
  std::set<std::tuple<SdpaBackend, bool, bool>> ran_;  // on CUDA or not, from e4m3 or not
};

// The same for encoders and single pictures. q, k, v: [B, h, n, d]; bias: added to the scaled scores, may be
// undefined; scale: of the scores. Returns [B, h, n, d].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias,
                  double scale);

}  // namespace atelier::nn
