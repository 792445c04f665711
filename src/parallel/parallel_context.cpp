// Opens the groups of a layout and stacks the strategies behind the seams.
#include "parallel/parallel_context.h"

#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "parallel/by_heads.h"
#include "parallel/kv_gather.h"
#include "parallel/kv_gather_stores.h"
#include "parallel/ring.h"
#include "parallel/rows.h"
#include "parallel/sharded_eval.h"
#include "parallel/stale_kv.h"
#include "parallel/tensor.h"
#include "parallel/ulysses.h"
#include "parallel/ulysses_stores.h"

namespace atelier::parallel {
namespace {

constexpr plan::AxisSet kStageRanks = plan::kSequence | plan::AxisSet{plan::Axis::kTensor};
constexpr plan::AxisSet kReplica = kStageRanks | plan::AxisSet{plan::Axis::kCfg, plan::Axis::kPipeline};

// The ranks that differ from this one only in being on one of these two stages.
std::vector<int> both_ends(const plan::Mesh& mesh, plan::Direction d) {
  return {mesh.neighbour(plan::Axis::kPipeline, d.from), mesh.neighbour(plan::Axis::kPipeline, d.to)};
}

}  // namespace

// The groups of one rank. Two groups of the same ranks are one, unless they must not wait for each other.
class Groups {
 public:
  Groups(const plan::Mesh& mesh, comm::Transport* transport, bool overlap)
      : mesh_(mesh), transport_(transport), overlap_(overlap) {}

  // Null for one rank.
  comm::Comm* over(plan::AxisSet axes, std::string_view name) {
    const auto ranks = mesh_.peers(axes);
    if (ranks.size() < 2) return nullptr;
    auto& group = shared_[ranks];
    if (!group) group = own(ranks, name);
    return group;
  }
  comm::Comm* own(std::span<const int> ranks, std::string_view name) {
    comm::Comm* group = beside(ranks, name);
    if (!overlap_) group->wait_at_once();
    return group;
  }
  // Whose messages carry nothing that a step computes: they always travel while ranks do.
  comm::Comm* beside(std::span<const int> ranks, std::string_view name) {
    opened_.push_back(transport_->open(ranks, name));
    return opened_.back().get();
  }
  void check_alive() const {
    for (const auto& group : opened_) group->check_alive();
  }

 private:
  const plan::Mesh& mesh_;
  comm::Transport* transport_;
  std::map<std::vector<int>, comm::Comm*> shared_;
  std::vector<std::unique_ptr<comm::Comm>> opened_;
  bool overlap_;
};

// Ranks of a group hold rows of a picture: convolutions ask their neighbours, group norms add moments,
// attention goes round them all; where sums have one order, all keys come to each rank.
struct RowParts {
  std::optional<Ring> rotate;
  std::optional<KvGather> gather;
  std::optional<CommReducer> positions;
  std::optional<RowsHalo> halo;

  void stack(comm::Comm& group, nn::AttentionOp& attention, nn::Seams& seams, nn::SdpaBackend kind) {
    if (kind == nn::SdpaBackend::kOrdered) {
      seams.exchange = &gather.emplace(group, 0, *seams.exchange, 1);
    } else {
      seams.attention = &rotate.emplace(group, attention);
    }
    seams.positions = &positions.emplace(group);
    seams.rows = &halo.emplace(group);
  }
  void hold_all(bool value) {
    if (positions) positions->hold_all(value);
    if (halo) halo->hold_all(value);
  }
};

struct ParallelContext::SeamParts {
  plan::ParallelConfig degrees;
  plan::Mesh mesh;
  Groups groups;
  // Every rank opens its groups in this order.
  comm::Comm *ulysses, *gather, *ring, *tensor, *guidance, *sequence, *stage, *replica, *shards = nullptr;
  std::vector<std::pair<plan::Direction, comm::Comm*>> hops;

  const nn::SdpaBackend kind;
  nn::Sdpa kernel;
  std::optional<StaleKv> stale;
  std::optional<Ring> rotate;
  std::optional<Ulysses> exchange;
  std::optional<UlyssesStores> stores;
  std::optional<KvGather> gather_kv;
  std::optional<KvGatherStores> gather_stores;
  nn::LocalExchange alone;
  std::optional<CommReducer> features;
  std::optional<GroupShardedEval> sharded_eval;
  RowParts rows;
  std::optional<ExchangeByHeads> exchange_by_heads;
  std::optional<AttentionByHeads> attention_by_heads;
  nn::Seams denoiser;

  RowParts picture_rows;
  nn::LocalExchange picture_alone;
  nn::Seams picture;

  SeamParts(const plan::Plan& plan, comm::Transport* transport, nn::SdpaBackend backend)
      : degrees(plan.config),
        mesh(plan::mesh_sizes(plan.config), transport ? transport->rank() : 0),
        groups(mesh, transport, plan.config.overlap),
        ulysses(groups.over({plan::Axis::kUlysses}, "ulysses")),
        gather(groups.over({plan::Axis::kGather}, "kv_gather")),
        ring(groups.over({plan::Axis::kRing}, "ring")),
        tensor(groups.over({plan::Axis::kTensor}, "tensor")),
        guidance(groups.over({plan::Axis::kCfg}, "cfg")),
        sequence(groups.over(plan::kSequence, "sequence")),
        stage(groups.over(kStageRanks, "stage")),
        replica(groups.over(kReplica, "replica")),
        kind(backend),
        kernel(backend),
        alone(mesh.sequence_rank()),
        picture_alone(splits_pictures() ? replica->rank() : 0) {
    open_shards();
    open_hops(plan.chunks);
    stack_denoiser();
    if (plan.cuts_rows && sequence) {
      stack_rows();
    } else {
      stack_tokens();
    }
    stack_picture();
  }

  bool splits_pictures() const { return degrees.parallel_vae != plan::PictureRows::kNever && replica; }

  // Apart from the other groups: gathering the next block must not wait for this block's exchanges.
  void open_shards() {
    if (degrees.shard < 2) return;
    ENSURE(mesh.sequence_size() % degrees.shard == 0);
    const auto all = mesh.peers(plan::kSequence);
    const int first = mesh.sequence_rank() / degrees.shard * degrees.shard;
    shards = groups.beside(std::span(all).subspan(first, degrees.shard), "shards");
  }

  // Each direction of two stages has its own: a send that waits never holds up what flows the other way.
  void open_hops(std::span<const plan::ModelChunk> route) {
    const int me = mesh.index(plan::Axis::kPipeline);
    for (const plan::Direction d : plan::directions(route)) {
      if (d.from != me && d.to != me) continue;
      hops.emplace_back(d, groups.own(both_ends(mesh, d), str("hop ", d.from, " to ", d.to)));
    }
  }

  void stack_denoiser() {
    denoiser = {.exchange = &alone, .attention = &kernel};
    denoiser.tensor_rank = mesh.index(plan::Axis::kTensor);
    denoiser.tensor_size = mesh.size(plan::Axis::kTensor);
    if (tensor) denoiser.features = &features.emplace(*tensor);
    if (stage) denoiser.sharded_eval = &sharded_eval.emplace(*stage);
  }

  void stack_tokens() {
    nn::AttentionOp* attention = &kernel;
    if (plan::patch_count(degrees) > 1)
      attention = &stale.emplace(*attention, degrees.warmup > 0 ? Start::kWarm : Start::kCold);
    stack_sequence(*attention);
  }

  void stack_sequence(nn::AttentionOp& next) {
    denoiser.attention = ring ? &rotate.emplace(*ring, next) : &next;
    const int together = mesh.size(plan::Axis::kUlysses);
    if (ulysses) {
      const int first = mesh.index({plan::Axis::kRing, plan::Axis::kGather}) * together;
      denoiser.exchange = &exchange.emplace(*ulysses, first);
      if (!degrees.collective) denoiser.exchange = &stores.emplace(*ulysses, first, *exchange);
    }
    if (gather) {
      const int first = mesh.index(plan::Axis::kRing) * gather->size() * together;
      denoiser.exchange = &gather_kv.emplace(*gather, first, *denoiser.exchange, together);
      if (together == 1 && !degrees.collective)
        denoiser.exchange = &gather_stores.emplace(*gather, first, *gather_kv);
    }
  }

  void stack_rows() {
    rows.stack(*sequence, kernel, denoiser, kind);
    if (!ulysses && !gather) return;  // the ring is the whole sequence
    nn::AttentionOp& round_all = *denoiser.attention;
    nn::SequenceExchange& for_few_heads = *denoiser.exchange;
    denoiser.exchange = &alone;
    stack_sequence(kernel);
    if (!ulysses) return;  // any number of heads
    denoiser.exchange = &exchange_by_heads.emplace(*denoiser.exchange, for_few_heads, ulysses->size());
    denoiser.attention = &attention_by_heads.emplace(*denoiser.attention, round_all);
  }

  // Any ranks will do for rows: those of all branches and stages help, attention goes round them all.
  void stack_picture() {
    picture = {.exchange = &picture_alone, .attention = &kernel};
    if (splits_pictures()) picture_rows.stack(*replica, kernel, picture, kind);
  }
};

ParallelContext::ParallelContext(const plan::Plan& plan, comm::Transport* transport,
                                 nn::SdpaBackend backend) {
  ENSURE(plan::world_size(plan.config) == (transport ? transport->size() : 1));
  ENSURE(plan.chunks.empty() ? plan.config.pipeline == 1
                             : plan::stages_of(plan.chunks) == plan.config.pipeline);
  parts_ = std::make_unique<SeamParts>(plan, transport, backend);
}

ParallelContext::~ParallelContext() = default;
const plan::Mesh& ParallelContext::mesh() const {
  return parts_->mesh;
}
const plan::ParallelConfig& ParallelContext::degrees() const {
  return parts_->degrees;
}
int ParallelContext::seq_parts() const {
  return parts_->mesh.sequence_size();
}
int ParallelContext::seq_rank() const {
  return parts_->mesh.sequence_rank();
}
const nn::Seams& ParallelContext::denoiser() const {
  return parts_->denoiser;
}
const nn::Seams& ParallelContext::picture() const {
  return parts_->picture;
}
int ParallelContext::picture_parts() const {
  return parts_->splits_pictures() ? parts_->replica->size() : 1;
}
int ParallelContext::picture_rank() const {
  return parts_->splits_pictures() ? parts_->replica->rank() : 0;
}
ParallelContext::AloneWithPictures::AloneWithPictures(const ParallelContext& context) : context_(context) {
  context_.parts_->picture_rows.hold_all(true);
}
ParallelContext::AloneWithPictures::~AloneWithPictures() {
  context_.parts_->picture_rows.hold_all(false);
}
comm::Comm* ParallelContext::replica() const {
  return parts_->replica;
}
comm::Comm* ParallelContext::cfg() const {
  return parts_->guidance;
}
comm::Comm* ParallelContext::sequence() const {
  return parts_->sequence;
}
comm::Comm* ParallelContext::shards() const {
  return parts_->shards;
}

at::Tensor ParallelContext::gather_rows(const at::Tensor& part, int64_t latent_rows) const {
  return parts_->splits_pictures() ? parallel::gather_rows(*parts_->replica, part, latent_rows) : part;
}

comm::Comm* ParallelContext::hop(plan::Direction direction) const {
  for (const auto& [d, group] : parts_->hops) {
    if (d == direction) return group;
  }
  return nullptr;
}

void ParallelContext::begin_request(int buffers) {
  if (parts_->stale) parts_->stale->begin_request(buffers);
}
void ParallelContext::ran_whole(int buffers) {
  if (parts_->stale) parts_->stale->ran_whole(buffers);
}
void ParallelContext::forget(int buffers) {
  if (parts_->stale) parts_->stale->forget(buffers);
}
int64_t ParallelContext::kept_bytes(int buffers) const {
  return parts_->stale ? parts_->stale->bytes(buffers) : 0;
}

void ParallelContext::check_alive() const {
  parts_->groups.check_alive();
}

std::set<std::string> ParallelContext::used() const {
  const SeamParts& p = *parts_;
  auto all = p.kernel.used();
  const auto add = [&](const auto& part, const auto&... words) {
    if (part && part->ran()) all.insert(str(words...));
  };
  add(p.exchange, "ulysses over ", p.mesh.size(plan::Axis::kUlysses));
  add(p.stores, "ulysses over ", p.mesh.size(plan::Axis::kUlysses), " by stores");
  add(p.gather_kv, "kv_gather over ", p.mesh.size(plan::Axis::kGather));
  add(p.gather_stores, "kv_gather over ", p.mesh.size(plan::Axis::kGather), " by stores");
  add(p.rotate, "ring over ", p.mesh.size(plan::Axis::kRing));
  add(p.stale, "pipefusion with ", plan::patch_count(p.degrees), " patches");
  add(p.features, "tensor over ", p.mesh.size(plan::Axis::kTensor));
  add(p.rows.rotate, "ring over ", seq_parts());
  add(p.rows.gather, "kv_gather over ", seq_parts());
  add(p.rows.halo, "rows over ", seq_parts());
  add(p.picture_rows.halo, "picture rows over ", picture_parts());
  return all;
}

}  // namespace atelier::parallel
