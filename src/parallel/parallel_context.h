// Puts the strategies of a run behind the seams: which objects a rank's model, autoencoder and engine talk
// to.
#pragma once
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"
#include "nn/sdpa.h"
#include "nn/seams.h"
#include "plan/mesh.h"
#include "plan/parallel_config.h"
#include "plan/route.h"
#include "plan/schedule.h"

namespace atelier::parallel {

// One rank's part of a layout. Lives as long as everything built with its seams.
class ParallelContext {
 public:
  // transport: null for one rank; otherwise its size is the layout's world size. All ranks construct theirs
  // at the same time (groups are opened here, in one order).
  ParallelContext(const plan::Plan& plan, comm::Transport* transport, nn::SdpaBackend backend);
  ~ParallelContext();

  const plan::Mesh& mesh() const;
  const plan::ParallelConfig& degrees() const;
  int seq_parts() const;  // ring x K/V gather x Ulysses
  int seq_rank() const;

  const nn::Seams& denoiser() const;  // attention, features, tables
  // The autoencoder's: rows of the picture over all ranks of one replica, unless degrees.parallel_vae is
  // never.
  const nn::Seams& picture() const;
  int picture_parts() const;
  int picture_rank() const;
  // While it lives, what is built with picture() codes whole pictures on this rank, with calls of one part.
  class AloneWithPictures {
   public:
    explicit AloneWithPictures(const ParallelContext& context);
    ~AloneWithPictures();
    AloneWithPictures(const AloneWithPictures&) = delete;
    AloneWithPictures& operator=(const AloneWithPictures&) = delete;

   private:
    const ParallelContext& context_;
  };
  // [..., rows held, W] -> the whole picture, or video, on every rank that has a part; `latent_rows` were
  // cut, each rank holds the same multiple of its share.
  at::Tensor gather_rows(const at::Tensor& part, int64_t latent_rows) const;

  // Null when the group has one rank.
  comm::Comm* replica() const;   // all ranks that draw one batch together; rank 0 of it writes
  comm::Comm* cfg() const;       // the two branches
  comm::Comm* sequence() const;  // ring x K/V gather x Ulysses
  comm::Comm* shards() const;    // the ranks that share each block's weights: neighbours in the sequence
  // Group rank 0 sends to group rank 1. Never null for a direction of the route that this rank is part of.
  comm::Comm* hop(plan::Direction direction) const;

  // Forgets what the last request with these buffers (CallContext) left behind: stale keys and values.
  void begin_request(int buffers);
  // The whole sequence has gone through this rank's blocks.
  void ran_whole(int buffers);
  // The buffers go, and what is kept for them.
  void forget(int buffers);
  int64_t kept_bytes(int buffers) const;
  // Throws Error(kPeer) once one of this rank's groups is poisoned (comm::Comm::check_alive).
  void check_alive() const;
  // Kernels and strategies that really ran, for reports.
  std::set<std::string> used() const;

 private:
  struct SeamParts;
  std::unique_ptr<SeamParts> parts_;
};

}  // namespace atelier::parallel
