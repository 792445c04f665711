#include "plan/planner.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/check.h"
#include "base/error.h"

namespace atelier::plan {
namespace {

// A decoder of this width and 1024 x 1024 pixels takes 19 ms on an H200, 3.7 of them in the attention of its
// middle (docs/plan.md); its convolutions grow with pixels, its attention with their square.
constexpr double kDecodeFlop = 0.0153 * 728e12 / (1024.0 * 1024);  // per pixel
constexpr double kDecoderWidth = 128, kMiddleWidth = 512, kPixelsPerPosition = 64;
constexpr double kMiddleRate = 0.2;    // of attention's rate: one head of 512
constexpr double kEncodeFixed = 2e-3;  // s: tokens there, states back
constexpr double kKernelFrames = 3;    // of a video decoder's kernels
// Where ranks decode together: what neighbours' rows add to a rank's share; what their messages take in each
// pass, and the sums of group norms, which decoders of videos do without. In seconds.
constexpr double kDecodeByRows = 1.1, kRowsOfNeighbours = 3e-3, kSumsOfNorms = 3e-3;

double groups_of(const ParallelConfig& d) {
  return double{1} * d.data;
}

double encode_seconds(const PlanQuery& q) {
  const auto& work = q.step.layout.work;
  const double tokens = static_cast<double>(work.text_tokens) * work.branches;
  return kEncodeFixed + 2 * static_cast<double>(q.memory.encoders) * tokens / q.hardware.products;
}

// One picture, or the frames that one latent frame makes.
double pass_seconds(const PlanQuery& q) {
  const auto& m = q.memory;
  const auto pixels = static_cast<double>(m.pixels), frames = static_cast<double>(m.frames_at_once);
  const double width = static_cast<double>(m.vae_width) / (frames * kDecoderWidth);
  const double positions = pixels / kPixelsPerPosition;
  const double attention =
      4 * positions * positions * kMiddleWidth * width / (kMiddleRate * q.hardware.attention);
  const double depth = frames > 1 ? frames * kKernelFrames : 1;
  return pixels * kDecodeFlop * width * width * depth / q.hardware.products + attention;
}

double decode_seconds(const PlanQuery& q, const ParallelConfig& d) {
  const auto& m = q.memory;
  const bool is_video = m.frames_at_once > 1;
  const int64_t passes = is_video ? 1 + (m.frames - 1) / m.frames_at_once : 1;
  const int batch = std::max(1, q.step.layout.work.batch / d.data);
  const double one = static_cast<double>(passes) * pass_seconds(q);
  if (!codes_by_rows(d, coded_picture(m, batch))) return batch * one;
  const double messages = kRowsOfNeighbours + (is_video ? 0 : kSumsOfNorms);
  return static_cast<double>(passes * (m.has_slices ? batch : 1)) * messages +
         kDecodeByRows * batch * one / replica_size(d);
}

bool draws_exactly(const ParallelConfig& d, int steps) {
  return patch_count(d) == 1 || (steps > 0 && steps <= d.warmup);
}

int64_t room_of(const PlanQuery& q) {
  return q.room > 0 ? q.room : q.hardware.memory;
}

std::string rounded(double value) {
  const double scale = value < 10 ? 100 : value < 1000 ? 10 : 1;
  return str(std::round(value * scale) / scale);
}
std::string milliseconds(double seconds) {
  return rounded(1e3 * seconds) + " ms";
}
std::string in_gibibytes(int64_t n) {
  return rounded(static_cast<double>(n) / double{1 << 30}) + " GiB";
}

// Of a layout that cuts the sequence.
std::string how_keys_meet(const ParallelConfig& d) {
  if (d.ring == 1 && d.kv_gather == 1) return "heads change hands around every attention";
  std::string between;  // ranks that do not change heads with each other
  if (d.kv_gather > 1) between = "keys and values are gathered";
  if (d.kv_gather > 1 && d.ring > 1) between += ", then travel around a ring";
  if (d.ulysses == 1) return between.empty() ? "keys and values travel around a ring" : between;
  return str("heads change hands in groups, ", between.empty() ? "keys travel" : between, " between them");
}

std::string cuts(const Prediction& p, const PlanQuery& q) {
  const ParallelConfig& d = p.degrees;
  std::vector<std::string> parts;
  if (d.data > 1) parts.push_back(str(d.data, " groups draw different pictures"));
  if (d.cfg > 1) parts.push_back("the two branches of guidance run at once");
  if (d.pipeline > 1) {
    const int patches = patch_count(d);
    parts.push_back(str(d.pipeline, " stages share the blocks",
                        patches > 1 ? str(" and ", patches, " patches flow through them") : ""));
  }
  const int sequence = sequence_size(d);
  const char* what = q.step.layout.model.has_convolution_mixer ? "rows" : "tokens";
  if (sequence > 1) {
    parts.push_back(str("each rank computes 1/", sequence, " of the ", what, "; ", how_keys_meet(d)));
  }
  if (d.tensor > 1)
    parts.push_back(str("each rank multiplies 1/", d.tensor, " of the features of every token"));
  if (d.shard > 1)
    parts.push_back(str("blocks are gathered from ", d.shard, " shards while they are needed"));
  const int batch = std::max(1, q.step.layout.work.batch / d.data);
  if (codes_by_rows(d, coded_picture(q.memory, batch))) parts.push_back("all ranks decode, each its rows");
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : ", ") + part;
  return out.empty() ? "one rank does everything" : out;
}

}  // namespace

Prediction predict(const PlanQuery& q, const ParallelConfig& d) {
  Prediction p{.degrees = d,
               .step = step_time(q.step, d, q.hardware),
               .encode_s = encode_seconds(q),
               .decode_s = decode_seconds(q, d),
               .ranks = rank_memory(q.step, q.memory, d)};
  const auto& work = q.step.layout.work;
  p.is_exact = draws_exactly(d, work.steps);
  p.picture_s = p.encode_s + std::max(1, work.steps) * p.step.seconds() + p.decode_s;
  const double at_once = groups_of(d) * std::max(1, work.batch / d.data);
  const auto pictures = static_cast<double>(std::max<int64_t>(work.pictures, 1));
  p.run_s = p.picture_s * std::ceil(pictures / at_once);
  p.fits = room_of(q) == 0 || p.most().total() <= room_of(q);
  return p;
}

std::vector<Prediction> ranked(const PlanQuery& q, int num_gpus) {
  std::vector<Prediction> out;
  for (ParallelConfig d : layouts(q.step.layout, num_gpus)) {
    out.push_back(predict(q, d));
    const int sequence = sequence_size(d);
    if (sequence > 1) {
      d.shard = sequence;
      out.push_back(predict(q, d));
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const Prediction& a, const Prediction& b) {
    return std::tuple(!a.fits, a.run_s) < std::tuple(!b.fits, b.run_s);
  });
  return out;
}

Prediction best_exact(const PlanQuery& q, int num_gpus) {
  const auto all = ranked(q, num_gpus);
  ENSURE(!all.empty());
  for (const Prediction& p : all) {
    if (p.fits && p.is_exact) return p;
  }
  const auto least = [](const Prediction& a, const Prediction& b) {
    return a.most().total() < b.most().total();
  };
  for (const Prediction& p : all) {
    if (p.fits) return p;
  }
  return *std::min_element(all.begin(), all.end(), least);
}

std::string explanation(const Prediction& p, const Prediction& one, const PlanQuery& q) {
  const StepTime& t = p.step;
  const double step = t.seconds();
  std::string out = cuts(p, q) + ": ";
  std::vector<std::string> costs{str("products ", milliseconds(t.products)),
                                 str("attention ", milliseconds(t.attention)),
                                 str("the rest ", milliseconds(t.pointwise))};
  if (t.exchange > 0) costs.push_back(str("messages ", milliseconds(t.exchange)));
  if (t.weights > 0) costs.push_back(str("weights on their way ", milliseconds(t.weights)));
  if (t.idle > 0) costs.push_back(str("waiting ", milliseconds(t.idle)));
  for (size_t i = 0; i < costs.size(); ++i) out += (i ? " + " : "") + costs[i];
  out += str(" = ", milliseconds(step), " per step");
  const int ranks = world_size(p.degrees);
  if (ranks > 1) {
    const double speed = one.run_s / p.run_s;
    out += speed < 1 ? str(", slower than one GPU (", rounded(speed), " times its speed)")
                     : str(", ", rounded(speed), " times one GPU for the run");
  }
  const size_t at = fullest(p.ranks);
  out += str("; rank ", at, " holds most, ", in_gibibytes(p.ranks[at].total()), " (", in_words(p.ranks[at]),
             ")");
  if (!p.fits) out += str(", and does not fit in ", in_gibibytes(room_of(q)));
  if (!p.is_exact) out += "; approximate: later patches see keys of the step before";
  return out + ".";
}

}  // namespace atelier::plan
