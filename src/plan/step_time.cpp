#include "plan/step_time.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "plan/route.h"
#include "plan/schedule.h"
#include "plan/simulate.h"

namespace atelier::plan {
namespace {

// Constants that are fitted, all on one H200 or on its links; docs/plan.md has each with what it
// was fitted on.
constexpr double kRowsLost = 128;      // a product of so many rows reaches half of its rate
constexpr double kTileRows = 128;      // queries that one multiprocessor takes at a time
constexpr double kBytesPerNumber = 2;  // weights and activations in 16 bits
constexpr double kPointwiseBytes =
    56;  // moved per token, channel and block by what is neither product nor attention
constexpr double kWholeUnderTensor = 0.3;  // of it, what a tensor cut leaves whole: norms, gates, residuals
constexpr double kHidden = 0.36;           // of a transfer beside products; the rest of its bytes slows them
constexpr double kLaunch = 3e-6;           // a kernel that does almost nothing
constexpr double kHeads64 = 0.73, kHeadsOdd = 0.46;  // attention's rate by head size, of that at 128
constexpr double kConvolution = 0.78;  // rate of a UNet's products and convolutions, of large products
constexpr double kUnetRowsLost = 690;  // they are many and small: so many rows are lost in each

double up(double total, double parts) {
  return std::ceil(total / parts);
}

void add(StepTime& to, const StepTime& from, double times = 1) {
  to.products += times * from.products, to.attention += times * from.attention;
  to.pointwise += times * from.pointwise, to.exchange += times * from.exchange;
  to.weights += times * from.weights, to.idle += times * from.idle;
}

StepTime scaled(const StepTime& t, double by) {
  StepTime out;
  add(out, t, by);
  return out;
}

// What is left of a message when there is other work for so long: its bytes take multiprocessors and
// power from it.
double exposed(const MessageCost& link, double bytes, double beside) {
  return std::max(link.seconds(bytes) - beside, (1 - kHidden) * bytes / link.rate);
}

// Links as a group of ranks along these axes sees them: beyond an island half of the rate is left.
Links seen(const Hardware& hardware, int ranks) {
  Links links = hardware.links;
  if (ranks <= links.island) return links;
  for (MessageCost* m : {&links.exchange, &links.shift, &links.gather}) m->rate /= 2;
  links.stores.rate = 0;
  return links;
}

class BlockTime {
 public:
  BlockTime(const BlockWork& b, const StepQuery& query, const BlockCall& c, const ParallelConfig& d,
            const Hardware& h)
      : b_(b), query_(query), d_(d), h_(h), links_(seen(h, world_size(d) / d.data)), samples_(c.samples) {
    const double parts = sequence_size(d);
    image_ = up(c.image * b.share, parts) * samples_;
    text_ = b.per_text_token > 0 ? up(c.text, parts) * samples_ : 0;
    queries_ = c.image * b.share + (b.per_text_token > 0 ? c.text : 0);
    keys_ = c.image_keys * b.share + (b.per_text_token > 0 ? c.text_keys : 0);
    cross_keys_ = c.text_keys;
    // Several attentions of a block are cut one by one.
    const double layers =
        std::max(1.0, b.self_width / (double{1} * query.layout.model.heads * query.model.head_size));
    heads_ = layers * up(up(b.self_width / query.model.head_size / layers, d.tensor), d.ulysses);
  }

  StepTime all() const {
    StepTime t;
    t.products = products();
    t.pointwise = rows() * b_.width * kPointwiseBytes / h_.bandwidth *
                  (d_.tensor == 1 ? 1 : kWholeUnderTensor + (1 - kWholeUnderTensor) / d_.tensor);
    if (b_.self_width > 0) attend(t);
    if (b_.cross_width > 0) t.attention += cross();
    if (d_.tensor > 1) t.exchange += sums();
    if (b_.convolutions > 0 && sequence() > 1) t.exchange += halos();
    return t;
  }

 private:
  double sequence() const { return sequence_size(d_); }
  double rows() const { return image_ + text_; }
  // Of a number of q, k and v on its way to attention.
  double operand_bytes() const { return query_.has_e4m3_attention ? 1 : kBytesPerNumber; }
  // Of what needs no attention, while messages travel.
  double beside() const {
    return d_.overlap && b_.beside > 0 ? product_seconds(rows(), b_.beside / d_.tensor, h_) : 0;
  }

  double products() const {
    const double cut = d_.tensor;
    if (b_.has_text_weights)
      return product_seconds(image_, b_.per_token / cut, h_) +
             product_seconds(text_, b_.per_text_token / cut, h_);
    const double per_row = rows() > 0 ? (image_ * b_.per_token + text_ * b_.per_text_token) / rows() : 0;
    if (query_.layout.model.has_convolution_mixer)
      return product_seconds(rows() + kUnetRowsLost - kRowsLost, per_row / cut, h_) / kConvolution;
    return product_seconds(rows(), per_row / cut, h_);
  }

  void attend(StepTime& t) const {
    if (d_.ring == 1) {
      t.attention +=
          attention_seconds(queries_ / d_.kv_gather, keys_, heads_ * samples_, query_.model.head_size, h_);
    } else {
      ring(t);
    }
    if (d_.ulysses > 1) t.exchange += exchange();
    if (d_.kv_gather > 1) t.exchange += gather();
  }

  // Keys and values travel around; what they give is merged in 32 bits.
  void ring(StepTime& t) const {
    const double queries = queries_ / (double{1} * d_.ring * d_.kv_gather), keys = keys_ / d_.ring;
    const double each =
        attention_seconds(queries, keys, heads_ * samples_, query_.model.head_size, h_) + 3 * kLaunch;
    const double width = heads_ * query_.model.head_size * samples_;
    t.attention += d_.ring * each;
    const double numbers = queries * width;
    const double first = 6 * numbers / h_.bandwidth + kLaunch, last = first;
    const double merge = 22 * numbers / h_.bandwidth + 8 * kLaunch;
    const double shift = exposed(links_.shift, 2 * keys * width * operand_bytes(), d_.overlap ? each : 0);
    t.exchange += first + last + (d_.ring - 1) * (merge + shift);
  }

  // Queries, keys and values to the ranks of their heads, and what was attended back.
  double exchange() const {
    const double leave = double(d_.ulysses - 1) / d_.ulysses;
    const double numbers = rows() * b_.self_width / d_.tensor;
    const double bytes = numbers * kBytesPerNumber, coming = 3 * numbers * operand_bytes() * leave;
    const MessageCost& stores = links_.stores;
    if (!d_.collective && stores.rate > 0) return stores.seconds(coming) + stores.seconds(bytes * leave);
    const double beside = this->beside();
    const double there =
        beside > 0 ? exposed(links_.exchange, coming, beside) : links_.exchange.seconds(coming);
    const double copies = (6 * numbers * operand_bytes() + 2 * bytes) / h_.bandwidth + 3 * kLaunch;
    return there + links_.exchange.seconds(bytes * leave) + copies;
  }

  // Values, then keys, of this rank's tokens (with Ulysses: of its group's, for its heads) to each rank of
  // the group. What is sent is copied out of the projections, and with several streams what arrives into the
  // order of one rank.
  double gather() const {
    const double bytes = 2 * rows() * b_.self_width / d_.tensor * operand_bytes();
    if (!d_.collective && d_.ulysses == 1 && links_.stores.rate > 0) return gather_by_stores(bytes);
    // Each costs what a shift does before its first byte: two H200s, SD3 and FLUX.1 by kv_gather=2.
    const MessageCost gathers{2 * links_.shift.latency, links_.gather.rate};
    const double beside = d_.ulysses == 1 ? this->beside() : 0;
    const double sent = (d_.kv_gather - 1) * bytes;
    const double there = beside > 0 ? exposed(gathers, sent, beside) : gathers.seconds(sent);
    const double ordered = text_ > 0 ? d_.kv_gather : 0;
    return there + 2 * (1 + ordered) * bytes / h_.bandwidth + 3 * kLaunch;
  }

  // Barriers before and behind. The copy engines hide behind what needs no attention; else the kernel that
  // makes keys and values stores them at every peer.
  double gather_by_stores(double bytes) const {
    const MessageCost& stores = links_.stores;
    const double sent = (d_.kv_gather - 1) * bytes;
    if (b_.beside <= 0) return stores.latency + stores.seconds(sent);
    const double beside = this->beside();
    return 2 * stores.latency + std::max(0.0, sent / stores.rate - beside);
  }

  double cross() const {
    return attention_seconds(queries_ / sequence(), cross_keys_,
                             b_.cross_width / query_.model.head_size / d_.tensor * samples_,
                             query_.model.head_size, h_);
  }

  double sums() const {
    const double streams = b_.has_text_weights ? 2 : 1;
    const double leave = double(d_.tensor - 1) / d_.tensor;
    const double bytes = rows() * b_.width * kBytesPerNumber;
    return b_.sums * (2 * bytes * leave / links_.exchange.rate + streams * 2 * links_.exchange.latency);
  }

  // Rows of the neighbours, and the moments of a group norm before each convolution.
  double halos() const { return b_.convolutions * (links_.shift.latency + links_.exchange.latency); }

  const BlockWork& b_;
  const StepQuery& query_;
  const ParallelConfig& d_;
  const Hardware& h_;
  const Links links_;
  const double samples_;
  double image_ = 0, text_ = 0;                     // rows of this rank, of all samples
  double queries_ = 0, keys_ = 0, cross_keys_ = 0;  // of a sample, before the cut
  double heads_ = 0;                                // of this rank
};

// One forward of all blocks, for one stage after another.
class Forward {
 public:
  Forward(const StepQuery& query, const ParallelConfig& d, const Hardware& h) : query_(query), d_(d), h_(h) {
    const Workload& work = query.layout.work;
    tokens_ = static_cast<double>(query.grid_tokens > 0 ? query.grid_tokens : work.image_tokens);
    text_ = static_cast<double>(work.text_tokens + query.model.more_text_tokens);
    const double batch = std::max(1, work.batch / d.data);
    samples_ = batch * (double{1} * work.branches / d.cfg);
  }

  // Blocks [begin, end) for one of so many patches; the text goes with the first of them. A whole pass
  // has one patch.
  StepTime blocks(int begin, int end, int patches, bool is_first) const {
    const BlockCall call{tokens_ / patches, is_first ? text_ : 0, tokens_, text_, samples_};
    StepTime t;
    for (int i = begin; i < end; ++i) add(t, one(i, call));
    return t;
  }
  // The hidden state of a patch, on its way to the next stage: each rank of the group sends its part.
  double hop(int patches) const {
    const double tokens = (tokens_ + text_) / patches / sequence_size(d_);
    const Links links = seen(h_, world_size(d_) / d_.data);
    return links.shift.seconds(tokens * samples_ * query_.model.blocks.front().width * kBytesPerNumber);
  }

 private:
  StepTime one(int i, const BlockCall& call) const {
    const BlockWork& b = query_.model.blocks[static_cast<size_t>(i)];
    StepTime t = block_time(b, query_, call, d_, h_);
    if (d_.shard > 1 && !query_.model.weights.blocks.empty()) {
      const double bytes = kBytesPerNumber *
                           static_cast<double>(query_.model.weights.blocks[static_cast<size_t>(i)]) /
                           d_.tensor;
      t.weights = exposed(seen(h_, d_.shard).gather, bytes * (d_.shard - 1) / d_.shard, t.seconds());
    }
    return t;
  }

  const StepQuery& query_;
  const ParallelConfig& d_;
  const Hardware& h_;
  double tokens_ = 0, text_ = 0, samples_ = 1;
};

// So many steps by their schedule: how long, and what of it the busiest stage computes.
StepTime played(const std::vector<ModelChunk>& route, const Forward& forward, int patches, int steps,
                int warmup, SendMode mode) {
  StepTime busiest;
  std::vector<StepTime> stages(static_cast<size_t>(stages_of(route)));
  Costs costs;
  for (const ModelChunk& chunk : route) {
    StepTime t;
    for (int p = 0; p < patches; ++p) add(t, forward.blocks(chunk.begin, chunk.end, patches, p == 0));
    costs.chunks.push_back(t.seconds());
    add(stages[static_cast<size_t>(chunk.stage)], t, steps);
  }
  costs.hop = patches * forward.hop(patches);
  const auto simulation = simulate(route, schedule(route, patches, steps, warmup), costs, mode);
  ENSURE(simulation.fault.empty());
  for (const StepTime& s : stages) {
    if (s.seconds() > busiest.seconds()) busiest = s;
  }
  busiest.idle = std::max(0.0, simulation.makespan - busiest.seconds());
  return busiest;
}

}  // namespace

double product_seconds(double rows, double per_row, const Hardware& hardware) {
  return rows <= 0 ? 0 : 2 * per_row * (rows + kRowsLost) / hardware.products;
}

double attention_seconds(double queries, double keys, double heads, int head_size, const Hardware& hardware) {
  if (queries <= 0 || keys <= 0 || heads <= 0) return 0;
  const double rounds = heads * up(queries, kTileRows) / hardware.multiprocessors;
  const double busy = rounds / std::ceil(rounds);
  const double by_size = head_size % 128 == 0 ? 1 : head_size % 64 == 0 ? kHeads64 : kHeadsOdd;
  return 4 * queries * keys * heads * head_size / (hardware.attention * hardware.flash3 * busy * by_size);
}

StepTime block_time(const BlockWork& block, const StepQuery& query, const BlockCall& call,
                    const ParallelConfig& degrees, const Hardware& hardware) {
  return BlockTime(block, query, call, degrees, hardware).all();
}

StepTime step_time(const StepQuery& query, const ParallelConfig& d, const Hardware& hardware) {
  ENSURE(std::ssize(query.model.blocks) == query.layout.model.blocks);
  const Forward forward(query, d, hardware);
  const auto route = plan_for(d, query.layout.model).chunks;
  const int steps = std::max(1, query.layout.work.steps);
  const int whole = patch_count(d) == 1 ? steps : std::min(d.warmup, steps);
  const auto mode = d.overlap ? SendMode::kPosted : SendMode::kRendezvous;
  StepTime t;
  if (whole > 0) add(t, played(route, forward, 1, whole, whole, mode));
  if (steps > whole) add(t, played(route, forward, patch_count(d), steps - whole, 0, mode));
  t = scaled(t, 1.0 / steps);
  if (d.cfg > 1) t.exchange += seen(hardware, d.cfg).exchange.latency;
  return t;
}

}  // namespace atelier::plan
