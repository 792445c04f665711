#include "parallel/by_heads.h"

#include <utility>

namespace atelier::parallel {

nn::ExchangeBuffers ExchangeByHeads::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                             std::span<const nn::Projected> streams) {
  return of(layer).buffers(f, layer, streams);
}

void ExchangeByHeads::launch(const nn::CallContext& f, const nn::AttentionLayer& layer,
                             nn::ExchangeBuffers& in) {
  of(layer).launch(f, layer, in);
}

nn::Qkv ExchangeByHeads::wait(const nn::CallContext& f, const nn::AttentionLayer& layer,
                              nn::ExchangeBuffers& in) {
  return of(layer).wait(f, layer, in);
}

at::Tensor ExchangeByHeads::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                         nn::ExchangeBuffers& in, at::Tensor out) {
  return of(layer).scatter_back(f, layer, in, std::move(out));
}

nn::AttentionOutput AttentionByHeads::run(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                          nn::KvExtent held, const at::Tensor& q, const at::Tensor& kv,
                                          nn::Lse lse) {
  return (held.count > 1 ? several_ : one_).run(f, layer, held, q, kv, lse);
}

}  // namespace atelier::parallel
