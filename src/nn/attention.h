// Seam 1: attention. It sits at the raw projections, so that one kernel does q/k norm, rope and placement
// straight into whatever buffer the strategy hands out, and has two halves, so that independent work hides an
// exchange.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/partition.h"
#include "nn/call_context.h"
#include "nn/rope.h"
#include "nn/seams.h"

namespace atelier::nn {

// One attention of the model.
struct AttentionLayer {
  int id = 0;
  std::string name;
  std::vector<int> streams;        // whose keys and values
  std::vector<int> query_streams;  // streams that have queries
  Dim heads;                       // held here, after the tensor cut
  bool is_overlapped = false;      // the model does something else before it takes what was attended
  // Queries, keys and values are e4m3 without scales from where they are placed on; what is attended is of
  // the model's type.
  bool is_e4m3 = false;
  at::ScalarType model_type = at::kFloat;  // read where is_e4m3

  // Of what exchanges hold for a projection.
  at::TensorOptions operands(const at::Tensor& projected) const;
  // Of what is attended with such queries.
  at::ScalarType attended_type(const at::Tensor& q) const;
};

// Normalisation of q or k over the width of a head.
struct HeadNorm {
  enum class NormKind { kRms, kLayer };
  NormKind kind = NormKind::kRms;
  at::Tensor weight, bias;  // [d]; bias undefined for kRms
  double eps = 1e-6;
};

// One stream's tokens as they leave the projection: [n, B, heads held, d] views with a contiguous last
// dimension.
struct Projected {
  at::Tensor q, k, v;  // q undefined: this stream does not ask
  const HeadNorm* norm_q = nullptr;
  const HeadNorm* norm_k = nullptr;
  const Rope* rope = nullptr;
};

// Splits a fused projection [n, B, 3 * heads * d] into q, k and v.
Projected split_qkv(const at::Tensor& fused, int64_t head_dim, const HeadNorm& q, const HeadNorm& k,
                    const Rope& rope);

// Where one stream's q, k and v go for one peer: q [n, B, h, d], kv [n, B, 2, h, d], both contiguous, of the
// projection's type or e4m3 as the layer says.
struct ProjectionSlot {
  at::Tensor q, kv;
  std::vector<at::Tensor> kv_copies;  // where all heads' keys and values go as well; of one slot only
};

// Neighbouring tokens of one projection that go to one place.
struct ProjectionPiece {
  size_t projection = 0;
  Range tokens;
};

// A started exchange. Several may be in flight: everything an exchange needs to finish is in here.
struct ExchangeBuffers {
  std::vector<std::vector<ProjectionSlot>> slots;  // [projection, or piece][peer]
  std::vector<ProjectionPiece> pieces;             // empty: each projection is one
  std::vector<Range> heads;                        // per peer, of the heads held here
  struct Flight {
    virtual ~Flight() = default;
  };
  std::unique_ptr<Flight> flight;  // the exchange's own
};

// Whose keys are present, and of which patch. `first`, `count`: sequence ranks.
struct KvExtent {
  int first = 0, count = 1;
  std::optional<int> patch;
};

struct Qkv {
  at::Tensor q;   // [tokens that ask, B, h, d]
  at::Tensor kv;  // [tokens, B, 2, h, d]
  KvExtent held;
};

// Tokens <-> heads.
class SequenceExchange {
 public:
  virtual ~SequenceExchange() = default;
  virtual ExchangeBuffers buffers(const CallContext&, const AttentionLayer&, std::span<const Projected>) = 0;
  virtual void launch(const CallContext&, const AttentionLayer&,
                      ExchangeBuffers&) = 0;  // all buffers are written: starts the transfers
  virtual Qkv wait(const CallContext&, const AttentionLayer&, ExchangeBuffers&) = 0;
  // [tokens that ask, B, h here, d] -> [tokens that ask here, B, all heads, d]
  virtual at::Tensor scatter_back(const CallContext&, const AttentionLayer&, ExchangeBuffers&,
                                  at::Tensor out) = 0;
};

// Softmax attention of one rank's queries. lse: log-sum-exp of the scaled scores, [B, h, queries], float
// (double for double results); defined for Lse::kNeeded.
struct AttentionOutput {
  at::Tensor out;  // [queries, B, h, d], contiguous
  at::Tensor lse;
};
enum class Lse { kNone, kNeeded };
class AttentionOp {
 public:
  virtual ~AttentionOp() = default;
  virtual AttentionOutput run(const CallContext&, const AttentionLayer&, KvExtent, const at::Tensor& q,
                              const at::Tensor& kv, Lse) = 0;
};

// Can heads of such a width be e4m3?
constexpr bool has_e4m3_width(int64_t head_width) {
  return head_width % 16 == 0 && head_width <= 256;
}

// What a model holds.
class Attention {
 public:
  class PendingAttention {
   public:
    PendingAttention(const CallContext& call, const AttentionLayer& layer, ExchangeBuffers buffers)
        : call_(&call), layer_(&layer), buffers_(std::move(buffers)) {}

   private:
    friend class Attention;
    const CallContext* call_;
    const AttentionLayer* layer_;
    ExchangeBuffers buffers_;
  };

  Attention() = default;
  Attention(AttentionLayer layer, const Seams& seams)
      : at_once_(std::move(layer)), overlapped_(at_once_), exchange_(seams.exchange), op_(seams.attention) {
    overlapped_.is_overlapped = true;
  }

  // Begins the exchange, returns at once. One Projected per stream of the layer, in order.
  PendingAttention start(const CallContext& f, std::span<const Projected> p) const {
    return begin(overlapped_, f, p);
  }
  // [tokens that ask here, B, heads held * d]
  at::Tensor finish(PendingAttention) const;
  at::Tensor operator()(const CallContext& f, std::span<const Projected> p) const {
    return finish(begin(at_once_, f, p));
  }
  at::Tensor operator()(const CallContext& f, std::initializer_list<Projected> p) const {
    return (*this)(f, std::span(p.begin(), p.size()));
  }
  PendingAttention start(const CallContext& f, std::initializer_list<Projected> p) const {
    return start(f, std::span(p.begin(), p.size()));
  }

 private:
  PendingAttention begin(const AttentionLayer&, const CallContext&, std::span<const Projected>) const;

  AttentionLayer at_once_, overlapped_;
  SequenceExchange* exchange_ = nullptr;
  AttentionOp* op_ = nullptr;
};

// One rank: the exchange that moves nothing.
class LocalExchange : public SequenceExchange {
 public:
  explicit LocalExchange(int seq_rank = 0) : seq_rank_(seq_rank) {}
  ExchangeBuffers buffers(const CallContext&, const AttentionLayer&, std::span<const Projected>) override;
  void launch(const CallContext&, const AttentionLayer&, ExchangeBuffers&) override {}
  Qkv wait(const CallContext&, const AttentionLayer&, ExchangeBuffers&) override;
  at::Tensor scatter_back(const CallContext&, const AttentionLayer&, ExchangeBuffers&,
                          at::Tensor out) override {
    return out;
  }

 private:
  int seq_rank_;
};

// Norm over each head of q and k, rope, then every head to the peer that owns it, rounded to the slots' type
// in the same pass; heads: of each peer.
// Without k and v for queries of a prompt, without q for those that have none.
void place(const Projected&, std::span<const ProjectionSlot> slots, std::span<const Range> heads);
// Per stream and peer, views of flat per-peer buffers; shared by all exchanges. tokens already laid: q0, k0.
std::vector<std::vector<ProjectionSlot>> lay_out(std::span<const Projected>,
                                                 std::span<const ProjectionSlot> per_peer);

}  // namespace atelier::nn
