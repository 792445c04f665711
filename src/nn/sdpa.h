// The attention kernel: cuDNN where it applies, otherwise the libraries' other fused kernels. Innermost
// AttentionOp.
#pragma once
#include <set>
#include <string>
#include <utility>

#include "nn/attention.h"

namespace atelier::nn {

enum class SdpaBackend { kAuto, kCudnn, kFlash, kFlash3, kEfficient, kProducts, kMath };

// Scaled dot-product attention, scale 1/sqrt(d), no mask. q [Nq, B, h, d], kv [N, B, 2, h, d].
class Sdpa : public AttentionOp {
 public:
  explicit Sdpa(SdpaBackend backend = SdpaBackend::kAuto) : backend_(backend) {}
  AttentionOutput run(const CallContext&, const AttentionLayer&, KvExtent, const at::Tensor& q,
                      const at::Tensor& kv, Lse) override;
  // Names of the kernels that really ran.
  std::set<std::string> used() const;

 private:
  SdpaBackend backend_;
  std::set<std::pair<SdpaBackend, bool>> ran_;  // on CUDA or not
};

// The same for encoders and single pictures. q, k, v: [B, h, n, d]; bias: added to the scaled scores, may be
// undefined; scale: of the scores. Returns [B, h, n, d].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias,
                  double scale);

}  // namespace atelier::nn
